"""Models outside PyTorch: write them as graphs, run them on another engine, compare them with their
source."""
