# Everything happens in .venv; delete it to start anew.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint clean

demo: .venv/plain ## all that the built-in model can do, on example pictures and clips, offline
	$(BIN)/python examples/five_tasks.py

test: .venv/test ## every test but the slow ones
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: .venv/test ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## forget the environment and what was built
	rm -rf .venv dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/plain: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/test: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --editable ".[test]"
	touch $@ .venv/plain
