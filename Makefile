RECIPE ?= laptop
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install sweep test
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[app,dev]"
	touch .venv/installed

sweep: install
	$(BIN)/python -m sweeps.line recipe=$(RECIPE) $(SETTINGS)

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest
