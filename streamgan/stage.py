"""The middle stage: one translator and its filters at work, held to their contracts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.api import Context, Filter, Frame, Images, PluginError, Session, Translator, VideoInfo
from streamgan.model import read_card
from streamgan.motion.shots import CutDetector
from streamgan.plan import Plan
from streamgan.plugins import blamed

Worker = TypeVar("Worker", Translator, Filter)


class TranslateStage:
    """Opens the translator and the filters of a plan, hands them pictures, and checks what comes back.

    Used by one thread. Where a film is cut, what has a memory forgets; without any memory nobody looks for cuts.
    """

    def __init__(self, plan: Plan, info: VideoInfo) -> None:
        """Opens the translator, then the filters.

        Raises:
            StreamganError: if one cannot be opened.
        """
        self._plan, self._name = plan, f"translator '{plan.preset.translator}'"
        self._count, self._shape = 0, (0, 0)
        self._cuts = CutDetector() if plan.translator.memory or plan.filters else None
        context = Context(info, self._load_model, plan.budget.translate)
        with contextlib.ExitStack() as opened:
            self._translator = _opened(opened, self._name, plan.translator, plan.options, context)
            self._filters = [
                (f"filter '{name}'", _opened(opened, f"filter '{name}'", cls, options, context))
                for name, cls, options in plan.filters
            ]
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def batch(self) -> int:
        """How many frames `apply` likes to get at once."""
        return max(1, self._translator.batch)

    def apply(self, frames: Sequence[Frame]) -> list[Frame]:
        """Translates consecutive frames: blended by the plan's strength, beside the source if it says so.

        Returns:
            As many frames; `Frame.cut` is set where a new shot begins, if anything here has a memory.

        Raises:
            PluginError: if a plugin raises, or returns something else than pictures of the same number.
        """
        if self._cuts is None:
            return self._apply(frames)
        made: list[Frame] = []
        for shot in self._split(frames):
            if shot[0].cut:
                self._reset()
            made += self._apply(shot)
        return made

    def _split(self, frames: Sequence[Frame]) -> list[list[Frame]]:
        """The frames by shot; all but the first part begin with a `Frame.cut`, and the first may."""
        parts: list[list[Frame]] = []
        for frame in frames:
            cut = self._cuts is not None and self._cuts.is_cut(frame.image)
            if cut or not parts:
                parts.append([])
            parts[-1].append(dataclasses.replace(frame, cut=cut))
        return parts

    def _reset(self) -> None:
        """Makes all that have a memory forget."""
        if self._translator.memory:
            with blamed(self._name, "while it was reset"):
                self._translator.reset()
        for name, each in self._filters:
            with blamed(name, "while it was reset"):
                each.reset()

    def _apply(self, frames: Sequence[Frame]) -> list[Frame]:
        """Translates frames of one shot."""
        images = frames[0].image[None] if len(frames) == 1 else np.stack([frame.image for frame in frames])
        images.flags.writeable = False
        with blamed(self._name, f"while it translated frame {self._count}"):
            result = self._translator.translate(images)
        made = self._check(self._name, result, len(frames), self._shape if self._count else None)
        self._shape = made.shape[1:3]
        for name, each in self._filters:
            made = made.view()
            made.flags.writeable = False
            with blamed(name, f"while it filtered frame {self._count}"):
                result = each.apply(images, made)
            made = self._check(name, result, len(frames), self._shape)
        self._count += len(frames)
        return [_finish(frame, image, self._plan) for frame, image in zip(frames, made, strict=True)]

    def _check(self, who: str, made: Any, count: int, size: tuple[int, ...] | None) -> Images:
        """Refuses what is not ``(count, H, W, 3)`` uint8, or not of the (height, width) that is due."""
        where = f"{who} at frame {self._count}"
        if not isinstance(made, np.ndarray):
            raise PluginError(f"{where}: returned {type(made).__name__}, expected a numpy array")
        given = f"returned {made.shape} {made.dtype}"
        if made.dtype != np.uint8 or made.ndim != 4 or made.shape[0] != count or made.shape[3] != 3 or 0 in made.shape:
            raise PluginError(f"{where}: {given}, expected ({count}, height, width, 3) uint8")
        if size is not None and made.shape[1:3] != size:
            raise PluginError(f"{where}: {given}, but {size} before; the size must not change within a film")
        return made

    def _load_model(self, name: str) -> Session:
        """Loads a model file for the translator, with the plan's backend."""
        path = self._plan.preset.path.parent / Path(name).expanduser()
        card = read_card(path)
        session = self._plan.backend().load(
            path, threads=self._plan.budget.translate, precision=self._plan.request.precision
        )
        session.multiple_of, session.domains, session.path = card.size.multiple_of, card.domains, path
        return session


def _opened(
    stack: contextlib.ExitStack, name: str, cls: Callable[[Any], Worker], options: Any, context: Context
) -> Worker:
    """A translator or a filter, made, opened and reset; the stack closes it."""
    with blamed(name, "while it was made"):
        worker = cls(options)
    stack.enter_context(_closing(name, worker))
    with blamed(name, "while it was opened"):
        worker.open(context)
    with blamed(name, "while it was reset"):
        worker.reset()
    return worker


@contextlib.contextmanager
def _closing(name: str, worker: Translator | Filter) -> Iterator[None]:
    """Closes a translator or a filter at the end."""
    try:
        yield
    finally:
        with blamed(name, "while it was closed"):
            worker.close()


def _finish(frame: Frame, made: npt.NDArray[np.uint8], plan: Plan) -> Frame:
    """Blends and compares, as the plan says; what the frame carries besides is brought to the size of the result."""
    if plan.strength < 1:
        blended = cv2.addWeighted(_fitted(frame.image, made), 1 - plan.strength, made, plan.strength, 0)
        made = np.asarray(blended, np.uint8)
    alpha, fine = frame.alpha, frame.fine
    if alpha is not None:
        alpha = _fitted(alpha, made)
    if fine is not None and fine.shape != made.shape:  # less than a level: it means nothing elsewhere
        fine = np.zeros(made.shape, np.int8)
    if plan.request.compare:
        made = np.hstack([_fitted(frame.image, made), made])
        alpha = None if alpha is None else np.hstack([alpha, alpha])
        fine = None if fine is None else np.hstack([fine, fine])
    return dataclasses.replace(frame, image=made, alpha=alpha, fine=fine)


def _fitted(image: npt.NDArray[np.uint8], made: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture, brought to the size of another."""
    if image.shape[:2] == made.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, made.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
