"""Films read: from a file, a pipe, a URL or a camera to frames, each with its time."""
