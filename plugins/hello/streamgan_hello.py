"""The smallest plugin: copy this folder to begin your own."""

from collections.abc import Callable

from streamgan import api


class Negative(api.Translator):
    """Inverts every pixel."""

    def translate(self, images: api.Images) -> api.Images:
        """White becomes black, and each colour its complement."""
        return 255 - images


@api.hookimpl
def register_translators(register: Callable[[str, type[api.Translator]], None]) -> None:
    """Brings `Negative` under the name ``negative``."""
    register("negative", Negative)
