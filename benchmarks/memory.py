"""Whether the memory of a run stays flat: its resident size over a film of 100,000 frames, as a table and a plot.

The whole pipeline works: decoder, translator, encoder, segments on disk, audio beside them. The pictures are small so
that it takes minutes; what is kept by frame would show all the same. Linux only: the size is read from /proc.

    python benchmarks/memory.py --plot docs/memory.svg
    python benchmarks/memory.py --film FILM --preset day2night      a film of one's own, for its peak
"""

from __future__ import annotations

import dataclasses
import os
import resource
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import click
import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import plots

from streamgan import api, pipeline, plugins

SIZE, CLIP_FRAMES, RATE, SOUND = (64, 48), 1000, 25, 48000
"""Of the clip that is repeated: width and height, frames, frames per second, samples per second."""
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclasses.dataclass(frozen=True)
class Sample:
    """The memory at one moment of a run."""

    frames: int
    """Written so far."""
    megabytes: float
    """Resident size of the process, in 10⁶ bytes."""


class Same(api.Translator):
    """Gives back what it gets."""

    def translate(self, images: api.Images) -> api.Images:
        """A copy, as a model would make new pictures."""
        return images.copy()


def resident() -> float:
    """The resident size of this process, in 10⁶ bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 1e6


def write_clip(path: Path, frames: int = CLIP_FRAMES) -> None:
    """Writes a small film of noise that drifts, with sound."""
    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height, width * 2, 3), np.uint8)
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": "50"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = output.add_stream("aac", rate=SOUND, layout="mono")
        for index in range(frames):
            picture = np.ascontiguousarray(noise[:, index % width : index % width + width])
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for index in range(frames * SOUND // RATE // 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = SOUND, index * 1024, Fraction(1, SOUND)
            output.mux(audio.encode(sound))
        for stream in (video, audio):
            output.mux(stream.encode(None))


def repeat(clip: Path, path: Path, times: int) -> None:
    """Writes a film that shows a clip so many times, by copying its packets."""
    with av.open(str(path), "w") as output:
        targets: dict[int, av.stream.Stream] = {}
        last: dict[int, int] = {}
        for turn in range(times):
            with av.open(str(clip)) as source:
                for stream in source.streams:
                    if stream.index not in targets:
                        targets[stream.index] = output.add_stream_from_template(stream)
                shift = turn * Fraction(CLIP_FRAMES, RATE)
                for packet in source.demux():
                    if packet.dts is None or packet.pts is None:
                        continue
                    ticks = round(shift / packet.time_base)
                    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                    if packet.dts <= last.get(packet.stream_index, packet.dts - 1):
                        continue  # the sound of one turn ends a little after its pictures
                    last[packet.stream_index] = packet.dts
                    packet.stream = targets[packet.stream_index]
                    output.mux(packet)


def measure(film: Path, preset: str, output: Path, every: float) -> list[Sample]:
    """Translates a film, and samples the memory at most once in so many frames."""
    registry = plugins.load()
    registry.translators["same"] = plugins.Provided("same", Same, "benchmark")
    request = pipeline.Request.of(input=str(film), preset=preset, output=str(output), overwrite=True)
    samples = [Sample(0, resident())]

    def sample(progress: pipeline.Progress) -> None:
        if progress.frames - samples[-1].frames >= every:
            samples.append(Sample(progress.frames, resident()))

    report = pipeline.run(pipeline.build(request, registry), sample)
    return [*samples, Sample(report.frames, resident())]


def growth(samples: Sequence[Sample]) -> float:
    """10⁶ bytes that 100,000 frames add, by a straight line through all but the first tenth of the samples."""
    settled = [each for each in samples if each.frames >= samples[-1].frames / 10]
    slope, _ = np.polyfit([each.frames for each in settled], [each.megabytes for each in settled], 1)
    return float(slope * 100_000)


def svg(samples: Sequence[Sample]) -> str:
    """The plot: memory over frames."""
    most, last = max(each.megabytes for each in samples), samples[-1].frames
    told = f"{samples[0].megabytes:.0f} MB before, {most:.0f} at most, {samples[-1].megabytes:.0f} after {last} frames"
    series = {"resident": [(float(each.frames), each.megabytes) for each in samples]}
    return plots.lines(series, "frames written", "resident memory, MB", f"Memory of a run: {told}", dots=False)


@click.command()
@click.option("--frames", type=click.IntRange(min=CLIP_FRAMES), default=100_000, show_default=True)
@click.option("--film", type=click.Path(path_type=Path), help="Instead of the small film of so many frames.")
@click.option("--preset", help="Instead of one that changes nothing.")
@click.option("--ending", default="mp4", show_default=True, help="Of the output: mkv needs no list of all packets.")
@click.option("--plot", type=click.Path(path_type=Path), help="SVG to write.")
def main(frames: int, film: Path | None, preset: str | None, ending: str, plot: Path | None) -> None:
    """Print the memory of a run in Markdown."""
    with tempfile.TemporaryDirectory(prefix="streamgan-memory-") as name:
        folder = Path(name)
        (folder / "same.yaml").write_text("title: Nothing changes\ntranslator: same\n")
        if film is None:
            write_clip(folder / "clip.mp4")
            repeat(folder / "clip.mp4", folder / "film.mp4", frames // CLIP_FRAMES)
        found = measure(
            film or folder / "film.mp4", preset or str(folder / "same.yaml"), folder / f"out.{ending}", frames / 1000
        )
    click.echo("| frames | resident MB |\n|---|---|")
    for each in found[:: max(1, len(found) // 20)]:
        click.echo(f"| {each.frames} | {each.megabytes:.0f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    click.echo(f"\npeak {peak:.0f} MB; after the first tenth it grows by {growth(found):+.1f} MB per 100,000 frames")
    if plot is not None:
        plot.write_text(svg(found), encoding="utf-8")


if __name__ == "__main__":
    main()
