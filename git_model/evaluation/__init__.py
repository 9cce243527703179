"""Evaluation: a model's predictions for a data set, and their scores."""
