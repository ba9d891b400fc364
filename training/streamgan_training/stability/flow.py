"""Optical flow of film clips, kept on disk, and carried through a crop.

A flow leads from a pixel of a frame to where it was in the frame before: ``(2, H, W)`` float32 in pixels, x then y.
The estimators are DIS (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", in OpenCV) and RAFT (Teed
and Deng 2020, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", torchvision's `raft_small`). Where a flow
can be trusted is decided as in the evaluation of Lai et al. 2018, "Learning Blind Video Temporal Consistency".
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

from streamgan.api import UsageError
from streamgan.motion.flow import dis_flow, flow_and_mask
from streamgan_training.stability.temporal import EngineName
from streamgan_training.stability.warp import warp_along

Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

RAFT_WEIGHTS = Raft_Small_Weights.C_T_V2
RAFT_SMALLEST = 128
"""RAFT takes pictures from this size on, with sides that are multiples of 8, in pixels."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """An estimator of optical flow."""

    name: str
    """Part of the key of what is kept on disk: it changes when the results do."""
    estimate: Callable[[Image, Image], Float]
    """From the first frame to the second, both ``(H, W, 3)``: ``(H, W, 2)`` in pixels, x then y."""


def raft_flow(network: nn.Module, first: Image, second: Image) -> Float:
    """Flow by RAFT; the arguments and the result of `dis_flow`.

    Args:
        network: torchvision's RAFT; pictures are padded to what it takes by repeating their edges.
        first: ``(H, W, 3)`` uint8 RGB.
        second: the same shape.
    """
    height, width = first.shape[:2]
    right, below = (max(RAFT_SMALLEST, -(-side // 8) * 8) - side for side in (width, height))
    device = next(network.parameters()).device
    pair = torch.from_numpy(np.stack((first, second))).to(device).permute(0, 3, 1, 2) / 127.5 - 1
    pair = F.pad(pair, (0, right, 0, below), mode="replicate")
    with torch.no_grad():
        flow: Tensor = network(pair[:1], pair[1:])[-1][0, :, :height, :width]
    return np.ascontiguousarray(flow.permute(1, 2, 0).float().cpu().numpy())


def has_raft_weights() -> bool:
    """Whether torchvision's weights of `raft_small` are on this machine."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(RAFT_WEIGHTS.url).name).is_file()


@functools.cache
def make_engine(name: EngineName) -> Engine:
    """The estimator of a name; `auto` is RAFT where its weights are on this machine, else DIS.

    Raises:
        UsageError: if RAFT is asked for, and its weights are neither here nor can be downloaded.
    """
    if name == "dis" or (name == "auto" and not has_raft_weights()):
        return Engine("dis-medium", dis_flow)
    try:
        network = raft_small(weights=RAFT_WEIGHTS, progress=False).eval().requires_grad_(False)
    except OSError as error:
        raise UsageError(
            f"temporal.flow: raft given, but its weights cannot be had ({error}); put {RAFT_WEIGHTS.url} into "
            f"{torch.hub.get_dir()}/checkpoints, or choose dis"
        ) from None
    return Engine(f"raft-small-{RAFT_WEIGHTS.name}", functools.partial(raft_flow, network))


def cache_folder() -> Path:
    """Where flows are kept: ``flow`` in the folder that STREAMGAN_CACHE names, or in ~/.cache/streamgan."""
    root = os.environ.get("STREAMGAN_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "streamgan") / "flow"


def clip_flow(frames: Tensor, engine: Engine) -> tuple[Tensor, Tensor]:
    """Flow between the neighbouring frames of a clip, from disk where it has been computed before.

    An entry is found by what the two frames hold and by the estimator, so it is never stale and clips that overlap
    share it. Flows are rounded to half precision (1/32 pixel at a motion of 64), whether they come from disk or not: a
    training does not depend on what is kept. A damaged entry is computed anew; where nothing can be written, nothing is
    kept.

    Args:
        frames: ``(T, 3, H, W)`` uint8, T at least 2: whole frames, before any crop.
        engine: see `make_engine`.

    Returns:
        Flow ``(T - 1, 2, H, W)`` float32, from frame t + 1 to frame t in pixels, x then y; and ``(T - 1, 1, H, W)``
        float32, 1 where it can be trusted.
    """
    images = [np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    flows, masks = [], []
    for index in range(len(images) - 1):
        key = f"{engine.name} {images[index].shape} {digests[index]} {digests[index + 1]}"
        path = _entry(key)
        found = _read(path, images[index].shape)
        if found is None:
            flow, valid = flow_and_mask(images[index], images[index + 1], engine.estimate)
            found = flow.astype(np.float16), valid
            _write(path, *found)
        flows.append(torch.from_numpy(found[0].astype(np.float32)).permute(2, 0, 1))
        masks.append(torch.from_numpy(found[1].astype(np.float32)).unsqueeze(0))
    return torch.stack(flows), torch.stack(masks)


def _entry(key: str) -> Path:
    """The file of an entry."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return cache_folder() / digest[:2] / f"{digest[2:]}.npz"


def _read(path: Path, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float16], Mask] | None:
    """Flow ``(H, W, 2)`` and mask ``(H, W)`` of an entry; None if there is none, or it is damaged."""
    height, width = shape[:2]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            flow, packed = entry["flow"], entry["valid"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if flow.shape != (height, width, 2) or flow.dtype != np.float16 or packed.shape != (-(-height * width // 8),):
        return None
    return flow, np.unpackbits(packed, count=height * width).reshape(height, width).astype(np.bool_)


def _write(path: Path, flow: npt.NDArray[np.float16], valid: Mask) -> None:
    """Keeps an entry: whole or not at all."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = file.name
            np.savez_compressed(file, flow=flow, valid=np.packbits(valid))
        os.replace(temporary, path)
    except OSError:  # a full disk, or a folder that may only be read: it costs time, not the training
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def crop_flow(
    flow: Tensor, valid: Tensor, *, top: int, left: int, height: int, width: int, out_size: tuple[int, int], flip: bool
) -> tuple[Tensor, Tensor]:
    """Carries flow and mask through the crop, the resizing and the mirroring that the frames get.

    Vectors are scaled with the picture. A pixel stays valid if all pixels that it is made of were, and if it comes from
    inside the crop.

    Args:
        flow: ``(T - 1, 2, H, W)`` of the whole frames, in pixels, x then y.
        valid: ``(T - 1, 1, H, W)``, 0 or 1.
        top: first row of the crop, in pixels.
        left: its first column.
        height: its height, before resizing.
        width: its width, before resizing.
        out_size: (width, height) after resizing.
        flip: whether the frames are mirrored left to right.

    Returns:
        Flow ``(T - 1, 2, out height, out width)`` and mask ``(T - 1, 1, out height, out width)``, float32.
    """
    columns, rows = out_size
    window = (..., slice(top, top + height), slice(left, left + width))
    flow, valid = (
        F.interpolate(one[window].float(), size=(rows, columns), mode="bilinear", align_corners=False, antialias=True)
        for one in (flow, valid)
    )
    flow = flow * flow.new_tensor((columns / width, rows / height)).view(1, 2, 1, 1)
    if flip:
        flow, valid = flow.flip(-1) * flow.new_tensor((-1.0, 1.0)).view(1, 2, 1, 1), valid.flip(-1)
    return flow, (valid > 0.999).float() * warp_along(flow).valid
