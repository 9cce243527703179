"""What docs/figures.py draws, by subject."""
