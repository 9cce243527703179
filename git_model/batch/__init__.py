"""Texts for a whole data set: the inputs, the run over them, and where its records are written."""
