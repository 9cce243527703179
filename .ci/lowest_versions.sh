#!/usr/bin/env bash
# The lowest versions in pyproject.toml are real: the fast tests of the library pass with them. By hand; needs uv.
#
#     .ci/lowest_versions.sh [FLAGS OF PYTEST]      # PYTHON=3.12 for another Python
#
# Left out is what would raise these versions: Transformers, and packages that need it (peft) or other new ones (gradio),
# and so the tests that compare with Transformers. The versions in use are printed first.
set -euo pipefail
cd "$(dirname "$0")/.."
env=$(mktemp -d)
trap 'rm -rf "$env"' EXIT
uv venv --quiet --python "${PYTHON:-3.11}" "$env"
uv pip install --quiet --python "$env" --resolution lowest-direct \
  --editable ".[clip,timm,video,heif,jxl,webdataset,tensorboard,parquet,plot]" \
  "pytest>=8.0" "pytest-timeout>=2.3" "pytest-xdist>=3.6" "hypothesis>=6.100"
uv pip freeze --python "$env"
folders="tests/model tests/generation tests/preprocessing tests/checkpoints tests/weights_convert tests/training tests/data"
# shellcheck disable=SC2046,SC2086
"$env/bin/python" -m pytest -q tests/test_captioner.py $(grep -rL --include='test_*.py' -E \
  '^(from|import) (transformers|parity_models)\b' $folders) "$@"
