"""What is known of a finished output: a small file in a hidden folder beside it, by which a later run recognises it.

Each output has a file of its own, written whole or not at all, so that many machines may work in one folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from streamgan import fingerprint
from streamgan.writing import outputs

FOLDER = ".streamgan"
"""The folder beside the outputs."""
_FORMAT = 1
_COARSE = 2_000_000_000
"""Nanoseconds by which the time of a file may differ between two machines: some file systems count whole seconds."""


def path_of(output: str) -> Path:
    """Where the receipt of an output lies.

    Args:
        output: a file; or ``out/`` or ``out/%06d.png``, a sequence of images.
    """
    folder, name = os.path.split(output)
    return Path(folder, FOLDER, f"{name or 'images'}.json")


def write(output: str, made_as: str, source: str) -> None:
    """Notes that an output is finished.

    Args:
        output: what was made; it must be there.
        made_as: its `fingerprint.of`.
        source: what it was made from, for people.

    Raises:
        OSError: if the receipt cannot be written.
    """
    path = path_of(output)
    path.parent.mkdir(exist_ok=True)
    partial = outputs.partial_name(path)
    content = {"format": _FORMAT, "fingerprint": made_as, "input": source} | _state(output)
    try:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def fault(output: str, made_as: str) -> str | None:
    """Why an output that exists cannot be taken for finished, in words; None if it is complete and was made so.

    Args:
        output: as for `write`.
        made_as: the fingerprint that it should have.
    """
    try:
        known = json.loads(path_of(output).read_text(encoding="utf-8"))
        now = _state(output)
    except (OSError, ValueError, RecursionError):
        return "nothing is known of how it was made"
    if not isinstance(known, dict) or known.get("format") != _FORMAT:
        return "nothing is known of how it was made"
    if known.get("fingerprint") != made_as:
        return "it was made from another input, or with other settings"
    changed = known.get("changed")
    late = not isinstance(changed, int) or abs(now["changed"] - changed) > _COARSE
    return "it was changed since" if late or any(known.get(key) != now[key] for key in ("files", "bytes")) else None


def exists(output: str) -> bool:
    """Whether an output, or anything of a sequence, is there."""
    return bool(fingerprint.listed(output)) or (os.path.exists(output) and not os.path.isdir(output))


def _state(output: str) -> dict[str, Any]:
    """How many files an output has, their bytes, and the time of their last change in nanoseconds."""
    states = [os.stat(path) for path in fingerprint.listed(output)]
    sizes, times = [state.st_size for state in states], [state.st_mtime_ns for state in states]
    return {"files": len(states), "bytes": sum(sizes), "changed": max(times, default=0)}
