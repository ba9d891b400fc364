"""Which films a command means, what each becomes, and how they are shared out."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from streamgan import jobs
from streamgan.api import SourceError, UsageError

TREE = (
    "a.mp4 b.MOV notes.txt a.night.mp4 .hidden.mp4 photo.jpg still.png clips/a.mkv clips/deep/c.avi clips/deep/x.png "
    "clips/.git/d.mp4 clips/a.night.mp4 shots/1.png shots/2.png more/1.jpg twins/t.mp4 twins/t.mov empty/readme"
)


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the (empty) files of `TREE`, and a folder ``there``."""
    monkeypatch.chdir(tmp_path)
    for name in TREE.split():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("there").mkdir()
    return tmp_path


def pairs(found: jobs.Found) -> dict[str, str | None]:
    """Input and output of each job, without the working folder."""
    here = f"{os.getcwd()}/"
    return {job.input: job.output and job.output.replace(here, "") for job in found.jobs}


@pytest.mark.parametrize(
    ("inputs", "output", "expected"),
    [
        ("a.mp4", None, "a.mp4=a.night.mp4"),
        ("a.mp4", "x.mkv", "a.mp4=x.mkv"),
        ("a.mp4", "there", "a.mp4=there/a.mp4"),
        ("a.mp4", "out/", "a.mp4=out/a.mp4"),
        ("a.mp4", "out/%06d.png", "a.mp4=out/%06d.png"),
        ("a.mp4", "out/*.mkv", "a.mp4=out/*.mkv".replace("*", "a")),
        ("a.mp4", "window:", "a.mp4=window:"),
        ("a.mp4", "-", "a.mp4=-"),
        ("a.mp4 b.MOV", "out", "a.mp4=out/a.mp4 b.MOV=out/b.mp4"),
        ("a.mp4 b.MOV", None, "a.mp4=a.night.mp4 b.MOV=b.night.mp4"),
        ("a.mp4 a.mp4 ./a.mp4", "out/", "a.mp4=out/a.mp4"),
        ("a.mp4 a.night.mp4", None, "a.mp4=a.night.mp4"),
        ("clips", "out/", "clips/a.mkv=out/a.mp4 clips/a.night.mp4=out/a.night.mp4 clips/deep/c.avi=out/deep/c.mp4"),
        ("clips/", None, "clips/a.mkv=clips/a.night.mp4 clips/deep/c.avi=clips/deep/c.night.mp4"),
        ("clips", "clips/deep/", "clips/a.mkv=clips/deep/a.mp4 clips/a.night.mp4=clips/deep/a.night.mp4"),
        ("clips", "out/*.x.mkv", "clips/a.mkv=out/a.x.mkv clips/a.night.mp4=out/a.night.x.mkv "
         "clips/deep/c.avi=out/deep/c.x.mkv"),
        ("*.mp4", "out/", "a.mp4=out/a.mp4 a.night.mp4=out/a.night.mp4"),
        ("clips/**/*.avi", "out/", "clips/deep/c.avi=out/c.mp4"),
        ("photo.jpg", "out/", "photo.jpg=out/photo.jpg"),
        ("photo.jpg still.png", None, "photo.jpg=photo.night.jpg still.png=still.night.png"),
        ("photo.jpg still.png", "out/*.webp", "photo.jpg=out/photo.webp still.png=out/still.webp"),
        ("shots", "out/", "shots=out/"),
        ("shots", None, "shots=shots.night/"),
        ("shots more", "out/", "shots=out/shots/ more=out/more/"),
        ("shots/*.png", "out/", "shots/*.png=out/"),
        ("shots/%d.png", "out/", "shots/%d.png=out/"),
        ("https://host/way/film.webm?x=1", "out/", "https://host/way/film.webm?x=1=out/film.mp4"),
        ("-", "x.mp4", "-=x.mp4"),
        ("missing.mp4", None, "missing.mp4=None"),
        ("0", "window:", "0=window:"),
    ],
)  # fmt: skip
def test_find(inputs: str, output: str | None, expected: str) -> None:
    found = pairs(jobs.find(inputs.split(), output, "night"))
    assert found == {
        source: None if made == "None" else made
        for source, _, made in (each.rpartition("=") for each in expected.split())
    }


