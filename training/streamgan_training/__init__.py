"""Training of unpaired frame translation: recipe → train → checkpoint → export → model file.

This package is where torch lives. It reaches the ``streamgan`` program through the hook ``register_commands``; the
runtime never imports it.
"""

__version__ = "0.1.0"
