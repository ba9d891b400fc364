"""The clips that are measured: real footage brought to one size, or a synthetic clip where there is none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.video.frame import PictureType
from av.video.reformatter import Interpolation

from streamgan import bench

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "videos"
"""Where the footage lies, beside a checkout; it is not part of it."""
REAL = ("drive_highway_day_540p.mp4", "city_skyline_day_360p.mp4", "animation_bbb_720p.mp4")
RATE = 25


def clips(
    folder: Path, size: tuple[int, int], frames: int, source: Path = FOLDER, names: tuple[str, ...] = REAL
) -> list[Path]:
    """Writes clips of one size and length, as H.264.

    Args:
        folder: to write into.
        size: (width, height) in pixels.
        frames: of each clip; shorter footage runs to and fro.
        source: the folder of the footage.
        names: of the files in it; those that are missing are left out.

    Returns:
        Their paths; that of a synthetic clip if no footage is there.
    """
    there = [source / name for name in names if (source / name).is_file()]
    if not there:
        return [bench.synthetic_clip(folder / f"synthetic_{size[1]}p.mp4", size, frames)]
    return [_scaled(path, folder / f"{path.stem.rpartition('_')[0]}_{size[1]}p.mp4", size, frames) for path in there]


def _scaled(source: Path, path: Path, size: tuple[int, int], frames: int) -> Path:
    """One clip of a size, by bicubic interpolation, at a quality that leaves the encoder's traces small."""
    with av.open(str(path), "w") as output, av.open(str(source)) as film:
        stream = output.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        pictures: list[av.VideoFrame] = []
        for picture in film.decode(video=0):
            if len(pictures) == frames:
                break
            pictures.append(picture.reformat(*size, format="yuv420p", interpolation=Interpolation.BICUBIC))
        forth = max(1, len(pictures) - 1)
        for index in range(frames):
            turn, place = divmod(index, forth)
            picture = pictures[min(place if turn % 2 == 0 else forth - place, len(pictures) - 1)]
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, RATE), PictureType.NONE
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path
