"""What is kept between runs: engines, timing caches, compiled kernels. Nothing unverified is ever handed out.

A damaged timing cache ends the process, and an engine is a program: so each file begins with a mark and a digest of the
rest, appears whole or not at all, and lies in a folder that nobody else can write to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from streamgan import api
from streamgan_tensorrt.profiles import Profile, Shape

_MARK = b"streamgan-trt-1\n"
_DIGEST = hashlib.sha256().digest_size
_log = logging.getLogger("streamgan.tensorrt")
_building = threading.Lock()
"""One build at a time in this process: several at once have been seen to crash TensorRT."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An engine and what is known of it."""

    engine: bytes
    profiles: tuple[Profile, ...]
    facts: dict[str, Any]
    """What the file beside it says: model, precision, runtime, GPU, inputs and outputs."""
    path: Path | None
    """Where it is kept; None if it is not."""


def seal(content: bytes) -> bytes:
    """The content with its mark and digest before it."""
    return _MARK + hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes | None:
    """What `seal` was given; None if a single bit is another."""
    digest, content = sealed[len(_MARK) : len(_MARK) + _DIGEST], sealed[len(_MARK) + _DIGEST :]
    whole = sealed.startswith(_MARK) and hashlib.sha256(content).digest() == digest
    return content if whole else None


def write(path: Path, content: bytes) -> None:
    """Writes a file that appears whole: beside it, flushed to the disk, then renamed. Raises OSError if it cannot."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def read(path: Path) -> bytes | None:
    """What a sealed file holds; None if there is none, or it is damaged, in which case it is removed."""
    try:
        content = unseal(path.read_bytes())
    except OSError:
        return None
    if content is None:
        _log.warning("tensorrt: %s is damaged and will be made anew", path)
        with contextlib.suppress(OSError):
            path.unlink()
    return content


def keep(path: Path, content: bytes) -> None:
    """Writes a sealed file; a disk that is full is no failure."""
    try:
        write(path, seal(content))
    except OSError as error:
        _log.warning("tensorrt: %s cannot be written (%s)", path, error.strerror)


def open_folder() -> Path | None:
    """The folder of this plugin's cache, private to the user; None where there can be none, as with another's."""
    folder = api.cache_folder("tensorrt")
    if folder is None or os.name != "posix":
        return folder
    try:
        state = folder.stat()
        if state.st_uid != os.getuid():
            _log.warning("tensorrt: %s belongs to another user: engines are not kept", folder)
            return None
        if state.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError:
        return None
    return folder


def identify(facts: dict[str, Any]) -> str:
    """The name under which engines of these facts are kept: 24 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def find(folder: Path | None, facts: dict[str, Any], shape: Shape) -> Entry | None:
    """The engine for pictures of this shape: one built for just that, else one whose range covers it.

    Args:
        folder: of the cache.
        facts: what the engine must be of, as given to `store`.
        shape: number, height and width.
    """
    if folder is None:
        return None
    fitting = []
    for sidecar in sorted(folder.glob(f"{identify(facts)}-*.json")):
        profiles = _profiles(sidecar)
        if any(profile.covers(shape) for profile in profiles):
            fitting.append((not any(each.is_static and each.covers(shape) for each in profiles), sidecar, profiles))
    for _, sidecar, profiles in sorted(fitting, key=lambda each: each[:2]):
        path = sidecar.with_suffix(".engine")
        engine = read(path)
        if engine is not None:
            return Entry(engine, profiles, facts, path)
        sidecar.unlink(missing_ok=True)
    return None


def _profiles(sidecar: Path) -> tuple[Profile, ...]:
    """The profiles of a kept engine; none if what stands there is not readable."""
    try:
        return tuple(Profile.from_json(each) for each in json.loads(sidecar.read_text(encoding="utf-8"))["profiles"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def store(
    folder: Path | None, facts: dict[str, Any], profiles: Sequence[Profile], engine: bytes, more: dict[str, Any]
) -> Entry:
    """Keeps an engine, and beside it a JSON file that says what it is; a disk that is full is no failure.

    Args:
        folder: of the cache; None keeps nothing.
        facts: what decides whether it may be used again.
        profiles: the shapes that it is for.
        engine: as TensorRT wrote it down.
        more: what people may want to know.
    """
    entry = Entry(engine, tuple(profiles), facts, None)
    if folder is None:
        return entry
    ranges = [profile.to_json() for profile in profiles]
    path = folder / f"{identify(facts)}-{identify({'profiles': ranges})[:12]}.engine"
    sidecar = {**facts, "profiles": ranges, **more, "bytes": len(engine)}
    try:
        write(path, seal(engine))
        write(path.with_suffix(".json"), json.dumps(sidecar, indent=2).encode())
    except OSError as error:
        _log.warning("tensorrt: %s cannot be written, the engine is not kept (%s)", path, error.strerror)
        return entry
    return dataclasses.replace(entry, path=path)


def drop(entry: Entry) -> None:
    """Forgets an engine that TensorRT refused."""
    if entry.path is not None:
        for path in (entry.path, entry.path.with_suffix(".json")):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """For as long as it lasts, no other thread and no other process of this user builds."""
    with _building, contextlib.ExitStack() as stack:
        if folder is not None:
            lock = filelock.FileLock(folder / "build.lock")
            try:
                try:
                    lock.acquire(timeout=0)
                except filelock.Timeout:
                    _log.warning("tensorrt: waiting for another program that builds an engine")
                    lock.acquire()
                stack.callback(lock.release)
            except (OSError, NotImplementedError) as error:  # a file system without locks
                _log.warning("tensorrt: %s cannot be locked, two programs may build at once (%s)", folder, error)
        yield
