"""From footage to batches: films and folders, shots and clips, crops and camera faults; and the commands about data."""
