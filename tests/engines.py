"""Backends that are slow, wrong or broken on purpose; what they should compute is what `clips.write_model` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgan import api

Fault = Callable[[api.Images], api.Images]


@dataclasses.dataclass
class Told:
    """What a backend was asked to do, in order."""

    loads: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)
    """Name of the file, precision, streams."""
    runs: int = 0
    closed: int = 0


class Session(api.Session):
    """Inverts, then errs as it was told to; its speed is what it says, for `trials.frames_per_second` is replaced."""

    def __init__(self, told: Told, precision: str, speed: float, fault: Fault | None) -> None:
        self.told, self.precision, self.speed, self.fault = told, precision, speed, fault

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> api.Images:
        self.told.runs += 1
        made = 255 - images
        return made if self.fault is None else self.fault(made)

    def close(self) -> None:
        self.told.closed += 1


def make(
    rank: int = 10,
    *,
    precisions: tuple[str, ...] = ("fp32",),
    streams: int = 1,
    speeds: Mapping[tuple[str, int], float] | float = 100.0,
    faults: Mapping[str, Fault] | None = None,
    refuses: tuple[str, ...] = (),
    says: str = "a fake 1.0",
    usable: bool = True,
    promises: str = "",
    found: str = "",
    computes: str = "",
) -> type[Any]:
    """A backend; its attribute ``told`` is what it was asked to do.

    Args:
        rank: as in `api.Availability`, like `says` and `usable`.
        precisions: as in `api.Backend`.
        streams: its ``max_streams``.
        speeds: frames per second by (precision, streams), or one for all.
        faults: what happens to its pictures, by precision.
        refuses: precisions that it cannot load after all.
        promises: its ``device``.
        found: the ``device`` of its sessions.
        computes: the precision that its sessions say instead of the one asked for.
    """

    class Fake(api.Backend):
        told = Told()

        @classmethod
        def availability(cls) -> api.Availability:
            return api.Availability(usable, says, rank)

        def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> api.Session:
            chosen = precisions[0] if precision == "auto" else precision
            self.told.loads.append((path.name, chosen, streams))
            if chosen in refuses:
                raise api.BackendError(f"fake: no {chosen} on this machine")
            speed = speeds if isinstance(speeds, float) else speeds[chosen, streams]
            session = Session(self.told, computes or chosen, speed, (faults or {}).get(chosen))
            session.device = found
            return session

    Fake.precisions, Fake.max_streams, Fake.device = precisions, streams, promises
    return Fake


def black(made: api.Images) -> api.Images:
    """What NaN becomes in a picture of whole numbers."""
    return np.zeros_like(made)


def brighter(made: api.Images) -> api.Images:
    """One level too bright everywhere, black where it was white."""
    return made + np.uint8(1)


def broken(made: api.Images) -> api.Images:
    """Raises what no backend should."""
    raise RuntimeError("driver lost")
