"""``streamgan doctor``: what is installed, which backend would be used and why, what would make it faster."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import click

import streamgan
from streamgan import api, plugins
from streamgan.cli import table
from streamgan.cli.plugins import failed
from streamgan.cli.presets import listed

_PACKAGES = (
    "av",
    "opencv-python",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "pydantic",
    "tensorrt",
    "torch",
)
_ENCODERS = {
    "h264": ("libx264", "h264_nvenc", "h264_qsv", "h264_vaapi", "h264_videotoolbox"),
    "hevc": ("libx265", "hevc_nvenc", "hevc_qsv", "hevc_vaapi", "hevc_videotoolbox"),
    "av1": ("libsvtav1", "libaom-av1", "av1_nvenc", "av1_qsv"),
    "vp9": ("libvpx-vp9",),
    "ffv1": ("ffv1",),
}
"""Encoders that FFmpeg may bring, by codec."""
_CACHED = "choices"
_CHOICES = ("model", "size", "asked for", "runs with", "measured", "why")
"""Headings of the choices that were measured."""
_NVIDIA = ("tensorrt", "torch-cuda", "onnxruntime-cuda")
"""Backends that use an NVIDIA GPU."""


@click.command("doctor")
@click.pass_obj
def command(loose_files: tuple[Path, ...]) -> None:
    """Say what is installed, what would be used, and what is slow.

    That is: packages, backends with the one that would be used and why, what was measured for which model, encoders,
    presets, plugins that failed, and what would make it faster.
    """
    registry = plugins.load(loose_files)
    table.show("this machine", _machine())
    table.show("packages", _packages())
    table.show("backends", _backends(registry), ("name", "usable", "rank", "what it says", ""))
    table.show("measured choices (streamgan tune repeats them)", _choices(), _CHOICES)
    table.show("encoders", _encoders(), ("codec", "present"))
    table.show("presets", listed(registry), ("name", "title", "from"))
    table.show("plugins that failed", failed(registry), ("plugin", "error"))
    table.show("what would make it faster", [(line,) for line in advice(registry)])


def advice(registry: plugins.Registry) -> list[str]:
    """What the user could do for more speed, the most effective first."""
    lines = []
    states = _states(registry)
    if shutil.which("nvidia-smi") and not any(states[name].usable for name in _NVIDIA if name in states):
        lines.append("the NVIDIA GPU is not used: pip uninstall onnxruntime; pip install onnxruntime-gpu[cuda,cudnn]")
    if "openvino" not in registry.backends and platform.machine().lower() in ("x86_64", "amd64"):
        lines.append("OpenVINO is faster on most x86-64 processors: in a checkout, pip install ./plugins/openvino")
    lines.append("a smaller picture for the model (--size 160), a faster encoder (--encoder-preset ultrafast)")
    return lines


def _machine() -> list[tuple[str, str]]:
    """Rows about the machine and the interpreter."""
    from streamgan import plan

    cache = api.cache_folder(_CACHED)
    return [
        ("streamgan", f"{streamgan.__version__}, {Path(streamgan.__file__).parent}"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("cores", f"{plan.usable_cores()} usable of {os.cpu_count()}"),
        ("cache", str(cache.parent) if cache else "none: what is measured cannot be kept (set STREAMGAN_CACHE)"),
    ]


def _packages() -> list[tuple[str, str]]:
    """Name and version of each package that matters and is installed."""
    rows = []
    for name in _PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return rows


def _states(registry: plugins.Registry) -> dict[str, api.Availability]:
    """Whether each backend can be used."""
    return {name: plugins.availability(name, provided.value) for name, provided in registry.backends.items()}


def _backends(registry: plugins.Registry) -> list[tuple[str, str, str, str, str]]:
    """A row for each backend; the one that would be used says so."""
    from streamgan.models import backends

    try:
        chosen, _, why = backends.choose({name: each.value for name, each in registry.backends.items()})
    except api.BackendError as error:
        chosen, why = "", str(error)
    rows = []
    for name, state in _states(registry).items():
        used = f"<- used: {why.split(';')[0]}" if name == chosen else ""
        rows.append((name, "yes" if state.usable else "no", str(state.rank), state.reason, used))
    return rows


def _choices() -> list[tuple[str, ...]]:
    """A row for each choice that was measured and is remembered, the newest first."""
    from streamgan.models import choice

    rows: list[tuple[str, ...]] = []
    for each in choice.kept():
        when = each.choice.measured.replace("T", " ")[:16]
        size, asked = "x".join(map(str, each.size)), each.asked or "-"
        rows.append((each.model, size, asked, str(each.choice.setup), when, each.choice.reason))
    return rows


def _encoders() -> list[tuple[str, str]]:
    """Which encoders PyAV brings for each codec. Those of GPUs need their hardware and driver too."""
    import av.codec

    rows = []
    for codec, names in _ENCODERS.items():
        present = [name for name in names if name in av.codec.codecs_available]
        rows.append((codec, ", ".join(present) or "none"))
    return rows
