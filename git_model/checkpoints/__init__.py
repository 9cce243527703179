"""This project's checkpoint format, adapters, and opening a model by its name."""
