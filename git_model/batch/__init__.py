"""Texts for a whole data set: what to write about, the run, and where its records go."""
