#!/usr/bin/env bash
# The lowest versions in pyproject.toml are real: the tests of the library pass with them. By hand, needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
env=$(mktemp -d)
trap 'rm -rf "$env"' EXIT
uv venv --quiet --python "${PYTHON:-3.11}" "$env"
uv pip install --quiet --python "$env" --resolution lowest-direct --editable ".[test]"
"$env/bin/python" -m pytest -q tests/model tests/generation tests/preprocessing tests/checkpoints \
  tests/weights_convert tests/training tests/data tests/test_captioner.py "$@"
