"""Flicker reduction for models that translate frame by frame: the filter ``smooth``."""

from __future__ import annotations

from collections.abc import Callable

from streamgan import api


@api.hookimpl
def register_filters(register: Callable[[str, type[api.Filter]], None]) -> None:
    """Brings `Smooth` under the name ``smooth``; OpenCV is loaded only then."""
    from streamgan_smooth.smoothing import Smooth

    register("smooth", Smooth)
