"""``python -m streamgan``, the same as the command ``streamgan``."""

from streamgan.cli import main

main()
