"""For the tests of plugins: conformance suites, a tiny model file and synthetic clips.

A plugin subclasses a suite and gives one fixture; it inherits a test for every line of the contract in
`streamgan.api`::

    class TestNegative(TranslatorTests):
        @pytest.fixture
        def translator_class(self):
            return Negative

Needs pytest; `make_model` needs the ``onnx`` package. The runtime imports nothing from here.
"""

from streamgan.testing.backends import BackendTests as BackendTests
from streamgan.testing.suites import FilterTests as FilterTests
from streamgan.testing.suites import TranslatorTests as TranslatorTests
from streamgan.testing.synthetic import make_clip as make_clip
from streamgan.testing.synthetic import make_images as make_images
from streamgan.testing.synthetic import make_model as make_model
from streamgan.testing.synthetic import reference as reference
