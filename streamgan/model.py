"""The model file: one ONNX file, frames in, frames out, with a JSON card inside.

It is all that crosses from training to the runtime. Input ``frames`` is uint8 ``(N, H, W, 3)`` RGB with N, H and W
dynamic; output ``frames_out`` is uint8 of the same N; casting, scaling, clamping and rounding are inside the graph. The
card lies in the ONNX metadata under the key ``streamgan``. It is plain data: reading it runs no code of the model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from streamgan import settings
from streamgan.api import ModelError, PresetError, option

CARD_KEY = "streamgan"
FORMAT = 1
INPUT, OUTPUT, DOMAIN = "frames", "frames_out", "domain"


@dataclasses.dataclass(frozen=True)
class SizeRule:
    """Which sizes of frames a model takes, and which it knows."""

    multiple_of: int = option(1, minimum=1)
    """Height and width must be multiples of this, in pixels."""
    trained: tuple[int, int] = (256, 256)
    """(width, height) of the frames it was trained on, in pixels."""
    receptive_field: int = 0
    """Pixels across that influence one output pixel; 0 if the whole frame does."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a model is, where it comes from and what may be done with it."""

    name: str
    """Short name, such as ``day2night``."""
    method: str
    """The training method, such as ``cyclegan``."""
    direction: str
    """Source and target look, such as ``day to night``."""
    licence: str
    """Licence of the weights, an SPDX identifier."""
    creator: str
    """Who trained it."""
    size: SizeRule = SizeRule()
    """Sizes it takes."""
    description: str = ""
    """What it does and where it fails, in words."""
    domains: tuple[str, ...] = ()
    """Names of the domains of a multi-domain model, in the order of the input ``domain``; empty for one direction."""
    inputs: tuple[str, ...] = ()
    """Further inputs of the graph beside ``frames``."""
    precision: str = "fp32"
    """Number type that the weights are stored in: ``fp32``, ``fp16`` or ``int8``."""
    recipe_digest: str = ""
    """SHA-256 of the resolved training recipe."""
    data: tuple[str, ...] = ()
    """Each data set it was trained on, with its licence."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """What was measured on held-out data, by name."""
    parameters: int = 0
    """Number of weights."""
    created: str = ""
    """Date of the export, ISO 8601."""
    quantised_from: str = ""
    """SHA-256 of the model file that a file of ``int8`` was made from; empty for all others."""
    calibration: tuple[str, ...] = ()
    """What set the scales of a file of ``int8``: folders and films, with how many pictures of each."""

    def to_json(self) -> str:
        """The card as JSON, with the format version first."""
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str = "card") -> ModelCard:
        """Reads what `to_json` wrote; keys that a newer minor version added are ignored.

        Raises:
            ModelError: if it is not JSON, of a newer format, or lacks a field.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ModelError(f"{where}: the model card is not JSON ({error}); export the model again") from None
        version = content.pop("format", None) if isinstance(content, dict) else None
        if version != FORMAT:
            raise ModelError(
                f"{where}: the model card has format {version!r}, this streamgan reads {FORMAT}; "
                "update streamgan, or export the model again"
            )
        fields = _known(cls, content)
        fields["size"] = _known(SizeRule, fields.get("size", {}))
        try:
            return settings.parse(cls, fields, f"{where}: model card")
        except PresetError as error:
            raise ModelError(f"{error}; export the model again") from None


def _known(cls: type, content: Any) -> Any:
    """The entries that are fields of a dataclass; what is no mapping is left to the parser's own words."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in content.items() if key in names} if isinstance(content, dict) else content


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal: the identity of a model file and of every cache entry made from it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def int8_path(path: Path) -> Path:
    """Where the quantised sibling of a model file lies, whether it is there or not: ``NAME.int8.onnx``.

    Example:
        >>> int8_path(Path("presets/day2night.onnx")).name
        'day2night.int8.onnx'
    """
    return path.with_name(f"{path.stem}.int8.onnx")


def onnxruntime_failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: their common base is private to its extension module, these names are not."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ["EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile"]
    names += ["NotImplemented", "RuntimeException"]
    found: list[type[Exception]] = [getattr(state, name) for name in names]
    return (*found, ValueError)


def read_card(path: Path) -> ModelCard:
    """Reads the card of a model file.

    Raises:
        ModelError: if the file is missing, is not ONNX, has no card, or its graph is not frames in, frames out.
    """
    import onnxruntime as ort

    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise ModelError(f"{path}: no such model file")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
    except onnxruntime_failures() as error:
        raise ModelError(f"{path}: not an ONNX model that can be read ({_first_line(error)})") from None
    if CARD_KEY not in metadata:
        raise ModelError(
            f"{path}: an ONNX file without a streamgan card (no metadata '{CARD_KEY}'); "
            "make one with 'streamgan export RUN -o model.onnx'"
        )
    inputs = {value.name: value.type for value in session.get_inputs()}
    outputs = {value.name: value.type for value in session.get_outputs()}
    if inputs.get(INPUT) != "tensor(uint8)" or outputs.get(OUTPUT) != "tensor(uint8)":
        raise ModelError(
            f"{path}: expected input '{INPUT}' and output '{OUTPUT}' of uint8, found {inputs} and {outputs}"
        )
    card = ModelCard.from_json(metadata[CARD_KEY], where=str(path))
    further = set(inputs) - {INPUT}
    if further != set(card.inputs) or (DOMAIN in further) != bool(card.domains):
        raise ModelError(
            f"{path}: its card names the inputs {', '.join(card.inputs) or 'none'} and {len(card.domains)} domains, "
            f"its graph has the further inputs {', '.join(sorted(further)) or 'none'}; export the model again"
        )
    return card


def write_card(path: Path, card: ModelCard) -> None:
    """Puts a card into an ONNX file, in place of one that is there. Needs the ``onnx`` package.

    Raises:
        ModelError: if the file is not ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(path))
    except (DecodeError, OSError) as error:
        raise ModelError(f"{path}: not an ONNX model that can be read ({_first_line(error)})") from None
    onnx.helper.set_model_props(proto, {CARD_KEY: card.to_json()})
    partial = path.with_name(path.name + ".partial")
    onnx.save(proto, str(partial))
    partial.replace(path)


def _first_line(error: Exception) -> str:
    """The first line of an error's text, for a message of one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
