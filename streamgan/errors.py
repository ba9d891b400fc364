"""What streamgan raises on purpose. Plugins import these from `streamgan.api`.

From general to specific; each inherits the built-in that fits, and carries its exit code::

    StreamganError                 1   anything streamgan raises on purpose
    ├── UsageError (ValueError)    2   the user asked for something that cannot be
    │   └── PresetError            2   a preset, recipe or option that does not read
    ├── SourceError (OSError)      1   an input that cannot be opened or decoded
    ├── SinkError (OSError)        1   an output that cannot be written
    ├── ModelError (ValueError)    1   a model file that is not one, or does not fit
    ├── BackendError (RuntimeError) 1  a backend that is missing, or failed
    └── PluginError (RuntimeError) 1   a plugin that is broken, or broke its contract
"""

from __future__ import annotations

from typing import ClassVar


class StreamganError(Exception):
    """Base of all: its message tells the user what happened, where, what was expected and how to mend it."""

    exit_code: ClassVar[int] = 1


class UsageError(StreamganError, ValueError):
    """The user asked for something that cannot be: a wrong option, an unknown name."""

    exit_code = 2


class PresetError(UsageError):
    """A preset, a recipe or an option that does not read: broken YAML, an unknown key, a value of the wrong type."""


class SourceError(StreamganError, OSError):
    """An input that cannot be opened or decoded."""


class SinkError(StreamganError, OSError):
    """An output that cannot be written."""


class ModelError(StreamganError, ValueError):
    """A file that is not a streamgan model file, or one that does not fit what it is asked to do."""


class BackendError(StreamganError, RuntimeError):
    """A backend that is not installed, or failed to load or run a model."""


class PluginError(StreamganError, RuntimeError):
    """A plugin that cannot be loaded, or broke the contract of what it registered."""
