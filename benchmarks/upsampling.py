"""Translate small, show large: what nobody sees, and where it fails. Makes the sheet and numbers of docs/upsampling.md.

    python benchmarks/upsampling.py docs/upsampling.jpg

Each row is a crop of one frame: the source, the model at the film's own size, the model at a short side of 224 with the
guided enlargement, and the same with a bilinear one.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import click
import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt

from streamgan.api import Session
from streamgan.frames.convert import FrameMaker
from streamgan.model import read_card
from streamgan.models import scaling
from streamgan.models.backends import OnnxRuntime

Image: TypeAlias = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "data" / "videos"
SHORT_SIDE, CELL, ROOM = 224, (360, 200), 22
TITLES = ("source", "model at full size", "at 224, guided (in use)", "at 224, bilinear")


@dataclasses.dataclass(frozen=True)
class Case:
    """A crop that is shown."""

    film: str
    """Name of the file."""
    frame: int
    """Which of its frames, from 0."""
    corner: tuple[int, int]
    """Left and top of the crop, in pixels."""
    width: int
    """Of the crop, in pixels; its height follows from the sheet's cells."""
    what: str
    """What there is to see."""
    painted: bool = False
    """Whether letters and lamps that the source lacks are painted into the translation at full size."""


CASES = (
    Case("drive_highway_day_540p.mp4", 100, (600, 90), 340, "1: edges and a fence are the source's own"),
    Case("city_skyline_day_360p.mp4", 60, (180, 20), 300, "2: a crane, windows, roofs"),
    Case(
        "animation_bbb_720p.mp4", 60, (380, 200), 400, "3: grass; what is lit differs, as the model sees another scale"
    ),
    Case("drive_highway_day_540p.mp4", 100, (180, 310), 260, "4, fails: far marks, too small to be lit at 224"),
    Case("drive_highway_day_540p.mp4", 100, (640, 330), 300, "5, fails: a glow without an edge in the source, wider"),
    Case("drive_highway_day_540p.mp4", 100, (560, 20), 200, "6, fails: new letters and lamps, painted here", True),
)


def read(path: Path, number: int) -> Image:
    """One frame of a film, ``(H, W, 3)`` RGB."""
    with av.open(str(path)) as film:
        for index, picture in enumerate(film.decode(video=0)):
            if index == number:
                return FrameMaker(picture).make(picture, 0, Fraction(1, 25), 1).image
    raise click.ClickException(f"{path}: no frame {number}")


def translated(session: Session, image: Image) -> Image:
    """What the model makes of a picture at this size."""
    height, width = image.shape[:2]
    made = session.run(scaling.pad(image, session.multiple_of)[None])[0]
    return np.ascontiguousarray(made[:height, :width])


def similarity(one: Image, other: Image) -> tuple[float, float]:
    """PSNR in dB of all channels, and SSIM of the brightness (Wang et al. 2004, 11x11 Gaussian, its constants)."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    x, y = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float64) for each in (one, other))

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), np.float64)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ratio = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return 10 * float(np.log10(255**2 / max(error, 1e-9))), float(ratio.mean())


def paint(image: Image, case: Case) -> Image:
    """A copy with letters and lamps in the crop of a case."""
    made, (left, top) = image.copy(), case.corner
    for number, size in enumerate((0.8, 0.5, 0.3)):
        place = (left + 12, top + 30 + 22 * number)
        cv2.putText(made, "NIGHT CLUB", place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 120, 220), 1, cv2.LINE_AA)
    for radius in (1, 2, 3, 4):
        cv2.circle(made, (left + 110 + 18 * radius, top + 70), radius, (255, 240, 200), -1, cv2.LINE_AA)
    return made


def pictures(session: Session, image: Image, case: Case) -> tuple[list[Image], list[str]]:
    """The four pictures of `TITLES`, and a row of numbers for each kind of enlargement."""
    native, size = translated(session, image), scaling.fit((image.shape[1], image.shape[0]), SHORT_SIDE)
    native = paint(native, case) if case.painted else native
    seen, reduced = scaling.shrink(image, size), scaling.shrink(native, size)
    small = reduced if case.painted else translated(session, seen)
    shown, rows = [image, native], []
    for enlarge in (scaling.enlarge_guided, scaling.enlarge_bilinear):
        shown.append(enlarge(small, seen, image))
        alone = similarity(enlarge(reduced, seen, image), native)
        rows.append("{:.1f} | {:.3f} | {:.1f} | {:.3f}".format(*alone, *similarity(shown[-1], native)))
    return shown, rows


def strip(shown: list[Image], case: Case) -> Image:
    """A row of the sheet: the crop of each picture, enlarged alike, with a caption below."""
    (left, top), height = case.corner, round(case.width * CELL[1] / CELL[0])
    crops = [each[top : top + height, left : left + case.width] for each in shown]
    row = np.hstack([cv2.resize(each, CELL, interpolation=cv2.INTER_CUBIC) for each in crops])
    return np.vstack([np.asarray(row, np.uint8), caption([case.what], row.shape[1])])


def caption(texts: list[str] | tuple[str, ...], width: int) -> Image:
    """A line of text on white, each part at the head of its column."""
    line = np.full((ROOM, width, 3), 255, np.uint8)
    for number, text in enumerate(texts):
        place = (number * width // len(texts) + 4, ROOM - 7)
        cv2.putText(line, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return line


@click.command()
@click.argument("sheet", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), default=ROOT / "presets" / "day2night-fine.onnx")
@click.option("--footage", type=click.Path(path_type=Path), default=FOLDER, help="The folder of the films.")
def main(sheet: Path, model: Path, footage: Path) -> None:
    """Writes the JPEG sheet and prints the table."""
    session = OnnxRuntime().load(model, threads=1)
    session.multiple_of = read_card(model).size.multiple_of
    rows: list[Image] = [caption(TITLES, CELL[0] * len(TITLES))]
    done: dict[tuple[str, bool], list[Image]] = {}
    click.echo("| film | enlarged | alone: PSNR | SSIM | with the model: PSNR | SSIM |\n|---|---|---|---|---|---|")
    for case in CASES:
        key = (case.film, case.painted)
        if key not in done:
            done[key], numbers = pictures(session, read(footage / case.film, case.frame), case)
            for kind, row in zip(("guided", "bilinear"), numbers, strict=True):
                click.echo(f"| {case.film}{', painted' * case.painted} | {kind} | {row} |")
        rows.append(strip(done[key], case))
    data = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    sheet.write_bytes(data.tobytes())
    click.echo(f"\n{sheet}: {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
