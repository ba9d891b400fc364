"""Every hard file there is: the same film comes out, or one clear line and no file.

The files lie in ``../shared/data/torture`` beside the checkout, each described in its MANIFEST.tsv; none is in the
repository. ffprobe, which shares nothing with the code under test, reads what went in and what came out; `faithful`
compares them. docs/formats.md is the table of the verdicts: ``STREAMGAN_WRITE_DOCS=1 pytest tests/test_torture.py``
writes it anew.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import faithful
import ffprobe
import pytest
from clips import Clip, write_clip

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT.parent / "shared" / "data" / "torture"
DOCS = ROOT / "docs" / "formats.md"
PLUGIN = """
from streamgan import api

class Identity(api.Translator):
    def translate(self, images):
        return images

@api.hookimpl
def register_translators(register):
    register("identity", Identity)
"""
PRESET = "title: As it is\ntranslator: identity\n"
PATIENCE = 180

FIRST = {
    "ax_mp4_hdr10-av1.mp4": 12,
    "ax_mp4_hlg10-color-test.mp4": 5,
    "ax_mp4_long_1080p_videoonly_lowbitrate.mp4": 30,
    "ax_mp4_sample_fragmented_seekable_multiple_sidx.mp4": 30,
    "mp_smpte-2997.mp4": 30,
}
"""Long or large ones, of which only so many frames are made."""
MISREAD = ("pil_tiff_16bit_RGB.tiff",)
"""Files that ffmpeg 5.1 shows wrongly, here as black: their pictures are not compared."""
REFUSED: dict[str, str] = {"pil_apng_mode_palette_alpha.png": "animated PNG"}
"""Files that ffprobe decodes and that are refused all the same: what the line has to say."""
SEE_THROUGH = {
    "mp_transparent.webm": ("vp9", "out.webm"),
    "vp9_alpha.webm": ("ffv1", "out.mkv"),
    "prores4444_alpha.mov": ("prores", "out.mov"),
    "png_rgba.mov": ("vp9", "out.mkv"),
}
"""Films that are transparent, which the default output cannot be, and what can."""
HEAD = """# Hard files, and what becomes of them

This page is written by a test: `STREAMGAN_WRITE_DOCS=1 pytest tests/test_torture.py`.

Each file is one that breaks programs: damaged, mislabelled, of odd sizes and rates, with clocks that jump, with many
tracks. `streamgan run FILE` translates it with a translator that changes nothing, and then either

- the same film comes out. That is: every frame that can be decoded, each with its own picture, at its time to half a
  tick of the output's clock; the length, and the place of the sound beside the picture, to a millisecond; the size, the
  shape of the pixels, upright and progressive; the colour tags, and as many bits as the output can hold; every audio
  track, subtitle, attachment, chapter and tag, or a note that names it.
- or the program ends with one clear line, an exit code that is not 0, and no file.

The judge is no part of streamgan: ffprobe and ffmpeg, one thread. Where they have no decoder (H.266), it is PyAV, which
streamgan uses as well. What is compared, and how closely, is in tests/faithful.py. An image gives an image. Pictures
are compared in 8 x 8 fields, and not at all where HDR is tone-mapped. The encoder made the least effort it can, and of
the largest films only the first frames were asked for.

The files are those of other projects' tests, named by a prefix (ax androidx/media, tc pytorch/torchcodec, mp moviepy,
ae auto-editor, pil Pillow, small mathiasbynens/small), or made from real clips by cutting, flipping and joining; none
is in this repository.

