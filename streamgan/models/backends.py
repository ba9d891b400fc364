"""What runs model files: ONNX Runtime, and the choice among all that is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streamgan import plugins
from streamgan.api import Availability, Backend, BackendError, hookimpl
from streamgan.models import providers
from streamgan.models.providers import OnnxRuntime as OnnxRuntime


def choose(backends: Mapping[str, type[Backend]], name: str | None = None) -> tuple[str, type[Backend], str]:
    """Picks a backend: the one named, else the usable one of the largest rank.

    Args:
        backends: all that are registered, by name.
        name: what the user asks for; None or ``auto`` leaves the choice to the ranks.

    Returns:
        Its name, its class, and the reason in one line.

    Raises:
        BackendError: if there is none of that name, or it cannot be used here.
    """
    if name is not None and name != "auto":
        return _named(backends, name)
    states = _states(backends)
    usable = _usable(states)
    if not usable:
        reasons = "; ".join(f"{key}: {state.reason}" for key, state in states.items())
        raise BackendError(f"no backend can be used here ({reasons or 'none is registered'})")
    best = max(usable, key=lambda key: states[key].rank)
    why = "the only usable one" if len(usable) == 1 else f"expected to be the fastest of {', '.join(usable)}"
    return best, backends[best], f"{why}; {states[best].reason}"


def _named(backends: Mapping[str, type[Backend]], name: str) -> tuple[str, type[Backend], str]:
    """As `choose`, for a backend that the user names: the others are asked nothing, unless they must be offered."""
    if name not in backends:
        raise BackendError(f"backend {name}: not installed; {_offer(backends)}")
    state = plugins.availability(name, backends[name])
    if not state.usable:
        raise BackendError(f"backend {name}: cannot be used, {state.reason}; {_offer(backends)}")
    return name, backends[name], f"asked for; {state.reason}"


def _offer(backends: Mapping[str, type[Backend]]) -> str:
    """What can be used here, for messages."""
    return f"usable here: {', '.join(_usable(_states(backends))) or 'none'}"


def _states(backends: Mapping[str, type[Backend]]) -> dict[str, Availability]:
    """Whether each can be used."""
    return {key: plugins.availability(key, backend) for key, backend in backends.items()}


def _usable(states: Mapping[str, Availability]) -> list[str]:
    """The names of those that can be used."""
    return [key for key, state in states.items() if state.usable]


@hookimpl
def register_backends(register: Callable[[str, type[Backend]], None]) -> None:
    """Brings ONNX Runtime: on the CPU, and one backend for each way to a device."""
    register("onnxruntime", OnnxRuntime)
    for backend in providers.ON_DEVICES:
        register(backend.name, backend)
