"""Models outside PyTorch: written as graphs, run by another engine, compared with their source."""
