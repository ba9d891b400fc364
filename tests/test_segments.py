"""Interrupted runs: what is kept, and that going on gives the film of a run that was not, packet for packet."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import read_pts

from streamgan import api, pipeline, plugins
from streamgan.request import Request
from streamgan.writing import segments
from streamgan.writing.segments import Parts

FRAMES, LENGTH = 30, 7
PTS = range(0, FRAMES * 512, 512)
PLUGIN = """
import time
from pathlib import Path
from streamgan import api

class Slow(api.Translator):
    def translate(self, images):
        time.sleep(0.02)
        return 255 - images

@api.hookimpl
def register_translators(register):
    register("slow", Slow)
"""
CHILD = """
import sys
from streamgan import pipeline, plugins
from pathlib import Path
registry = plugins.load([Path("plugin.py")])
request = pipeline.Request.of(
    input="clip.mp4", preset="slow.yaml", output=sys.argv[1], resume=True, segment=4, threads=1
)
pipeline.run(pipeline.build(request, registry))
"""


class Fails(api.Translator):
    """Gives back what it gets, until there is no more of its luck."""

    luck = 10**9

    def translate(self, images: api.Images) -> api.Images:
        Fails.luck -= 1
        if Fails.luck < 0:
            raise ValueError("out of luck")
        return images


@pytest.fixture
def failing(registry: plugins.Registry) -> Iterator[plugins.Registry]:
    """A registry with the translator above."""
    registry.translators["fails"] = plugins.Provided("fails", Fails, "tests")
    yield registry
    Fails.luck = 10**9


def packets(path: Path) -> list[tuple[int | None, int | None, str]]:
    """What a film consists of: time, time of decoding and hash of each packet of video."""
    with av.open(str(path)) as container:
        every = list(container.demux(container.streams.video[0]))
        return [(each.pts, each.dts, hashlib.sha256(bytes(each)).hexdigest()) for each in every if each.size]


def keys(path: Path) -> list[int]:
    """The numbers of the frames, in order of time, that are key frames."""
    with av.open(str(path)) as container:
        found = [frame.key_frame for frame in container.decode(video=0)]
    return [number for number, key in enumerate(found) if key]


def run(registry: plugins.Registry, source: Path, preset: str, output: Path, **fields: object) -> pipeline.Report:
    request = Request.of(input=str(source), preset=preset, output=str(output), segment=LENGTH, **fields)
    return pipeline.run(pipeline.build(request, registry))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov", "out.ts", "out.webm"])
def test_a_film_of_segments_is_one_film(
    name: str,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    make_preset: Callable[..., str],
    registry: plugins.Registry,
) -> None:
    source = make_clip(pts=PTS)
    codec = "vp9" if name.endswith("webm") else "h264"
    run(registry, source, make_preset("identity"), tmp_path / name, codec=codec)
    made, given = read_pts(tmp_path / name), read_pts(source)
    assert len(made) == FRAMES
    assert [float(each - made[0]) for each in made] == pytest.approx(
        [float(each - given[0]) for each in given], abs=1e-3
    )
    assert keys(tmp_path / name) == list(range(0, FRAMES, LENGTH))
    times = [dts for _, dts, _ in packets(tmp_path / name) if dts is not None]  # Matroska keeps no times of decoding
    assert all(one < other for one, other in itertools.pairwise(times))
    assert not segments.folder_of(tmp_path / name).exists()


def test_irregular_times_stay_decodable(
    tmp_path: Path, make_clip: Callable[..., Path], make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    source = make_clip(pts=[0, 100, 133, 1000, 1004, 1007, 1010, 5000, 5001, 5002, 9000, 9001, 9900, 9901, 9990, 9991])
    run(registry, source, make_preset("identity"), tmp_path / "out.mp4")
    assert read_pts(tmp_path / "out.mp4") == read_pts(source)


@pytest.mark.parametrize("luck", [3, 7, 8, 20, 29])
def test_a_run_that_failed_goes_on(
    luck: int,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    make_preset: Callable[..., str],
    failing: plugins.Registry,
) -> None:
    source, preset, output = make_clip(pts=PTS, audio=True), make_preset("fails"), tmp_path / "out.mp4"
    run(failing, source, preset, tmp_path / "whole.mp4")
    Fails.luck = luck
    with pytest.raises(api.PluginError, match="out of luck") as caught:
        run(failing, source, preset, output)
    kept = luck // LENGTH * LENGTH  # the stages are in step: what was translated may not have been encoded yet
    notes = getattr(caught.value, "__notes__", [])
    made = int(notes[0].split()[0]) if notes else 0
    assert made in (kept, max(0, kept - LENGTH)) and not output.exists()
    Fails.luck = 10**9
    if made:
        with pytest.raises(api.UsageError, match=f"has made {made} frames of it; use --resume"):
            run(failing, source, preset, output)
        with pytest.raises(api.UsageError, match="with other settings"):
            run(failing, source, preset, output, crf=30, resume=True)
    report = run(failing, source, preset, output, resume=True)
    assert (report.frames, report.resumed) == (FRAMES, made)
    assert packets(output) == packets(tmp_path / "whole.mp4")
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not segments.folder_of(output).exists()


def test_overwrite_begins_anew(
    tmp_path: Path, make_clip: Callable[..., Path], make_preset: Callable[..., str], failing: plugins.Registry
) -> None:
    source, preset, output = make_clip(pts=PTS), make_preset("fails"), tmp_path / "out.mp4"
    Fails.luck = 25
    with pytest.raises(api.PluginError):
        run(failing, source, preset, output)
    Fails.luck = 10**9
    assert run(failing, source, preset, output, overwrite=True).resumed == 0


def test_only_the_end_was_missing(
    tmp_path: Path, make_clip: Callable[..., Path], make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    source, preset, output = make_clip(pts=PTS), make_preset("identity"), tmp_path / "out.mp4"
    run(registry, source, preset, tmp_path / "whole.mp4")
    before = pipeline.VideoFileSink._mux_waiting

    def breaks(sink: pipeline.VideoFileSink, last: bool = False) -> None:
        if last:
            raise OSError(28, "No space left on device")
        before(sink)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.VideoFileSink, "_mux_waiting", breaks)
        with pytest.raises(api.SinkError, match="No space left") as caught:
            run(registry, source, preset, output)
    assert caught.value.__notes__ == ["30 frames are kept; the same command with --resume goes on from there"]
    assert run(registry, source, preset, output, resume=True).resumed == FRAMES
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_killed_at_many_points(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    make_clip(pts=range(0, 60 * 512, 512), audio=True)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "slow.yaml").write_text("title: slow\ntranslator: slow\n")

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, name], cwd=tmp_path)

    assert start("whole.mp4").wait(60) == 0
    folder, killed, seen = segments.folder_of(tmp_path / "out.mp4"), 0, [0]
    for milliseconds in (0, 40, 90, 150, 20, 210, 70, 110):
        child = start("out.mp4")
        until = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < until:
            manifest = segments.read_manifest(folder)
            if manifest is not None and manifest.frames > seen[-1]:
                break
            time.sleep(0.005)
        time.sleep(milliseconds / 1000)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.wait()
        manifest = segments.read_manifest(folder)
        if manifest is None:
            break
        assert manifest.frames >= seen[-1]  # nothing that was whole is lost
        seen.append(manifest.frames)
    assert killed >= 3
    published = (tmp_path / "out.mp4").exists()  # on a busy machine a late kill meets a film that is complete
    assert published or start("out.mp4").wait(60) == 0
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert published or sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["clip.mp4", "out.mp4", "whole.mp4", "plugin.py", "slow.yaml"]
    )


def packet(number: int) -> segments.VideoPacket:
    made: segments.VideoPacket = av.Packet(bytes([number]) * 5)  # type: ignore[assignment]
    made.pts, made.dts, made.duration, made.time_base = number, number - 2, 1, Fraction(1001, 30000)
    made.is_keyframe = number == 0
    return made


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "a.mp4", "one")
    parts.begin(64, 48, -3)
    parts.add([packet(0), packet(1)], 2, 2)
    parts.add([packet(2)], 1, 3)
    parts.release(done=False)
    again = Parts(tmp_path / "a.mp4", "one", resume=True)
    found = [
        (each.pts, each.dts, each.duration, each.time_base, each.is_keyframe, bytes(each))
        for _, all_ in again.read()
        for each in all_
    ]
    assert found == [(n, n - 2, 1, Fraction(1001, 30000), n == 0, bytes([n]) * 5) for n in range(3)]
    assert (again.manifest.origin, again.manifest.frames, again.manifest.width) == (-3, 3, 64)
    with pytest.raises(api.SinkError, match="another run is making it now"):
        Parts(tmp_path / "a.mp4", "one", resume=True)
    again.release(done=False)
    other = Parts(tmp_path / "a.mp4", "two", resume=True)
    assert other.manifest.frames == 0
    other.release(done=False)
    assert not segments.folder_of(tmp_path / "a.mp4").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest"])
def test_damage_costs_what_is_damaged(damage: str, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "a.mp4", "one")
    for number in range(3):
        parts.add([packet(number)], 1, number + 1)
    parts.release(done=False)
    folder = segments.folder_of(tmp_path / "a.mp4")
    second = folder / "000001"
    if damage == "flipped":
        second.write_bytes(second.read_bytes()[:-1] + b"x")
    elif damage == "cut":
        second.write_bytes(second.read_bytes()[:-1])
    elif damage == "gone":
        second.unlink()
    else:
        (folder / "manifest.json").write_text('{"format": 1, "segments": [{}]}')
    again = Parts(tmp_path / "a.mp4", "one", resume=True)
    assert again.manifest.frames == (0 if damage == "manifest" else 1)
    again.release(done=True)
