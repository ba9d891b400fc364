"""The plugin keeps the contract of translators, and inverts."""

import numpy as np
import pytest

from streamgan.testing import TranslatorTests
from streamgan_hello import Negative


class TestNegative(TranslatorTests):
    """All of the contract; the suite asks only for the class."""

    @pytest.fixture
    def translator_class(self) -> type[Negative]:
        """What to test."""
        return Negative


def test_inverts() -> None:
    images = np.array([[[[0, 100, 255]]]], dtype=np.uint8)  # (1, 1, 1, 3)
    assert Negative().translate(images).tolist() == [[[[255, 155, 0]]]]
