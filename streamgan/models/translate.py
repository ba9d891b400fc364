"""The translator ``model``: runs a model file, on smaller pictures if asked, and brings the result to full size."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from streamgan import api, settings
from streamgan.models import sharednorm, tiles

Image: TypeAlias = npt.NDArray[np.uint8]
"""One picture: ``(H, W, 3)`` uint8 RGB."""
Room: TypeAlias = npt.NDArray[np.int16]
"""Memory to work in: ``(2, H, W, 3)`` int16."""

_RADIUS, _EPSILON = 3, (0.04 * 255) ** 2
_UNIT, _STEEPEST = 4096, 7.0
_SMALLEST_TILE = 64


class ModelTranslator(api.Translator):
    """Shows every picture to a model file."""

    @dataclasses.dataclass(frozen=True)
    class Options:
        """What a preset may say."""

        model: str = api.option("", help="the model file, relative to the preset")
        size: int = api.option(0, minimum=0, help="short side that the model sees, in pixels; 0 for the video's own")
        upsample: str = api.option(
            "guided", choices=("guided", "bilinear"), live=True, help="how a smaller result gets the details back"
        )
        tile: int = api.option(
            0, minimum=0, help="side of the tiles that a larger picture is shown in, in pixels; 0 for no tiles"
        )
        overlap: int = api.option(64, minimum=16, help="what neighbouring tiles share, in pixels; at most half a tile")
        domain: str = api.option("", live=True, help="what a model of several domains translates to: name or number")

    options: Options

    def open(self, context: api.Context) -> None:
        """Loads the model.

        Raises:
            PresetError: if no model is named, a domain is missing or unknown, or tiles are too small.
            ModelError: or BackendError, if the model cannot be loaded, or cannot work in tiles.
        """
        if not self.options.model:
            raise api.PresetError("translator model: option 'model' is missing; name the model file")
        if self.options.tile and self.options.tile < max(_SMALLEST_TILE, 2 * self.options.overlap):
            raise api.PresetError(
                f"translator model: tile: {self.options.tile} given, expected 0, or at least {_SMALLEST_TILE} and "
                f"twice the overlap, which is {self.options.overlap}"
            )
        self._folders = contextlib.ExitStack()
        self._session = context.load_model(self.options.model)
        if self.options.tile:
            self._session = self._in_tiles(self._session, context)
        self._room: Room | None = None
        self._inputs(1)  # a wrong domain ends the run before it begins

    def translate(self, images: api.Images) -> api.Images:
        """Translates pictures; the result has their size, unless the model itself enlarges."""
        size = fit((images.shape[2], images.shape[1]), self.options.size)
        seen = [_shrink(image, size) for image in images]
        step = self._session.multiple_of
        padded = [pad(image, step) for image in seen]
        made = self._session.run(padded[0][None] if len(padded) == 1 else np.stack(padded), self._inputs(len(padded)))
        factor = made.shape[1] // padded[0].shape[0]
        made = made[:, : size[1] * factor, : size[0] * factor]
        if made.shape[1:3] == images.shape[1:3] or factor > 1:
            return made
        enlarge = enlarge_guided if self.options.upsample == "guided" else enlarge_bilinear
        if self._room is None or self._room.shape[1:] != images.shape[1:]:
            self._room = make_room(images[0])
        results = [enlarge(*three, self._room) for three in zip(made, seen, images, strict=True)]
        return results[0][None] if len(results) == 1 else np.stack(results)

    def _in_tiles(self, session: api.Session, context: api.Context) -> api.Session:
        """The model, shown tiles; itself if a tile holds the whole picture."""
        side, overlap = self.options.tile, self.options.overlap
        if max(fit((context.info.width, context.info.height), self.options.size)) <= side:
            return session
        path = session.path or Path(self.options.model)
        with contextlib.ExitStack() as folders:
            folder = folders.enter_context(tempfile.TemporaryDirectory(prefix="streamgan-tiles-"))
            derived = sharednorm.derive(path, Path(folder))
            if derived is None:
                return tiles.TiledSession(session, None, side=side, overlap=overlap)
            session.close()
            shown, measure = context.load_model(str(derived.tiles)), context.load_model(str(derived.measure))
            self._folders = folders.pop_all()  # a backend may read the files again
        return tiles.TiledSession(shown, measure, side=side, overlap=overlap)

    def _inputs(self, count: int) -> dict[str, npt.NDArray[np.int64]]:
        """Further inputs for so many pictures: their domain, if the model has several."""
        domains, model = self._session.domains, self.options.model
        if not domains:
            if self.options.domain:
                raise api.PresetError(
                    f"translator model: domain: '{self.options.domain}' given, but {model} translates to one look "
                    "only; leave 'domain' out"
                )
            return {}
        return {"domain": np.full(count, find_domain(self.options.domain, domains, model), np.int64)}

    def close(self) -> None:
        """Frees the model."""
        if hasattr(self, "_session"):
            self._session.close()
            self._folders.close()


def find_domain(given: str, domains: Sequence[str], model: str) -> int:
    """The number of a domain.

    Args:
        given: its name, or its number as text; it may be empty if there is but one.
        domains: the names, in the order of the model's numbers.
        model: the model file, for messages.

    Raises:
        PresetError: if it is missing or unknown.

    Example:
        >>> find_domain("night", ("day", "dusk", "night"), "day-dusk-night.onnx")
        2
    """
    if given in domains:
        return list(domains).index(given)
    if given.isdecimal() and int(given) < len(domains):
        return int(given)
    names = ", ".join(domains)
    if given:
        raise api.PresetError(
            f"translator model: domain: '{given}' given, expected one of {names} (or a number from 0 to "
            f"{len(domains) - 1}){settings.nearest(given, domains)}"
        )
    if len(domains) == 1:
        return 0
    raise api.PresetError(
        f"translator model: option 'domain' is missing: {model} translates to {names}; "
        f"name one, such as --set domain={domains[-1]}"
    )


def fit(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The (width, height) that the model sees of pictures of `size`: never enlarged, the shape kept.

    Example:
        >>> fit((1280, 720), 360)
        (640, 360)
    """
    if not 0 < short_side < min(size):
        return size
    scale = short_side / min(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def pad(image: Image, multiple_of: int) -> Image:
    """Repeats the last row and column until height and width are multiples of `multiple_of`."""
    height, width = image.shape[:2]
    down, right = -height % multiple_of, -width % multiple_of
    if not down and not right:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)


