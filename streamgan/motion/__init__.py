"""What changes from frame to frame: cuts, motion, flicker."""
