"""Many films: what is made, what is skipped, what fails, and that nothing is done twice or lost."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clips import read_pts, write_model

import streamgan
from streamgan import api, batch, fingerprint, jobs, pipeline, plugins, receipts
from streamgan.jobs import Job
from streamgan.models.loading import Setup

MakeClip = Callable[..., Path]
PLUGIN = """
from streamgan import api

class Same(api.Translator):
    def translate(self, images):
        return images

@api.hookimpl
def register_translators(register):
    register("same", Same)
"""


class Failing(api.Translator):
    """Gives back what it gets, until the file ``stop`` says how many pictures it may see."""

    seen = 0

    def translate(self, images: api.Images) -> api.Images:
        type(self).seen += 1
        if Path("stop").exists() and self.seen > int(Path("stop").read_text()):
            raise ValueError("enough")
        return images


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fields(make_preset: Callable[..., str]) -> dict[str, Any]:
    """A preset that changes nothing."""
    return {"preset": make_preset("identity")}


def contents(folder: str) -> set[str]:
    """All files of a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_a_job_may_be_repeated(make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry) -> None:
    clip = make_clip()
    job = Job(str(clip), "out/deep/clip.mp4")
    made = batch.run_job(job, fields, registry, skip_existing=True)
    assert (made.state, made.output) == ("made", "out/deep/clip.mp4")
    assert contents("out") == {"deep/clip.mp4", "deep/.streamgan/clip.mp4.json"}
    assert read_pts(Path("out/deep/clip.mp4")) == read_pts(clip)
    before = Path("out/deep/clip.mp4").stat()
    again = batch.run_job(job, fields, registry, skip_existing=True)
    assert (again.state, again.output, again.report) == ("skipped", "out/deep/clip.mp4", None)
    assert Path("out/deep/clip.mp4").stat() == before
    plain = batch.run_job(job, fields, registry)
    assert plain.state == "failed" and "exists already; use --overwrite" in plain.error


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"strength": 0.5}, "with other settings"),
        ({"crf": 30}, "with other settings"),
        ({"end": 0.4}, "with other settings"),
        ({"every": 2}, "with other settings"),
        ("input", "from another input"),
        ("preset", "with other settings"),
        ("output", "it was changed since"),
        ("touched", "it was changed since"),
        ("receipt", "nothing is known"),
        ("garbage", "nothing is known"),
        ("newer", "nothing is known"),
    ],
)
def test_only_what_is_the_same_is_skipped(
    make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry, change: Any, why: str
) -> None:
    job, receipt = Job(str(make_clip()), "out/x.mp4"), Path("out/.streamgan/x.mp4.json")
    assert batch.run_job(job, fields, registry).state == "made"
    if isinstance(change, dict):
        fields = fields | change
    elif change == "input":
        make_clip(options={"crf": "12", "preset": "ultrafast"})
    elif change == "preset":
        Path(fields["preset"]).write_text("title: A trial\ntranslator: identity\nstrength: 0.9\n")
    elif change == "output":
        with open("out/x.mp4", "r+b") as file:
            file.truncate(2000)
    elif change == "touched":
        os.utime("out/x.mp4", (1_000_000_000, 1_000_000_000))
    elif change == "receipt":
        receipt.unlink()
    else:
        receipt.write_text({"garbage": "{", "newer": '{"format": 2}'}[change])
    outcome = batch.run_job(job, fields, registry, skip_existing=True)
    assert (
        outcome.state == "failed"
        and outcome.error.startswith("out/x.mp4: exists already, but ")
        and why in outcome.error
    )
    over = fields | {"overwrite": True}
    assert batch.run_job(job, over, registry, skip_existing=True).state == "made"
    assert batch.run_job(job, over, registry, skip_existing=True).state == "skipped"


