"""What the measures of a run are called, count and mean, for the people who read a report.

A measure of one translation or film is named ``NAME/PART``; what is true of NAME is true of it.
"""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Measure:
    """One row of the table of measures."""

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    meaning: str
    floor: str | None = None
    """The measure that says the same of the input, to be read beside it."""


MEASURES: dict[str, Measure] = {
    "score": Measure(
        "Score", "", "lower", "What the best checkpoint has the least of: distance to the target look times flicker."
    ),
    "swd_output": Measure(
        "Sliced Wasserstein distance to the target look", "× 10⁻³", "lower",
        "How far local patches of the output are from those of real target frames; beside it, of the input.",
        "swd_source",
    ),
    "fid": Measure("FID", "", "lower", "Fréchet distance of InceptionV3 features to real target frames."),
    "kid": Measure("KID", "", "lower", "Kernel distance of InceptionV3 features; fairer than FID for few frames."),
    "kid_std": Measure("KID, spread over subsets", "", "neither", "Standard deviation over the random subsets."),
    "lpips": Measure("LPIPS, output to input", "", "neither", "Perceived change: 0 is a copy; content lost raises it."),
    "classifier_calls_output": Measure(
        "Classifier calls the output the target look", "fraction", "higher",
        "A small network, trained on real frames only, judges the output.",
    ),
    "classifier_accuracy_real": Measure(
        "Classifier is right on real frames", "fraction", "neither", "How far that judge can be trusted."
    ),
    "edge_correlation": Measure(
        "Edges kept", "correlation", "higher", "Pearson correlation of edge strength, input to output."
    ),
    "cycle_psnr": Measure("Cycle PSNR", "dB", "higher", "There and back again, compared with the input."),
    "cycle_ssim": Measure("Cycle SSIM", "", "higher", "There and back again, compared with the input."),
    "psnr": Measure("PSNR", "dB", "higher", "Against the ground truth."),
    "ssim": Measure("SSIM", "", "higher", "Against the ground truth."),
    "warping_error_output": Measure(
        "Warping error", "mean square, values in [0, 1]", "lower",
        "Change between frames that motion does not explain (Lai et al. 2018); the input's own is the floor.",
        "warping_error_source",
    ),
    "warping_error_ratio": Measure(
        "Warping error, output over input", "ratio", "lower", "1: as steady as the input; below may be just flatter."
    ),
    "warping_error_ratio_over_squared_contrast": Measure(
        "Warping error ratio over squared contrast ratio", "ratio", "lower",
        "The same, with nothing gained by a darker or flatter picture.",
    ),
    "tof": Measure("tOF", "pixels a frame", "lower", "How far the output's motion is from the input's (TecoGAN)."),
    "tlp": Measure("tLP", "LPIPS × 100", "lower", "How far its perceived change is from the input's (TecoGAN)."),
    "held_out": Measure("Held-out frames", "frames", "neither", "How many frames were measured on."),
}  # fmt: skip


OLDER = {
    "swd_output_to_b": "swd_output/ab", "swd_a_to_b": "swd_source/ab",
    "classifier_calls_output_b": "classifier_calls_output/ab", "held_out_a": "held_out/a", "held_out_b": "held_out/b",
}  # fmt: skip
"""What version 0.1 called them."""


def split(name: str) -> tuple[str, str | None]:
    """A measure's name, and the translation or film that it is of, None if it is of neither."""
    base, _, part = OLDER.get(name, name).partition("/")
    return base, part or None


def look_up(name: str) -> Measure:
    """What is known of a measure; of an unknown one, its name, and its floor if it is ``…_output…``."""
    base, _ = split(name)
    if base in MEASURES:
        return MEASURES[base]
    floor = base.replace("_output", "_source") if "_output" in base else None
    title = base.replace("_", " ").capitalize()
    return Measure(title, "", "neither", "", floor)


def floor_name(name: str) -> str | None:
    """The name of the same measure of the input, None if there is none to compare with."""
    if name == "swd_output_to_b":
        return "swd_a_to_b"
    base, part = split(name)
    floor = look_up(base).floor
    if floor is None:
        return None
    return f"{floor}/{part}" if part else floor


def floors(names: set[str]) -> set[str]:
    """Those of the names that are only there to be compared with."""
    return {floor for name in names if (floor := floor_name(name)) in names}
