"""Evaluation: predictions of a model for a data set, and their scores."""
