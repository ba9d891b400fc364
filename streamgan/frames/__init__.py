"""Between pictures as files hold them and frames: colour, depth, transparency, image files."""
