"""The middle stage: one translator at work, held to its contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from streamgan.api import Context, Frame, Images, PluginError, Session, StreamganError, Translator, VideoInfo
from streamgan.model import read_card
from streamgan.plan import Plan


class TranslateStage:
    """Opens the translator of a plan, hands it pictures, and checks what comes back. Used by one thread."""

    def __init__(self, plan: Plan, info: VideoInfo) -> None:
        """Opens the translator.

        Raises:
            StreamganError: if it cannot be opened.
        """
        self._plan, self._name = plan, plan.preset.translator
        self._count, self._shape = 0, (0, 0)
        self._translator: Translator = self._guarded(lambda: plan.translator(plan.options), "was made")
        context = Context(info, self._load_model, plan.budget.translate)
        self._guarded(lambda: self._translator.open(context), "was opened")
        self._guarded(self._translator.reset, "was reset")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guarded(self._translator.close, "was closed")

    @property
    def batch(self) -> int:
        """How many frames `apply` likes to get at once."""
        return max(1, self._translator.batch)

    def apply(self, frames: Sequence[Frame]) -> list[Frame]:
        """Translates consecutive frames: blended by the plan's strength, beside the source if it says so.

        Raises:
            PluginError: if the translator raises, or returns something else than pictures of the same number.
        """
        images = frames[0].image[None] if len(frames) == 1 else np.stack([frame.image for frame in frames])
        images.flags.writeable = False
        where = f"translated frame {self._count}"
        made = self._check(self._guarded(lambda: self._translator.translate(images), where), len(frames))
        self._count += len(frames)
        return [
            dataclasses.replace(frame, image=_finish(frame.image, image, self._plan))
            for frame, image in zip(frames, made, strict=True)
        ]

    def _check(self, made: Any, count: int) -> Images:
        """Refuses what is not ``(count, H, W, 3)`` uint8, or changes size within a film."""
        where = f"translator '{self._name}' at frame {self._count}"
        if not isinstance(made, np.ndarray):
            raise PluginError(f"{where}: returned {type(made).__name__}, expected a numpy array")
        given = f"returned {made.shape} {made.dtype}"
        if made.dtype != np.uint8 or made.ndim != 4 or made.shape[0] != count or made.shape[3] != 3 or 0 in made.shape:
            raise PluginError(f"{where}: {given}, expected ({count}, height, width, 3) uint8")
        if self._count and made.shape[1:3] != self._shape:
            raise PluginError(f"{where}: {given}, but {self._shape} before; the size must not change within a film")
        self._shape = made.shape[1:3]
        return made

    def _guarded(self, call: Any, doing: str) -> Any:
        """Runs a plugin's code; whatever it raises becomes one line that names it."""
        try:
            return call()
        except StreamganError:
            raise
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"translator '{self._name}' failed while it {doing} ({reason})") from error

    def _load_model(self, name: str) -> Session:
        """Loads a model file for the translator, with the plan's backend."""
        path = self._plan.preset.path.parent / Path(name).expanduser()
        card = read_card(path)
        session = self._plan.backend().load(
            path, threads=self._plan.budget.translate, precision=self._plan.request.precision
        )
        session.multiple_of, session.domains = card.size.multiple_of, card.domains
        return session


def _finish(source: Any, made: Any, plan: Plan) -> Any:
    """Blends and compares, as the plan says; the source is brought to the size of the translation."""
    if plan.strength == 1 and not plan.request.compare:
        return made
    if source.shape != made.shape:
        source = cv2.resize(source, made.shape[1::-1], interpolation=cv2.INTER_AREA)
    if plan.strength < 1:
        made = cv2.addWeighted(source, 1 - plan.strength, made, plan.strength, 0)
    return np.hstack([source, made]) if plan.request.compare else made
