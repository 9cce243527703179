"""Data sets: their file formats, and the batches of each training step."""
