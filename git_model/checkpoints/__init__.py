"""Our own checkpoint format, and a model by its name."""
