"""Films written: encoders, closed segments, what travels beside the video, files that appear whole or not at all."""