@pytest.mark.parametrize(
    ("inputs", "output", "error", "message"),
    [
        ("a.mp4 b.MOV", "x.mp4", UsageError, "-o x.mp4: one output for several inputs"),
        ("a.mp4 b.MOV", "-", UsageError, "-o -: one output"),
        ("a.mp4 b.MOV", "window:", UsageError, "-o window:: one output"),
        ("a.mp4 clips/a.mkv", "out/", UsageError, "a.mp4 and clips/a.mkv would both become out/a.mp4"),
        ("twins", "out/", UsageError, "twins/t.mov and twins/t.mp4 would both become out/t.mp4"),
        ("b.MOV clips/a.mkv a.mp4", ".", UsageError, "would both become ./a.mp4|a.mp4: is an input"),
        ("clips/a.mkv a.mp4", "*.mp4", UsageError, "a.mp4"),
        ("a.mp4 -", "out/", UsageError, "-: cannot be one of several inputs"),
        ("a.mp4 http://x/y.mp4", "out/", UsageError, "http://x/y.mp4: cannot be one of several"),
        ("a.mp4 0", "out/", UsageError, "0: cannot be one of several"),
        ("a.mp4 missing.mp4", "out/", SourceError, "missing.mp4: no such file"),
        ("a.mp4 no*.mp4", "out/", SourceError, r"no\*.mp4: no file is named like this"),
        ("a.mp4 shots/*.png", "out/", UsageError, r"shots/\*.png: a film of images by its pattern; run it alone"),
        ("a.mp4 empty", "out/", SourceError, "empty: a folder with neither films nor images"),
        ("-", "out/", UsageError, "-o out/: a folder, and - has no name"),
        ("http://host/", "out/", UsageError, "http://host/ has no name"),
    ],
)
def test_what_is_refused(inputs: str, output: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        jobs.find(inputs.split(), output, "night")


def test_an_empty_name_among_others() -> None:
    with pytest.raises(UsageError, match="INPUT: is empty"):
        jobs.find(["a.mp4", ""], "out/", "night")


def test_says_what_was_left_out() -> None:
    (note,) = jobs.find(["clips"], "out/", "night").notes
    assert note.startswith("clips: 1 image was left out")
    made, images = jobs.find(["clips"], None, "night").notes
    assert made == "clips: 1 film called *.night.* left out, as made by an earlier run" and "1 image" in images
    (note,) = jobs.find(["a.mp4", "a.night.mp4"], None, "night").notes
    assert note == "a.night.mp4 left out: it is what a.mp4 becomes"
    assert not jobs.find(["shots"], "out/", "night").notes


def test_what_exists_already_changes_nothing() -> None:
    before = jobs.find(["clips"], "clips/out/", "night")
    Path("clips/out/deep").mkdir(parents=True)
    Path("clips/out/a.mp4").touch()
    Path("clips/out/deep/c.mp4").touch()
    assert jobs.find(["clips"], "clips/out/", "night") == before


def test_a_folder_that_cannot_be_read_is_no_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path == "clips/deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, as in CI, may read every folder
    with pytest.raises(SourceError, match="clips/deep: the folder cannot be read"):
        jobs.find(["clips"], "out/", "night")


def test_a_manifest() -> None:
    Path("clips/list.txt").write_text(
        '# films\n\na.mkv\n{"input": "deep/c.avi", "output": "../x.mkv"}\n'
        '{"input": "http://h/f.mp4", "output": "f.mp4"}\n'
    )
    listed = jobs.read_manifest(Path("clips/list.txt"))
    assert [(job.input, job.output) for job in listed] == [
        ("clips/a.mkv", None), ("clips/deep/c.avi", "clips/../x.mkv"), ("http://h/f.mp4", "clips/f.mp4")
    ]  # fmt: skip
    found = pairs(jobs.find_all(["a.mp4"], listed[1:], "out/", "night"))
    assert found == {"a.mp4": "out/a.mp4", "clips/deep/c.avi": "clips/../x.mkv", "http://h/f.mp4": "clips/f.mp4"}
    with pytest.raises(UsageError, match=r"would both become"):
        jobs.find_all(["a.mp4"], [jobs.Job("b.MOV", "out/../out/a.mp4")], "out/", "night")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no film"),
        ("# nothing\n", "names no film"),
        ("a.mp4\n{broken\n", "list.txt:2: not JSON"),
        ('{"inptu": "a.mp4"}', "list.txt:1: unknown key 'inptu'; did you mean 'input'?"),
        ('{"output": "a.mp4"}', "list.txt:1: the key 'input' is missing"),
        ('{"input": 3}', "list.txt:1: input: 3 given, expected a path"),
    ],
)
def test_a_broken_manifest(text: str, message: str) -> None:
    Path("list.txt").write_text(text)
    with pytest.raises(UsageError) as error:
        jobs.read_manifest(Path("list.txt"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_manifest_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"none.txt: cannot be read \(No such file"):
        jobs.read_manifest(Path("none.txt"))


def films_of(sizes: Iterable[int]) -> list[jobs.Job]:
    """Films of these sizes in bytes."""
    made = []
    for number, size in enumerate(sizes):
        path = Path(f"film{number}.mp4")
        path.write_bytes(bytes(size))
        made.append(jobs.Job(str(path), f"out/{path}"))
    return made


@pytest.mark.parametrize("count", [1, 2, 3, 7, 25])
def test_shards_are_a_partition_and_balanced(count: int) -> None:
    sizes = [random.Random(1).randrange(0, 5000) for _ in range(20)] + [0, 0, 3000, 3000]
    every = films_of(sizes)
    parts = [jobs.shard(every, number, count) for number in range(1, count + 1)]
    together = [job for part in parts for job in part]
    assert len(together) == len(every) and set(together) == set(every)
    loads = [sum(Path(job.input).stat().st_size for job in part) for part in parts]
    assert max(loads) <= sum(sizes) / count + max(sizes)


def test_shards_do_not_hang_on_order_or_outputs() -> None:
    every = films_of([5, 400, 30, 30, 30, 7])
    before = [jobs.shard(every, number, 3) for number in (1, 2, 3)]
    Path("out").mkdir()
    Path("out/film1.mp4").write_bytes(b"made")
    assert [jobs.shard(every[::-1], number, 3) for number in (1, 2, 3)] == before
    assert before[0][0].input == "film1.mp4", "the largest first"


@pytest.mark.parametrize("first", [0, 1])
def test_shards_may_be_counted_from_0_or_1(first: int) -> None:
    every = films_of([1, 2, 3, 4, 5])
    parts = [jobs.shard(every, *jobs.parse_shard(f"{number}/4")) for number in range(first, first + 4)]
    assert sorted(job.input for part in parts for job in part) == sorted(job.input for job in every)


@pytest.mark.parametrize("text", ["5/4", "1", "1/0", "0/0", "a/b", "-1/4", "1/4/2", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match=f"--shard {text}: expected I/N"):
        jobs.parse_shard(text)


@pytest.mark.parametrize(
    ("preset", "look"), [("day2night", "day2night"), ("x.yaml", "x"), ("looks/night.yaml", "night"), ("a.b", "a.b")]
)
def test_names_of_looks(preset: str, look: str) -> None:
    assert jobs.name_of(preset) == look