def test_what_leaves_the_film_as_it_is_makes_nothing_new(
    make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry
) -> None:
    job = Job(str(make_clip()), "out/x.mp4")
    assert batch.run_job(job, fields | {"threads": 1}, registry).state == "made"
    assert batch.run_job(job, fields | {"threads": 2, "strength": 1.0}, registry, skip_existing=True).state == "skipped"
    os.utime("out/x.mp4", ns=(0, Path("out/x.mp4").stat().st_mtime_ns // 10**9 * 10**9))  # a disk that counts seconds
    assert batch.run_job(job, fields, registry, skip_existing=True).state == "skipped"
    shutil.move("out", "elsewhere")
    assert batch.run_job(Job(job.input, "elsewhere/x.mp4"), fields, registry, skip_existing=True).state == "skipped"


def test_sequences_are_recognised(make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry) -> None:
    job = Job(str(make_clip()), "out/%03d.png")
    assert batch.run_job(job, fields, registry).state == "made"
    assert contents("out") == {f"{number:03}.png" for number in range(1, 21)} | {".streamgan/%03d.png.json"}
    assert batch.run_job(job, fields, registry, skip_existing=True).state == "skipped"
    Path("out/007.png").unlink()
    assert "changed since" in batch.run_job(job, fields, registry, skip_existing=True).error


def test_a_job_that_fails_leaves_nothing_and_raises_nothing(
    make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry, make_preset: Callable[..., str]
) -> None:
    Path("broken.mp4").write_bytes(b"no film" * 100)
    registry.translators["failing"] = plugins.Provided("failing", Failing, "tests")
    Path("stop").write_text("0")
    failures = [
        batch.run_job(Job("broken.mp4", "out/a.mp4"), fields, registry),
        batch.run_job(Job("none.mp4", "nowhere/b.mp4"), fields, registry),
        batch.run_job(Job(str(make_clip()), "out/c.mp4"), {"preset": make_preset("failing")}, registry),
        batch.run_job(Job(str(make_clip()), "out/d.mp4"), {"preset": "nihgt"}, registry),
    ]
    for outcome, words in zip(failures, ("broken.mp4: cannot", "none.mp4: no such", "enough", "'nihgt'"), strict=True):
        assert (outcome.state, outcome.output) == ("failed", None)
        assert words in str(outcome) and "\n" not in str(outcome) and outcome.job.input in str(outcome)
        assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert not any(name.endswith(".mp4") for name in contents("out")) and not Path("nowhere").exists()


def test_what_nobody_expects_becomes_an_outcome_too(
    make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(pipeline, "run", fail)
    clip = str(make_clip())
    assert batch.run_job(Job(clip, "out/a.mp4"), fields, registry).error == f"{clip} failed (KeyError: 'surprise')"


@pytest.mark.parametrize("error", [pipeline.Interrupted(3, 20), KeyboardInterrupt()])
def test_an_interruption_is_no_failure(
    make_clip: MakeClip,
    fields: dict[str, Any],
    registry: plugins.Registry,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def interrupt(*_: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run", interrupt)
    with pytest.raises(type(error)):
        batch.run_job(Job(str(make_clip()), "out/a.mp4"), fields, registry)


def test_an_interrupted_film_is_gone_on_with(
    make_clip: MakeClip, registry: plugins.Registry, make_preset: Callable[..., str]
) -> None:
    registry.translators["failing"] = plugins.Provided("failing", Failing, "tests")
    fields = {"preset": make_preset("failing"), "segment": 5}
    job, Failing.seen = Job(str(make_clip()), "out/a.mp4"), 0
    Path("stop").write_text("13")
    assert batch.run_job(job, fields, registry, skip_existing=True).state == "failed"
    Path("stop").unlink()
    Failing.seen = 0
    outcome = batch.run_job(job, fields, registry, skip_existing=True)
    assert outcome.state == "made" and 5 <= Failing.seen <= 15 and len(read_pts(Path("out/a.mp4"))) == 20


def test_a_receipt_that_cannot_be_written_is_a_note(
    make_clip: MakeClip, fields: dict[str, Any], registry: plugins.Registry
) -> None:
    Path("out").mkdir()
    Path("out/.streamgan").write_text("in the way")
    outcome = batch.run_job(Job(str(make_clip()), "out/a.mp4"), fields, registry)
    assert outcome.state == "made" and len(read_pts(Path("out/a.mp4"))) == 20
    (note,) = outcome.notes
    assert note.startswith("out/a.mp4: that it is complete could not be noted (")


def test_from_python(make_clip: MakeClip, negative_model: Path, make_preset: Callable[..., str]) -> None:
    preset = make_preset("model", model=str(negative_model))
    Path("clips/deep").mkdir(parents=True)
    for name in ("clips/a.mp4", "clips/deep/a.mkv"):
        make_clip(name=name)
    with pytest.raises(api.UsageError, match=r"stands for 2 films; use streamgan.batch.run"):
        streamgan.run("clips", preset=preset, output="out/")
    Path("clips/b.mp4").write_text("no film")
    states = [str(each) for each in batch.run([Path("clips")], preset=preset, output=Path("out"), codec="ffv1")]
    assert [line.partition(", ")[0] for line in states] == [
        "out/a.mkv: made",
        "clips/b.mp4: cannot be read as a video (Invalid data found when processing input)",
        "out/deep/a.mkv: made",
    ]
    report = streamgan.run("clips/a.mp4", preset=preset, output="one/")
    assert (report.output, report.frames) == ("one/a.mp4", 20)
    assert streamgan.run("clips/a.mp4", preset=preset, output="two.mp4").output == "two.mp4"
    assert not Path(".streamgan").exists(), "a film of one name gets no receipt"


def test_a_fingerprint_covers_what_shapes_the_film(
    make_clip: MakeClip, negative_model: Path, make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    make_clip()
    shutil.copyfile(make_preset("model", model=negative_model.name), "second.yaml")
    base = {"input": "clip.mp4", "preset": "trial.yaml", "output": "x.mp4"}

    def of(**fields: Any) -> tuple[str, str]:
        plan = pipeline.build(pipeline.Request.of(**(base | fields)), registry)
        return fingerprint.of(plan), fingerprint.of(plan, exact=True)

    seen, exact = of()
    assert of() == (seen, exact) and seen != exact and len(seen) == 64
    for same in ({"output": "deep.name.mp4"}, {"overwrite": True}, {"resume": True}, {"preset": "second.yaml"}):
        assert of(**same) == (seen, exact), same
    for bits in ({"threads": 1}, {"segment": 7}):
        assert of(**bits)[0] == seen and of(**bits)[1] != exact, bits
    others: list[dict[str, Any]] = [
        {"output": "x.mkv"},
        {"size": 24},
        {"strength": 0.2},
        {"start": 0.1},
        {"frames": 3},
        {"compare": True},
    ]
    others += [{"codec": "hevc"}, {"crf": 9}, {"audio": "none"}, {"options": {"upsample": "bilinear"}}]
    assert len({of(**other)[0] for other in others} | {seen}) == len(others) + 1
    write_model(negative_model, -0.5, 255.0)
    assert of()[0] != seen and of()[1] != exact, "the weights"
    prints = set[tuple[str, str]]()
    for bias in (255.0, 254.0):
        write_model(negative_model.with_suffix(".int8.onnx"), -0.5, bias, of=negative_model)
        prints.add(of(precision="int8"))
    assert all(len(set(each)) == 2 for each in zip(*prints, strict=True)), "those of the quantised file"
    plan = pipeline.build(pipeline.Request.of(**base), registry)
    ways = [Setup("onnxruntime", precision, streams) for precision, streams in (("fp32", 1), ("fp32", 2), ("bf16", 2))]
    one, two, other = (fingerprint.of(dataclasses.replace(plan, setup=way), exact=True) for way in ways)
    assert one == two != other, "machines may measure that more streams are faster, and make the same bits"


def test_a_plugin_is_part_of_the_fingerprint(make_clip: MakeClip, make_preset: Callable[..., str]) -> None:
    make_clip()
    request = pipeline.Request.of(input="clip.mp4", preset=make_preset("same"), output="x.mp4")
    prints = []
    for number in range(2):
        Path("same.py").write_text(PLUGIN + f"# {number}\n")
        prints.append(fingerprint.of(pipeline.build(request, plugins.load([Path("same.py")]))))
    assert prints[0] != prints[1]


class Blend(api.Filter):
    """Leaves everything as it is."""

    @dataclasses.dataclass(frozen=True)
    class Options:
        """How much of nothing, and the file of it."""

        amount: float = 0.5
        table: str = ""

    def apply(self, images: api.Images, made: api.Images) -> api.Images:
        return made


def test_filters_and_their_files_are_part_of_the_fingerprint(
    make_clip: MakeClip, make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    make_clip()
    registry.filters["blend"] = plugins.Provided("blend", Blend, "tests")
    preset = Path(make_preset("identity"))
    plain, prints = preset.read_text(), set[str]()
    Path("table.txt").write_text("1")
    for text in (
        "",
        "temporal: {blend: {}}",
        "temporal: {blend: {amount: 1}}",
        "temporal: {blend: {table: table.txt}}",
    ):
        preset.write_text(f"{plain}{text}\n")
        prints.add(fingerprint.of(pipeline.build(pipeline.Request.of(input="clip.mp4", preset=str(preset)), registry)))
    Path("table.txt").write_text("2")
    prints.add(fingerprint.of(pipeline.build(pipeline.Request.of(input="clip.mp4", preset=str(preset)), registry)))
    assert len(prints) == 5


def test_the_identity_of_images(folder: Path) -> None:
    Path("shots").mkdir()
    for number in (1, 2, 3):
        Path(f"shots/{number}.png").write_bytes(bytes(number))
    whole = fingerprint.identity("shots")
    assert [(name, size) for name, size, _, _ in whole] == [("1.png", 1), ("2.png", 2), ("3.png", 3)]
    assert all(
        fingerprint.identity(name) == whole for name in ("shots/", "shots@30", "shots/*.png", "shots/%d.png@12.5")
    )
    assert fingerprint.identity("rtsp://camera/1*") == [("rtsp://camera/1*", 0, 0, "")]
    Path("shots/2.png").write_bytes(b"12345")
    assert fingerprint.identity("shots") != whole


def test_the_identity_of_a_long_file(folder: Path) -> None:
    Path("film").write_bytes(bytes(3 << 20))
    (before,) = fingerprint.identity("film")
    times = (before[2], before[2])
    for place in (0, (3 << 20) - 1):
        with open("film", "r+b") as file:
            file.seek(place)
            file.write(b"x")
        os.utime("film", ns=times)
        (after,) = fingerprint.identity("film")
        assert after[:3] == before[:3] and after[3] != before[3]
        before = after


def test_receipts_are_small_files_for_people_too(folder: Path) -> None:
    Path("x.mp4").write_bytes(b"film")
    receipts.write("x.mp4", "abc", "in.mp4")
    known = json.loads(Path(".streamgan/x.mp4.json").read_text())
    assert known == {"format": 1, "fingerprint": "abc", "input": "in.mp4", "files": 1, "bytes": 4} | {
        "changed": Path("x.mp4").stat().st_mtime_ns
    }
    assert receipts.fault("x.mp4", "abc") is None
    assert os.listdir(".streamgan") == ["x.mp4.json"]


def test_shards_work_side_by_side_in_one_folder(make_clip: MakeClip, folder: Path) -> None:
    Path("clips").mkdir()
    Path("same.py").write_text(PLUGIN)
    Path("same.yaml").write_text("title: Same\ntranslator: same\n")
    names = [f"clips/{letter}.mp4" for letter in "abcde"]
    for name in names:
        make_clip(name=name)
    program = [sys.executable, "-m", "streamgan", "--plugin", "same.py", "run"]
    command = [*program, "clips", "-p", "same.yaml", "-o", "out/", "--skip-existing"]

    tasks = [
        subprocess.Popen([*command, f"--shard={number}/2"], stdout=subprocess.PIPE, text=True) for number in (0, 1)
    ]
    text = "".join(task.communicate()[0] for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0]
    assert text.count("20 frames") == 5
    assert contents("out") == {f"{each}.mp4" for each in "abcde"} | {f".streamgan/{each}.mp4.json" for each in "abcde"}
    assert all(len(read_pts(path)) == 20 for path in Path("out").glob("*.mp4"))
    Path("out/b.mp4").unlink()  # as a task that failed has left it; the array is submitted again
    states = []
    for number in (1, 2):
        for job in jobs.shard(jobs.find(["clips"], "out/", "same").jobs, number, 2):
            again = batch.run_job(job, {"preset": "same.yaml"}, plugins.load([Path("same.py")]), skip_existing=True)
            states.append((again.output, again.state))
    assert sorted(states) == [(f"out/{each}.mp4", "made" if each == "b" else "skipped") for each in "abcde"]


def test_outcomes_are_told_in_a_line() -> None:
    job = Job("in.mp4", "out.mp4")
    assert str(batch.Outcome(job, "skipped", "out.mp4")) == "out.mp4: skipped"
    assert str(batch.Outcome(job, "failed", error="in.mp4: no")) == "in.mp4: no"
    assert str(batch.Outcome(job, "failed", error="translator: no")) == "in.mp4: translator: no"
    report = pipeline.Report("out.mp4", 12, 3.0, {"decode": 1.0})
    assert str(batch.Outcome(job, "made", "out.mp4", report)) == "out.mp4: made, 12 frames in 3.0 s"
    assert dataclasses.is_dataclass(job)
