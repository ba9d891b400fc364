"""Where what can be made again is kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """A folder of the user's cache, private to the user: compiled engines, measured choices.

    Args:
        name: of what is kept there, such as ``openvino``.

    Returns:
        ``STREAMGAN_CACHE/name`` if that variable is set, else the place that the system has for such things; None where
        it cannot be made or written, which no run should fail for.
    """
    if os.environ.get("STREAMGAN_CACHE"):  # if it is empty, it is not set, as for all such variables
        base = Path(os.environ["STREAMGAN_CACHE"])
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "streamgan"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "streamgan"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamgan"
    folder = base / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
