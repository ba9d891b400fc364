"""Makes the quantised sibling of a model file, and lets none through that shows a difference."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from streamgan.api import ModelError, UsageError
from streamgan.model import DOMAIN, ModelCard, digest, int8_path, read_card, write_card
from streamgan_training.frames.film import Warn
from streamgan_training.quantising import gate, graph, pictures
from streamgan_training.quantising.gate import Bars, Quality
from streamgan_training.quantising.graph import Prepared
from streamgan_training.quantising.pictures import Pictures

BARS = Bars()
_TRIED = 2
"""How many pictures the convolutions are compared by."""
_BLAMED = 5
"""How many convolutions a message names."""


@dataclasses.dataclass(frozen=True)
class Quantised:
    """What was made."""

    output: Path
    """The model file."""
    card: ModelCard
    """The card in it."""
    quality: Quality
    """How close it is to the original."""
    integer: int
    """How many convolutions compute in 8 bits."""
    kept: tuple[str, ...]
    """The names of the weights of those that stay in fp32, the most harmful first."""
    faults: tuple[str, ...]
    """What the gate found, and `force` let through."""


def quantise(
    model: Path,
    frames: Sequence[Path],
    output: Path | None = None,
    *,
    check: Sequence[Path] = (),
    short_side: int = 0,
    bars: Bars = BARS,
    force: bool = False,
    warn: Warn = lambda _: None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Quantised:
    """Writes a model file that computes in 8-bit integers, for ONNX Runtime, OpenVINO and TensorRT.

    All convolutions are quantised, and what lies between them. If the gate finds a fault, each is tried alone, and the
    most harmful ones stay in fp32, as few as the gate asks for, half of them at most.

    Args:
        model: the model file, in fp32.
        frames: images, films, or folders of them, of the kind that the model will see: they set the scales.
        output: the file to make, by default ``NAME.int8.onnx`` beside the model; it appears only if the gate is passed.
        check: others of that kind, to judge by; by default the last quarter of each of `frames`.
        short_side: what pictures are reduced to, in pixels; 0 for what the model was trained on.
        bars: what the gate asks for.
        force: whether to write the file whatever the gate finds.
        warn: is told what was skipped.
        on_step: is told what begins.

    Raises:
        ModelError: if it is no model file, or is quantised already, or the gate is not passed.
        UsageError: if the output exists, or there are too few pictures.
        SourceError: if pictures cannot be read.
    """
    output = output or int8_path(model)
    card = _checked(model, output)
    on_step("reading pictures")
    seen = pictures.read(frames, card.size, short_side=short_side, check=check, warn=warn)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        trials = _Trials(model, Path(folder), seen, card, bars)
        on_step(f"measuring ranges on {len(seen.calibration)} pictures")
        prepared = trials.prepare()
        if not prepared.convolutions:
            raise ModelError(f"{model}: no convolution in it, so there is nothing to gain; run it as it is")
        on_step(f"judging by {len(seen.held_out)} pictures and {len(seen.clips)} clips")
        kept, quality = trials.search(prepared, on_step)
        faults = quality.faults(bars)
        if faults and not force:
            raise ModelError(_refusal(output, faults, prepared, kept))
        partial = trials.write(prepared, kept)
        card = _described(card, model, seen, quality)
        write_card(partial, card)
        read_card(partial)
        partial.replace(output)
    names = tuple(prepared.weights(each) for each in kept)
    return Quantised(output, card, quality, len(prepared.convolutions) - len(kept), names, tuple(faults))


def _checked(model: Path, output: Path) -> ModelCard:
    """The card of a model that can be quantised, to a file that is not there yet.

    Raises:
        ModelError: or UsageError, if not.
    """
    card = read_card(model)
    if card.precision != "fp32":
        raise ModelError(f"{model}: is in {card.precision} already; give the file in fp32 that it was made from")
    unknown = set(card.inputs) - {DOMAIN}
    if unknown:
        raise ModelError(f"{model}: has further inputs ({', '.join(sorted(unknown))}) that pictures do not bring")
    if output.exists():
        raise UsageError(f"{output}: exists already; delete it, or give another name with -o")
    return card


@dataclasses.dataclass(frozen=True)
class _Trials:
    """One model and its pictures, for trying what can be quantised."""

    model: Path
    folder: Path
    seen: Pictures
    card: ModelCard
    bars: Bars

    def prepare(self) -> Prepared:
        """The graph with the ranges of its values."""
        images = self.seen.calibration
        shown = zip(images, gate.labels(len(images), len(self.card.domains)), strict=True)
        return graph.prepare(self.model, self.folder, (gate.feed(*each) for each in shown))

    def write(self, prepared: Prepared, kept: Collection[str]) -> Path:
        """A file in which all but some convolutions compute in 8 bits."""
        left_out = set[str]().union(*(prepared.group(each) for each in kept))
        path = self.folder / "quantised.onnx"
        graph.write(prepared, [name for name in prepared.nodes if name not in left_out], path)
        return path

    def search(self, prepared: Prepared, on_step: Callable[[str], None]) -> tuple[tuple[str, ...], Quality]:
        """The fewest convolutions to keep in fp32 so that the gate is passed, and the quality; else half of them."""
        original = gate.results(self.model, self.seen, len(self.card.domains))

        def quality(kept: Sequence[str]) -> Quality:
            made = gate.results(self.write(prepared, kept), self.seen, len(self.card.domains))
            return gate.compare(original, made, self.seen)

        measured = quality(())
        if not measured.faults(self.bars):
            return (), measured
        on_step(f"not good enough ({measured}): trying {len(prepared.convolutions)} convolutions one by one")
        order = self.ranked(prepared, original)
        failed, count, most = 0, 1, max(1, len(order) // 2)
        while (measured := quality(order[:count])).faults(self.bars) and count < most:
            on_step(f"{count} in fp32: {measured}")
            failed, count = count, min(2 * count, most)
        best = measured
        while count - failed > 1 and not best.faults(self.bars):
            middle = (failed + count) // 2
            measured = quality(order[:middle])
            if measured.faults(self.bars):
                failed = middle
            else:
                count, best = middle, measured
        return order[:count], best

    def ranked(self, prepared: Prepared, original: gate.Results) -> tuple[str, ...]:
        """The convolutions by the error that each makes if it alone computes in 8 bits, the largest first."""
        images, expected = self.seen.held_out[:_TRIED], original.held_out[:_TRIED]
        errors = {}
        for name in prepared.convolutions:
            path = self.folder / "alone.onnx"
            graph.write(prepared, sorted(prepared.group(name)), path)
            made = gate.translate(path, images, gate.labels(len(images), len(self.card.domains)))
            errors[name] = np.mean([cv2.norm(*pair, cv2.NORM_L2SQR) for pair in zip(expected, made, strict=True)])
        return tuple(sorted(errors, key=lambda name: -errors[name]))


def _described(card: ModelCard, model: Path, seen: Pictures, quality: Quality) -> ModelCard:
    """The card of the quantised file."""
    measured = {"int8_psnr_mean": quality.mean, "int8_psnr_least": quality.least, "int8_drift": quality.drift}
    if quality.flicker is not None:
        measured["int8_flicker"] = quality.flicker
    return dataclasses.replace(
        card,
        precision="int8",
        metrics=card.metrics | {name: round(value, 3) for name, value in measured.items()},
        quantised_from=digest(model),
        calibration=seen.sources,
    )


def _refusal(output: Path, faults: Sequence[str], prepared: Prepared, kept: Sequence[str]) -> str:
    """Why no file is written, in one line."""
    blamed = ", ".join(prepared.weights(each) for each in kept[:_BLAMED])
    return (
        f"{output}: not written, {'; '.join(faults)}, even with {len(kept)} of {len(prepared.convolutions)} "
        f"convolutions in fp32, of which the most harmful are {blamed}; give more and other --frames, or --force"
    )
