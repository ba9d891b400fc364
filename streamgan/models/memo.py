"""What was measured on this machine, kept as small JSON files in the user's cache: what is lost is measured again."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import filelock

from streamgan.api import cache_folder
from streamgan.model import digest

Key: TypeAlias = Mapping[str, Any]
"""What a measurement was made of: plain values that JSON holds, by name."""
_CPU_LINES = ("model name", "flags", "Features", "CPU part")
"""Lines of ``/proc/cpuinfo`` that say what the processor is and can do."""


def recall(kind: str, key: Key) -> dict[str, Any] | None:
    """What was kept for a key, with ``measured``, the time; None if nothing was, or it cannot be read.

    Args:
        kind: of measurement, the name of a folder, such as ``verdicts``.
        key: what it was made of.
    """
    folder = cache_folder(kind)
    found = None if folder is None else _read(folder / _name(key))
    if found is None or found.pop("key", None) != _plain(key):
        return None
    return found


def remember(kind: str, key: Key, content: Mapping[str, Any]) -> str:
    """Keeps what was measured; where nothing can be kept, it is not.

    Returns:
        The time that was written beside it: ISO 8601, to the second, with its distance from UTC.
    """
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    folder = cache_folder(kind)
    if folder is not None:
        with contextlib.suppress(OSError):  # a full disk ends no run
            _write(folder / _name(key), json.dumps({"key": key, "measured": now, **content}, indent=1))
    return now


def everything(kind: str) -> list[dict[str, Any]]:
    """All that is kept of one kind, with its ``key`` and ``measured``, the newest first."""
    folder = cache_folder(kind)
    found = [] if folder is None else [_read(path) for path in sorted(folder.glob("*.json"))]
    known = [each for each in found if each is not None and isinstance(each.get("key"), dict)]
    return sorted(known, key=lambda each: str(each.get("measured", "")), reverse=True)


@contextlib.contextmanager
def held(kind: str) -> Iterator[None]:
    """Lets one process at a time measure: two would slow each other down, and so mislead both."""
    folder = cache_folder(kind)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            with contextlib.suppress(OSError, NotImplementedError):  # file systems that have no locks
                stack.enter_context(filelock.FileLock(folder / ".lock"))
        yield


@functools.cache
def machine() -> str:
    """What tells this kind of machine from others: the system, the processor and what it can do, its cores."""
    facts = [platform.system(), platform.machine(), platform.processor(), str(os.cpu_count())]
    with contextlib.suppress(OSError):  # on Linux only; elsewhere the processor has a name
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0].splitlines()
        facts += [line for line in first if line.startswith(_CPU_LINES)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def digest_once(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, computed again only if the file has changed: for many jobs with one model.

    Raises:
        OSError: if it cannot be read.
    """
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    """As `streamgan.model.digest`, kept as long as size and time of the last change are the same."""
    return digest(path)


def _name(key: Key) -> str:
    """The file of a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32] + ".json"


def _plain(key: Key) -> Any:
    """A key as it comes back from JSON."""
    return json.loads(json.dumps(key))


def _read(path: Path) -> dict[str, Any] | None:
    """The mapping in a file; None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _write(path: Path, text: str) -> None:
    """Writes a file in one step: whoever reads it at any moment finds the old one or the new one, whole."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
