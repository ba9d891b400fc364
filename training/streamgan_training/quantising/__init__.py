"""From a model file to one that computes in 8-bit integers, and the gate in between."""
