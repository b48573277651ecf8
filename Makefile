RECIPE ?= laptop
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: install sweep lint test pytest soak long peers
install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt $(TORCH)
	$(PIP) -c constraints.txt -e ".[app,dev]"
	$(PIP) --no-deps mup==1.0.0  # what a test compares with; it asks for torchvision, which that does without
	touch $@

sweep: install
	$(BIN)/python -m sweeps.line recipe=$(RECIPE) $(SETTINGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# lint fills the time in which the tests wait for Ray
test: install
	@$(MAKE) --no-print-directory -j 2 lint pytest

# hundreds of processes of the same code: compiled once
pytest soak long: export PYTHONDONTWRITEBYTECODE :=

pytest: install
	$(BIN)/pytest -n 2

soak: install
	$(BIN)/pytest -n 2 -m soak

# by night, one test after another: what each of them starts is itself many processes
long: install
	$(BIN)/pytest -n 0 -m long

# what tests/benchmarks compares with; it asks for Python 3.12 and runs on 3.11
peers: install
	$(PIP) polars pyyaml "lm-eval[hf]==0.4.13"
	$(PIP) --no-deps --ignore-requires-python simple-scaling-laws==0.2.0
	$(PIP) --no-deps datasketch==2.0.0 rensa==0.5.0 scikit-learn==1.9.1 joblib==1.6.0 threadpoolctl==3.8.0
	$(PIP) --no-deps litgpt==0.5.13 lightning==2.6.6 lightning-utilities==0.15.3 torchmetrics==1.9.0 jsonargparse==4.53.0 psutil==7.2.2
