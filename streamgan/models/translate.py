"""The translator ``model``: runs a model file, on smaller pictures if asked, and brings the result to full size."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from streamgan import api, settings
from streamgan.frames.planar import PlanarTranslator, Planes
from streamgan.models import sharednorm, tiles
from streamgan.models.planes import enlarge_planes, shrink_planes, to_rgb
from streamgan.models.scaling import Image, Room, enlarge_bilinear, enlarge_guided, fit, make_room, pad, shrink

_SMALLEST_TILE = 64


class ModelTranslator(PlanarTranslator):
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
        batch: int = api.option(
            1, minimum=1, maximum=64, help="pictures that the model sees at once; GPUs like several"
        )
        domain: str = api.option("", live=True, help="what a model of several domains translates to: name or number")

    concurrent: ClassVar[bool] = True
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
        self._own = threading.local()
        self._inputs(self.options, 1)  # a wrong domain ends the run before it begins

    def translate(self, images: api.Images) -> api.Images:
        """Translates pictures; the result has their size, unless the model itself enlarges."""
        options = self.options  # it may change while another thread is at work
        size = fit((images.shape[2], images.shape[1]), options.size)
        seen = [shrink(image, size) for image in images]
        made = self._run(seen, options)
        if made.shape[1:3] == images.shape[1:3] or made.shape[1:3] != seen[0].shape[:2]:
            return made
        enlarge = enlarge_guided if options.upsample == "guided" else enlarge_bilinear
        room = self._room(images.shape[1:])
        results = [enlarge(*three, room) for three in zip(made, seen, images, strict=True)]
        return results[0][None] if len(results) == 1 else np.stack(results)

    @classmethod
    def takes_planes(cls, options: Options, size: tuple[int, int]) -> bool:
        """If the model sees smaller pictures: only they have to become RGB."""
        return fit(size, options.size) != size

    def translate_planes(self, pictures: Sequence[Planes]) -> list[Planes] | api.Images:
        """As `translate`, without RGB at full size; what a model has enlarged itself is RGB."""
        options = self.options
        size = fit(pictures[0].size, options.size)
        small = [shrink_planes(picture, size) for picture in pictures]
        seen = [to_rgb(part, picture.color) for part, picture in zip(small, pictures, strict=True)]
        made = self._run(seen, options)
        if made.shape[1:3] != seen[0].shape[:2]:
            return made
        room, guided = self._room(pictures[0].samples[0].shape), options.upsample == "guided"
        return [enlarge_planes(*three, room, guided) for three in zip(made, small, pictures, strict=True)]

    def _run(self, seen: Sequence[Image], options: Options) -> api.Images:
        """What the model makes of pictures of one size: as large, or larger if it enlarges."""
        padded = [pad(image, self._session.multiple_of) for image in seen]
        shown = padded[0][None] if len(padded) == 1 else np.stack(padded)
        made = self._session.run(shown, self._inputs(options, len(padded)))
        factor = made.shape[1] // padded[0].shape[0]
        return made[:, : seen[0].shape[0] * factor, : seen[0].shape[1] * factor]

    def _room(self, shape: tuple[int, ...]) -> Room:
        """Memory to enlarge to this shape in, kept by each thread for itself."""
        room: Room | None = getattr(self._own, "room", None)
        if room is None or room.shape[1:] != shape:
            self._own.room = room = make_room(shape)
        return room

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

    def _inputs(self, options: Options, count: int) -> dict[str, npt.NDArray[np.int64]]:
        """Further inputs for so many pictures: their domain, if the model has several."""
        domains, model = self._session.domains, options.model
        if not domains:
            if options.domain:
                raise api.PresetError(
                    f"translator model: domain: '{options.domain}' given, but {model} translates to one look "
                    "only; leave 'domain' out"
                )
            return {}
        return {"domain": np.full(count, find_domain(options.domain, domains, model), np.int64)}

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


@api.hookimpl
def register_translators(register: Callable[[str, type[api.Translator]], None]) -> None:
    """Brings the translator ``model``."""
    register("model", ModelTranslator)
