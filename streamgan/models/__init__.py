"""Model files at work: the translator `model`, backends, tiles."""
