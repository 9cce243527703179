"""`python -m git_model` is the same as `git-model`."""

from git_model.cli import main

main()
