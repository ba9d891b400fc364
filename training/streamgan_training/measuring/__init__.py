"""Measures of a training: on frames, on films, by networks; and what evaluates a run."""
