RECIPE ?= laptop
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install sweep test peers
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

# what tests/benchmarks compares with; it asks for Python 3.12 and runs on 3.11
peers: install
	$(BIN)/pip install --quiet --disable-pip-version-check polars pyyaml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python simple-scaling-laws==0.2.0
