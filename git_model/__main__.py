"""`python -m git_model` is the same as `git-model`."""

from git_model.cli.main import main

main()
