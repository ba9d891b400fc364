"""The middle stage: one translator and its filters at work, held to their contracts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.api import Context, Filter, Frame, Images, PluginError, Session, Translator, VideoInfo
from streamgan.frames.planar import PlanarFrame, PlanarTranslator
from streamgan.models import choice, loading
from streamgan.motion.shots import CutDetector
from streamgan.motion.similar import is_similar
from streamgan.plan import Plan, settle
from streamgan.plugins import blamed

Worker = TypeVar("Worker", Translator, Filter)
Work: TypeAlias = Callable[[], list[Frame]]
Submit: TypeAlias = Callable[[Work], Future[list[Frame]]]


@dataclasses.dataclass(frozen=True)
class _Begun:
    """Frames on their way."""

    frames: Sequence[Frame]
    first: int
    """Number of the first of them."""
    made: Future[list[Frame]]
    """Translations of those that are translated."""
    places: Sequence[int]
    """For each frame the number of its translation, from 1; 0 for the one shown last."""


class TranslateStage:
    """Opens the translator and the filters of a plan, hands them pictures, and checks what comes back.

    Used by one thread, which may let others work: see `stream`. Where a film is cut, what has a memory forgets; without
    any memory nobody looks for cuts. If the plan says so, a frame that is like the last translated one is shown as it.
    """

    def __init__(self, plan: Plan, info: VideoInfo) -> None:
        """Opens the translator, then the filters.

        Raises:
            StreamganError: if one cannot be opened.
        """
        plan = settle(plan, info)
        self._plan, self._info, self._name = plan, info, f"translator '{plan.preset.translator}'"
        self.notes = [*plan.notes]
        """What the user should know of how it works."""
        self._count = 0
        self._size: tuple[int, ...] | None = None
        self._cuts = CutDetector() if plan.has_memory else None
        if self._cuts is not None and plan.request.skip_similar is not None:
            self.notes.append("every frame is translated in spite of --skip-similar: something here has a memory")
        self._seen: Frame | None = None
        self._shown: Frame | None = None
        self._running: dict[int, float] = {}
        self._lock = threading.Lock()
        self._streams = plan.budget.translate if plan.may_overlap else 1
        self.busy = 0.0
        """Seconds that threads have worked here, divided by their number."""
        self.skipped = 0
        """Frames that were shown as the one before, for they were like it."""
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
        return self._plan.batch

    @property
    def plan(self) -> Plan:
        """The plan as it is carried out: with what really runs the model."""
        return self._plan

    @property
    def working_since(self) -> float | None:
        """When the work that has gone on for longest began, as `time.perf_counter` counts; None if there is none."""
        return min(self._running.copy().values(), default=None)

    def apply(self, frames: Sequence[Frame]) -> list[Frame]:
        """Translates consecutive frames: blended by the plan's strength, beside the source if it says so.

        Returns:
            As many frames; `Frame.cut` is set where a new shot begins, if anything here has a memory.

        Raises:
            PluginError: if a plugin raises, or returns something else than pictures of the same number.
        """
        return list(itertools.chain.from_iterable(self._run([frames], _at_once, 0)))

    def stream(self, batches: Iterable[Sequence[Frame]]) -> Iterator[list[Frame]]:
        """As `apply`, for batch after batch; results come in order, while threads work ahead, as many as `streams`.

        A thread for each of a few frames wastes less than all threads for one frame: no layer waits for its last part.
        """
        if self._streams == 1:
            yield from self._run(batches, _at_once, 0)
            return
        pool = ThreadPoolExecutor(self._streams, thread_name_prefix="streamgan-translate")
        try:
            yield from self._run(batches, pool.submit, self._streams)
        finally:
            pool.shutdown(cancel_futures=True)

    def _run(self, batches: Iterable[Sequence[Frame]], submit: Submit, ahead: int) -> Iterator[list[Frame]]:
        """Begins with so many batches, or parts of them, more than are complete."""
        begun: deque[_Begun] = deque()
        for shot in itertools.chain.from_iterable(map(self._split, batches)):
            begun.append(self._begin(shot, submit))
            if len(begun) > ahead:
                yield self._complete(begun.popleft())
        while begun:
            yield self._complete(begun.popleft())

    def _split(self, frames: Sequence[Frame]) -> list[Sequence[Frame]]:
        """The frames by shot; all but the first part begin with a `Frame.cut`, and the first may."""
        if self._cuts is None:
            return [frames]
        parts: list[list[Frame]] = []
        for frame in frames:
            cut = self._cuts.is_cut(frame.image)
            if cut or not parts:
                parts.append([])
            parts[-1].append(dataclasses.replace(frame, cut=cut))
        return [*parts]

    def _reset(self) -> None:
        """Makes all that have a memory forget."""
        if self._translator.memory:
            with blamed(self._name, "while it was reset"):
                self._translator.reset()
        for name, each in self._filters:
            with blamed(name, "while it was reset"):
                each.reset()

    def _begin(self, frames: Sequence[Frame], submit: Submit) -> _Begun:
        """Has frames of one shot translated, but those that are like the last one that was."""
        if frames[0].cut and self._cuts is not None:
            self._reset()
        wanted: list[Frame] = []
        places: list[int] = []
        for place, frame in enumerate(frames, self._count):
            if place % self._plan.segment and self._is_repeat(frame):  # a resumed run knows nothing of what was before
                self.skipped += 1
            else:
                self._seen = frame
                wanted.append(frame)
            places.append(len(wanted))
        first, self._count = self._count, self._count + len(frames)
        return _Begun(frames, first, submit(functools.partial(self._translate, wanted, first)), places)

    def _is_repeat(self, frame: Frame) -> bool:
        """Whether the last translation will do for a frame; never where more than the image is at stake."""
        threshold = self._plan.request.skip_similar
        if threshold is None or self._seen is None or self._cuts is not None or self._plan.request.compare:
            return False
        bare = frame.alpha is None and frame.fine is None
        return bare and is_similar(frame.image, self._seen.image, threshold)

    def _complete(self, begun: _Begun) -> list[Frame]:
        """Waits for translations, and gives each frame its own."""
        translated = begun.made.result()
        for frame in translated:
            size = frame.size[::-1]
            if self._size is not None and size != self._size:
                given = f"{self._name} at frame {begun.first}: returned {size}, but {self._size} before"
                raise PluginError(f"{given}; the size must not change within a film")
            self._size = size
        pictures = [self._shown or translated[0], *translated]  # the first frame of all is translated
        self._shown = pictures[-1]
        places = zip(begun.frames, begun.places, strict=True)
        return [dataclasses.replace(pictures[place], **_own(frame)) for frame, place in places]

    def _translate(self, frames: Sequence[Frame], first: int) -> list[Frame]:
        """Translates frames of one shot, the first of which has this number; in any thread."""
        if not frames:
            return []
        with self._noted(first):
            planes = self._translate_planes(frames, first)
            if isinstance(planes, list):
                return planes
            frames = [frame.in_rgb() if isinstance(frame, PlanarFrame) else frame for frame in frames]
            images = frames[0].image[None] if len(frames) == 1 else np.stack([frame.image for frame in frames])
            images.flags.writeable = False
            with blamed(self._name, f"while it translated frame {first}"):
                result = self._translator.translate(images) if planes is None else planes
            made = _check(f"{self._name} at frame {first}", result, len(frames))
            size = made.shape[1:3]
            for name, each in self._filters:
                made = made.view()
                made.flags.writeable = False
                with blamed(name, f"while it filtered frame {first}"):
                    result = each.apply(images, made)
                made = _check(f"{name} at frame {first}", result, len(frames), size)
            return [_finish(frame, image, self._plan) for frame, image in zip(frames, made, strict=True)]

    def _translate_planes(self, frames: Sequence[Frame], first: int) -> list[Frame] | Images | None:
        """The same without RGB, if all frames have planes; or RGB that came of them; None if that is not the way."""
        planar = [frame for frame in frames if isinstance(frame, PlanarFrame)]
        if len(planar) < len(frames) or not isinstance(self._translator, PlanarTranslator):
            return None
        with blamed(self._name, f"while it translated frame {first}"):
            made = self._translator.translate_planes([frame.planes for frame in planar])
        if isinstance(made, np.ndarray):
            return made
        return [dataclasses.replace(frame, planes=planes) for frame, planes in zip(planar, made, strict=True)]

    @contextlib.contextmanager
    def _noted(self, first: int) -> Iterator[None]:
        """Notes since when the frames from this number on are worked on, and how long it took, however it ends."""
        began = self._running[first] = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                del self._running[first]
                self.busy += (time.perf_counter() - began) / self._streams

    def _load_model(self, name: str) -> Session:
        """Loads a model file for the translator: as the plan says, or in the next best way that computes the same."""
        plan, request = self._plan, self._plan.request
        path = plan.preset.path.parent / Path(name).expanduser()
        first = plan.setup or loading.Setup(plan.backend_name, request.precision, 1, plan.budget.translate)
        backends = {**plan.backends, plan.backend_name: plan.backend}
        size = None  # what a translator derives from its model is not tried: it may not give pictures
        if path == plan.model:
            size = choice.model_size(path, (self._info.width, self._info.height), plan.options)
        loaded = loading.load(path, loading.ladder(first, backends, request.backend, request.precision), backends, size)
        self.notes += loaded.notes
        used, kind = loaded.setup, backends[loaded.setup.backend]
        if path == plan.model:  # what could not be used is no good for what is derived either
            self._plan = dataclasses.replace(plan, setup=used, backend_name=used.backend, backend=kind)
        self._streams = min(self._streams, used.streams)
        return loaded.session


def _at_once(work: Work) -> Future[list[Frame]]:
    """Does the work here and now; what it raises, it raises here."""
    done: Future[list[Frame]] = Future()
    done.set_result(work())
    return done


def _own(frame: Frame) -> dict[str, Any]:
    """What a frame does not share with another one that is shown in its place."""
    return {name: getattr(frame, name) for name in ("pts", "time_base", "duration", "captured_at", "cut")}


def _check(where: str, made: Any, count: int, size: tuple[int, ...] | None = None) -> Images:
    """Refuses what is not ``(count, H, W, 3)`` uint8, or not of the (height, width) that is due."""
    if not isinstance(made, np.ndarray):
        raise PluginError(f"{where}: returned {type(made).__name__}, expected a numpy array")
    given = f"returned {made.shape} {made.dtype}"
    if made.dtype != np.uint8 or made.ndim != 4 or made.shape[0] != count or made.shape[3] != 3 or 0 in made.shape:
        raise PluginError(f"{where}: {given}, expected ({count}, height, width, 3) uint8")
    if size is not None and made.shape[1:3] != size:
        raise PluginError(f"{where}: {given}, but {size} before; the size must not change within a film")
    return made


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
