"""Files that appear under their names whole, or not at all: what every sink that writes files shares."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from streamgan.api import Encoding, SinkError, UsageError


def check_target(path: Path, encoding: Encoding) -> None:
    """Refuses a file that must not or cannot be written, before any work is done.

    Raises:
        UsageError: if it is the input, a folder, or exists and may not be replaced.
        SinkError: if the folder is missing or takes no files.
    """
    source = Path(encoding.copy_from or "")
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise SinkError(f"{path}: cannot be written ({error.strerror}); use -o for another name") from None
    if path.is_file() and source.is_file() and path.samefile(source):
        raise UsageError(f"{path}: is the input itself; give the output another name with -o")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file with -o")
    if path.exists() and not encoding.overwrite:
        raise UsageError(f"{path}: exists already; use --overwrite to replace it, or -o for another name")
    check_folder(path.parent, path)


def check_folder(folder: Path, path: Path) -> None:
    """Refuses a `folder` in which `path` cannot be made.

    Raises:
        SinkError: with what is wrong with it.
    """
    if not folder.is_dir():
        fault = f"{folder} is not a folder" if folder.exists() else f"the folder {folder} does not exist"
        raise SinkError(f"{path}: {fault}; create it first, or use -o for another place")
    if not os.access(folder, os.W_OK):
        raise SinkError(f"{path}: the folder {folder} cannot be written to; use -o for another place")


def publish(partial: Path, path: Path, overwrite: bool) -> None:
    """Gives a complete file its name; a file that has appeared there meanwhile is kept unless it may be replaced.

    Raises:
        SinkError: if such a file is in the way; `partial` is left to the caller then.
    """
    if not overwrite:
        try:
            return os.link(partial, path)  # unlike a rename, it never replaces; the caller removes the first name
        except OSError as error:  # some file systems have no links
            if isinstance(error, FileExistsError) or path.exists():
                fault = "was made by another program meanwhile; nothing was replaced"
                raise SinkError(f"{path}: {fault}; use --overwrite, or -o for another name") from None
    partial.replace(path)


def partial_name(path: Path) -> Path:
    """A hidden name beside `path`, so that the final rename stays on one disk."""
    stem = path.stem[:40]  # a name may have 255 bytes, a letter up to 4
    return path.with_name(f".{stem}.partial-{secrets.token_hex(4)}{path.suffix}")
