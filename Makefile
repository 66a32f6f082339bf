# Each target sets up what it needs: .venv is built from constraints.txt on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_OPTIONS ?=

.PHONY: setup demo test test-all lint types contracts docs check clean

$(VENV)/.installed: pyproject.toml constraints.txt scripts/make_venv.sh
	PYTHON=$(PYTHON) PIP_OPTIONS="$(PIP_OPTIONS)" bash scripts/make_venv.sh $(VENV)

setup: $(VENV)/.installed ## build .venv

demo: setup ## the main job, end to end, in about three minutes; writes out/index.html
	$(BIN)/thetaone transfer lm --widths 32,64,128 --target 256 --memory 64MiB --report out/

test: setup ## the default tests, on every core
	$(BIN)/python -m pytest -n auto -q

test-all: setup ## the slow, exhaustive suites too
	$(BIN)/python -m pytest -n auto -q -m "slow or not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

contracts: setup
	$(BIN)/lint-imports

docs: setup
	$(BIN)/mkdocs build --strict

check: lint types contracts docs test ## everything that the gate runs

clean:
	rm -rf $(VENV) site out .pytest_cache .ruff_cache .hypothesis
