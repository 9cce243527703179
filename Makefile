# Everything happens in .venv; delete it to start anew.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Compiled files are kept for the next process, whatever the shell says: the tests start many.
unexport PYTHONDONTWRITEBYTECODE

LONG := $(patsubst %,tests/docs/test_%.py,snippet_types site docs figures explorer_page) \
	tests/page/test_browser.py

.PHONY: demo test lint constraints release-check clean

demo: .venv/plain ## all that the built-in model can do, on example pictures and clips, offline
	$(BIN)/python examples/five_tasks.py

test: .venv/test ## every test but the slow ones
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: .venv/test ## style and types; the types and the site of the documentation; what runs long in a browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(LONG)

constraints: .venv/test ## write the versions that the tests passed with
	$(BIN)/python .ci/constraints.py > constraints.new && mv constraints.new constraints.txt

release-check: .venv/test ## build wheel and sdist, and use each in an environment of its own
	$(PIP) twine==7.0.0
	$(BIN)/python .ci/release_check.py

clean: ## forget the environment and what was built
	rm -rf .venv dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/plain: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable ".[test]"
	touch $@ .venv/plain
