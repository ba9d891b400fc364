"""TensorRT itself: whichever of its two kinds is installed, and what it says while it works."""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib
import importlib.util
from typing import Any

from streamgan import api

_MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Where TensorRT may be imported from, the first that is there; the last is what the others of RTX wrap."""
_OLDEST = 10
MISSING = "TensorRT is missing; install it with: pip install tensorrt (data centre) or pip install tensorrt-rtx (RTX)"
"""What to say where none of the packages is installed."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """TensorRT, or TensorRT-RTX."""

    module: Any
    """The Python module, with all its classes."""
    name: str
    """Which it is, with its version, such as ``TensorRT-RTX 1.7.1.116``."""
    portable: bool
    """True for TensorRT-RTX: its engines are built without a GPU and compiled for the one at hand when they run."""
    logger: Any
    """What every object of TensorRT is made with; there may be but one in a process."""
    complaints: collections.deque[str]
    """The last errors that TensorRT wrote to the logger, the oldest first."""

    def complaint(self) -> str:
        """The first error since the last call, in one line; says so if there was none."""
        first = self.complaints[0] if self.complaints else "TensorRT does not say why"
        self.complaints.clear()
        return " ".join(first.split())


def installed() -> str | None:
    """The name of the module that `load` would import, found without importing it; None if there is none."""
    return next((name for name in _MODULES if importlib.util.find_spec(name) is not None), None)


@functools.cache
def load() -> Runtime:
    """Imports TensorRT; once for the process.

    Raises:
        BackendError: if it is missing, cannot be loaded, or is too old.
    """
    name = installed()
    if name is None:
        raise api.BackendError(f"tensorrt: {MISSING}")
    try:
        module: Any = importlib.import_module(name)
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise api.BackendError(f"tensorrt: the package {name} cannot be imported ({reason}); install it anew") from None
    portable = hasattr(module, "IRuntimeCache")
    title = f"{'TensorRT-RTX' if portable else 'TensorRT'} {module.__version__}"
    if not portable and int(module.__version__.split(".")[0]) < _OLDEST:
        raise api.BackendError(f"tensorrt: {title} is installed, {_OLDEST} or newer is needed; pip install -U tensorrt")
    complaints: collections.deque[str] = collections.deque(maxlen=20)
    return Runtime(module, title, portable, _make_logger(module, complaints), complaints)


def _make_logger(module: Any, complaints: collections.deque[str]) -> Any:
    """A logger that keeps errors and drops the rest."""

    class Logger(module.ILogger):  # type: ignore[misc]
        """Called by TensorRT, from any thread."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Keeps what is an error."""
            if severity <= module.ILogger.Severity.ERROR:
                complaints.append(message)

    return Logger()
