"""The methods of training: one paper, one file."""