def enlarge_bilinear(made: Image, seen: Image, image: Image, room: Room | None = None) -> Image:
    """Enlarges a translation to the size of `image` without regard to what is in it."""
    return np.asarray(cv2.resize(made, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def enlarge_guided(made: Image, seen: Image, image: Image, room: Room | None = None) -> Image:
    """Enlarges a translation with the details and edges of the full picture.

    A fast guided filter (He and Sun 2015, arXiv 1505.00996): around every pixel the translation is taken for a linear
    function of the source, ``made = a * seen + b``, whose gain `a` is fitted at the small size and applied at the full
    one. Unlike theirs, `b` is not smoothed: it is all that the gain leaves unexplained. So what the model invents, such
    as a lamp in a flat wall, stays as sharp as the model made it; shrunk again, the result is the translation itself.

    Args:
        made: translation, ``(h, w, 3)`` uint8 RGB.
        seen: what the model saw, ``(h, w, 3)`` uint8 RGB.
        image: the source, ``(H, W, 3)`` uint8 RGB.
        room: ``(2, H, W, 3)`` int16 to work in; kept from frame to frame, it halves the time.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    # 16-bit integers, with gains in steps of 1/4096: half the memory traffic of floats, 6 ms instead of 12 at 1280x720.
    gain = _gain(seen, made)  # (h / 2, w / 2, 3) int16
    near = cv2.resize(gain, seen.shape[1::-1])
    rest = cv2.subtract(made.astype(np.int16), cv2.multiply(near, seen.astype(np.int16), scale=1 / _UNIT))
    size, (left, right) = image.shape[1::-1], make_room(image) if room is None else room
    cv2.resize(gain, size, dst=left)
    np.copyto(right, image)
    cv2.multiply(left, right, dst=left, scale=1 / _UNIT)
    cv2.resize(rest, size, dst=right)
    return np.asarray(cv2.add(left, right, dtype=cv2.CV_8U), dtype=np.uint8)


def make_room(image: Image) -> Room:
    """Memory for `enlarge_guided` to work in, for pictures as large as this one."""
    return np.empty((2, *image.shape), np.int16)


def _gain(seen: Image, made: Image) -> npt.NDArray[np.int16]:
    """The smoothed slope `a` of equations 5 and 8 of the paper, each channel by itself, fitted at half the size.

    Where the small picture is flat there is nothing to fit, and the paper's gain is 0, which would wipe out what is too
    fine to be seen at that size. There the gain tends to the ratio of brightness instead, as of a surface whose light
    changes; unless the translation runs against the source, as a negative does.
    """
    size = (max(1, seen.shape[1] // 2), max(1, seen.shape[0] // 2))
    guide, target = (cv2.resize(each, size, interpolation=cv2.INTER_AREA).astype(np.float32) for each in (seen, made))
    mean_guide, mean_target = _mean(guide), _mean(target)
    covariance = _mean(cv2.multiply(guide, target)) - mean_guide * mean_target
    variance = _mean(cv2.multiply(guide, guide)) - mean_guide * mean_guide
    ratio = np.minimum(mean_target / (mean_guide + np.float32(1)), np.float32(1)) * (covariance >= 0)
    slope = _mean((covariance + np.float32(_EPSILON) * ratio) / (variance + np.float32(_EPSILON)))
    return np.asarray(np.clip(slope, -_STEEPEST, _STEEPEST) * _UNIT, dtype=np.int16)


def _mean(values: cv2.typing.MatLike) -> npt.NDArray[np.float32]:
    """The mean over a square of ``2 * _RADIUS + 1`` pixels."""
    side = 2 * _RADIUS + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _shrink(image: Image, size: tuple[int, int]) -> Image:
    """A smaller picture, by area, so that fine patterns do not shimmer."""
    if size == image.shape[1::-1]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@api.hookimpl
def register_translators(register: Callable[[str, type[api.Translator]], None]) -> None:
    """Brings the translator ``model``."""
    register("model", ModelTranslator)
