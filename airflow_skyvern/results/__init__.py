"""What becomes of a run that has ended: its output, and the files it downloaded."""
