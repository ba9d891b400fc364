"""Model files at work on the processor: what a training, and a gate, ask ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from streamgan.api import ModelError
from streamgan.model import OUTPUT, onnxruntime_failures


def load_session(path: Path) -> onnxruntime.InferenceSession:
    """A model file, ready to run with as many threads as torch uses, none of which spins while torch works.

    Raises:
        ModelError: if ONNX Runtime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except onnxruntime_failures() as error:
        raise ModelError(f"{path}: cannot be loaded ({str(error).splitlines()[0]})") from None


def draw(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, npt.NDArray[Any]], path: Path
) -> npt.NDArray[np.uint8]:
    """What a model makes of pictures: ``(N, H', W', 3)`` uint8 RGB.

    Args:
        session: from `load_session`.
        inputs: by name, as the model's card has them.
        path: the file, for messages.

    Raises:
        ModelError: if ONNX Runtime fails.
    """
    try:
        (made,) = session.run([OUTPUT], dict(inputs))
    except onnxruntime_failures() as error:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
        raise ModelError(f"{path}: failed on {shapes} ({str(error).splitlines()[0]})") from None
    return np.asarray(made, np.uint8)