"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the manifest."""

    name: str
    special: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run of the program did in a folder of its own."""

    code: int
    lines: tuple[str, ...]
    """What it wrote to the terminal's error stream."""
    made: tuple[Path, ...]
    """Files that it left."""

    @property
    def notes(self) -> list[str]:
        """The notes, without the word."""
        return [line.removeprefix("note: ") for line in self.lines if line.startswith("note: ")]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one file, and what is wrong with that."""

    faults: list[str]
    words: str
    notes: list[str]


def cases() -> list[Case]:
    """The files of the manifest."""
    if not FOLDER.is_dir():
        return []
    rows = [line.split("\t") for line in (FOLDER / "MANIFEST.tsv").read_text().splitlines()[1:]]
    return [Case(row[0], row[2]) for row in rows]


def run(name: str, folder: Path, *options: str) -> Outcome:
    """Runs ``streamgan run`` on a file of the set, in a process of its own, as the only file of a folder."""
    folder.mkdir()
    (folder / name).symlink_to(FOLDER / name)
    own = folder.with_name(f"{folder.name}-plugin")  # of this run: what others read must not be written anew meanwhile
    own.mkdir()
    plugin, preset = own / "identity.py", own / "identity.yaml"
    plugin.write_text(PLUGIN)
    preset.write_text(PRESET)
    command = [sys.executable, "-m", "streamgan", "--plugin", str(plugin), "run", "--preset", str(preset)]
    command += ["--threads", "2", *options, "--", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes) as child:
        try:
            _, said = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # it says where each of its threads stands
            _, said = child.communicate()
            raise TimeoutError(said) from None
    made = tuple(sorted(path for path in folder.iterdir() if path.name != name))
    return Outcome(child.returncode, tuple(said.splitlines()), made)


def judge(name: str, folder: Path, *options: str) -> Verdict:
    """Runs one file whole, or its first frames; with the default options but for the effort, which is the least."""
    frames = FIRST.get(name)
    source = reference(FOLDER / name, frames)
    limit = ["--frames", str(frames)] if frames else []
    cheap = ["--encoder-preset", "ultrafast"] if source and not options and not faithful.is_image(source) else []
    try:
        outcome = run(name, folder, *options, *cheap, *limit)
    except TimeoutError as error:
        return Verdict([f"hangs: not done after {PATIENCE} s\n{error}"], "hangs", [])
    try:
        if outcome.code:
            return Verdict(refusal_faults(name, source, outcome), refusal(name, outcome), [])
        return kept(name, source, outcome, frames)
    finally:
        shutil.rmtree(folder)


def reference(path: Path, frames: int | None) -> ffprobe.Film | None:
    """What ffprobe finds in a file and its first frames; these as PyAV has them where it has no decoder."""
    film = ffprobe.read(path)
    film = film and dataclasses.replace(film, limit=frames)
    if film is not None and path.name in MISREAD:
        return dataclasses.replace(film, decoded=film.frames)
    if film is None or film.video is None or film.video.codec != "unknown":
        return film
    with av.open(str(path)) as container:
        stream = container.streams[film.video.index]
        stream.codec_context.thread_count = 1
        decoded = tuple(
            ffprobe.Shown(
                time=frame.pts * Fraction(frame.time_base),
                duration=frame.duration * Fraction(frame.time_base),
                size=(frame.width, frame.height),
                pixels=frame.format.name,
                interlaced=frame.interlaced_frame,
            )
            for frame in container.decode(stream)
        )
    return dataclasses.replace(film, decoded=decoded)


def kept(name: str, source: ffprobe.Film | None, outcome: Outcome, frames: int | None) -> Verdict:
    """The verdict on a run that says that all is well."""
    faults = [f"says {line!r}" for line in outcome.lines if not re.match(r"note: |\d+(/\d+)? frames", line)]
    output = ffprobe.read(outcome.made[0]) if len(outcome.made) == 1 else None
    if source is None or not source.frames:
        faults.append("nothing can be decoded from it, and it did not fail")
    elif name in REFUSED:
        faults.append(f"was to be refused: {REFUSED[name]}")
    if output is None:
        return Verdict([*faults, f"left {[path.name for path in outcome.made]}"], "no output that opens", outcome.notes)
    if source is not None and source.frames:
        faults += faithful.faults(source, output, outcome.notes, frames)
    return Verdict(faults, description(output, source, frames), outcome.notes)


def refusal_faults(name: str, source: ffprobe.Film | None, outcome: Outcome) -> list[str]:
    """What is wrong with a run that failed: it must have a reason, say it in one line, and leave nothing."""
    faults = [f"left {path.name}" for path in outcome.made]
    said = "\n".join(outcome.lines)
    if source is not None and source.frames:
        reason = REFUSED.get(name) or ("transparen" if faithful.can_be_transparent(source) else None)
        if reason is None or not re.search(reason, said):
            faults.append(f"failed, but {len(source.frames)} frames can be decoded: {said}")
    if len(outcome.lines) != 1 or not said.startswith("streamgan: error: ") or outcome.code not in (1, 2):
        faults.append(f"ended with {outcome.code} and {len(outcome.lines)} lines: {said[-300:]}")
    if Path(name).stem not in said or "unexpected" in said:
        faults.append(f"does not say clearly what is wrong: {said}")
    return faults


def refusal(name: str, outcome: Outcome) -> str:
    """The words of an error, without the name of the file."""
    said = " ".join(outcome.lines).removeprefix("streamgan: error: ")
    return f"refused: {said.removeprefix(name).removeprefix(': ')}"


def description(output: ffprobe.Film, source: ffprobe.Film | None, frames: int | None) -> str:
    """What came out, in short."""
    (width, height), *_ = output.sizes or [(0, 0)]
    if faithful.is_image(output):
        return f"kept: image {width}x{height}"
    count = f"the first {frames} frames (all that were asked for)" if frames else f"{len(output.frames)} frames"
    beside = [f"{track.kind} {track.codec}" for track in output.tracks if track.kind in ("audio", "subtitle")]
    beside += ["attachment" for track in output.tracks if track.kind == "attachment"]
    beside += [f"{len(output.chapters)} chapters"] if output.chapters else []
    return ", ".join([f"kept: {count} {width}x{height}", *beside])


def table(found: dict[str, Verdict]) -> str:
    """The page of the documentation."""
    versions = f"PyAV {av.__version__} made and ffprobe {ffprobe.version()} judged what is below."
    lines = ["| file | what is special | verdict | notes given |", "|---|---|---|---|"]
    for case in cases():
        verdict = found[case.name]
        words = f"WRONG: {'; '.join(verdict.faults)}" if verdict.faults else verdict.words
        cells = [f"`{case.name}`", case.special, words, "; ".join(verdict.notes)]
        lines.append(f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |")
    return f"{HEAD}{versions}\n\n" + "\n".join(lines) + "\n"


FAKES: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "nothing": ({}, {}, ""),
    "a frame less": ({}, {"pts": range(0, 19 * 512, 512)}, "19 frames, expected 20"),
    "a frame late": ({}, {"pts": [*range(0, 5 * 512, 512), 2563, *range(6 * 512, 20 * 512, 512)]}, "frame 5 at 0.2002"),
    "shorter": ({}, {"last_duration": 256}, "lasts 0.78"),
    "other pictures": ({}, {"pixel_format": "yuv444p", "colorspace": 1, "color_range": 2}, "pictures differ"),
    "another size": ({}, {"size": (64, 50)}, "size [(64, 50)], expected [(64, 48)]"),
    "turned": ({}, {"rotation": 90}, "still to be turned by 270"),
    "another matrix": ({"colorspace": 5}, {"colorspace": 1}, "color_space bt709, expected bt470bg"),
    "fewer bits": ({"pixel_format": "yuv420p10le"}, {}, "8 bits, expected 10"),
    "no sound": ({"audio": True}, {}, "audio stream 1 (aac) is missing"),
    "no subtitles": ({"subtitles": ("Hello",), "name": "a.mkv"}, {}, "subtitle stream 1 (subrip) is missing"),
    "no title": ({"title": "Mine"}, {}, "lost without a note: title=Mine"),
    "late sound": (
        {"audio": True},
        {"audio": True, "pts": range(50, 50 + 20 * 512, 512)},
        "audio stream 1 is off by up to 3.",
    ),
}
"""A source, an output, and what is wrong with it."""
Verdicts = dict[str, concurrent.futures.Future[Verdict]]
needs_programs = pytest.mark.skipif(ffprobe.missing() is not None, reason="no ffprobe here: apt-get install ffmpeg")
needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no hard files in {FOLDER}")


@pytest.fixture(scope="session")
def verdicts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    """A verdict in the making for each file that the tests of this session ask for, two at a time."""
    folder = tmp_path_factory.mktemp("torture")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = [item.callspec.params["name"] for item in items if item.originalname == "test_a_hard_file"]
    if any(item.name == "test_the_page_is_up_to_date" for item in items):
        wanted = [case.name for case in cases()]
    pool = concurrent.futures.ThreadPoolExecutor(2)
    yield {name: pool.submit(judge, name, folder / str(number)) for number, name in enumerate(wanted)}
    pool.shutdown(cancel_futures=True)


@needs_programs
@needs_files
@pytest.mark.parametrize("name", [case.name for case in cases()])
def test_a_hard_file(name: str, verdicts: Verdicts) -> None:
    assert not verdicts[name].result().faults


@needs_programs
@pytest.mark.parametrize("fake", FAKES)
def test_the_judge_sees_what_is_wrong(fake: str, tmp_path: Path) -> None:
    before, after, fault = FAKES[fake]
    paths = [tmp_path / str(before.get("name", "a.mp4")), tmp_path / "b.mp4"]
    source, output = (
        ffprobe.read(write_clip(path, Clip(**{"colorspace": 1} | fields)))
        for path, fields in zip(paths, (before, after), strict=True)
    )
    assert source is not None and output is not None
    found = "; ".join(faithful.faults(source, output, []))
    assert fault in found and bool(fault) == bool(found)


@needs_programs
@needs_files
@pytest.mark.parametrize("name", SEE_THROUGH)
def test_transparency_is_kept_where_it_can_be(name: str, tmp_path: Path) -> None:
    codec, output = SEE_THROUGH[name]
    verdict = judge(name, tmp_path / "run", "--codec", codec, "--output", output)
    assert not verdict.faults and verdict.words.startswith("kept")


@needs_programs
@needs_files
def test_the_page_is_up_to_date(verdicts: Verdicts) -> None:
    page = table({name: verdict.result() for name, verdict in verdicts.items()})
    if os.environ.get("STREAMGAN_WRITE_DOCS"):
        DOCS.write_text(page)
    versions = next(line for line in page.splitlines() if line.startswith("PyAV "))
    if versions not in DOCS.read_text():
        pytest.skip(f"docs/formats.md was written with other versions than here: {versions}")
    assert DOCS.read_text() == page, "write it anew: STREAMGAN_WRITE_DOCS=1 pytest tests/test_torture.py"
