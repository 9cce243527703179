"""Checkpoints of other projects, brought into the form of `git_model` and back."""
