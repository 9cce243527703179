"""The figures that docs/figures.py draws, by subject."""
