# Each target sets up what it needs: .venv is built from constraints.txt on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_OPTIONS ?=
WORKERS ?= auto
TESTS ?=
BENCHES ?= front norms estimators parametrization exponents sweeps disk rematerialization
STUDIES ?= estimator_intervals optimum_intervals search policy verdicts what_transfers transfer anchor tune
PYTEST := python -m pytest -n $(WORKERS) -q
MAKE_VENV := PYTHON=$(PYTHON) PIP_OPTIONS="$(PIP_OPTIONS)" bash scripts/make_venv.sh

.PHONY: help setup demo test test-all campaign test-lower test-newest test-core test-float64 coverage lint types contracts docs check \
	bench bench-all bench-compare gpu-wheels gpu-check gpu-dry-run release clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt scripts/make_venv.sh
	$(MAKE_VENV) $(VENV) constraints.txt test,peers,docs,dev,plot,examples,ray

# Each kind of environment varies one thing against .venv: no extras, every lower bound, or the newest.
.venv-core/.installed: pyproject.toml constraints.txt scripts/make_venv.sh
	$(MAKE_VENV) .venv-core constraints.txt test

.venv-lower/.installed: pyproject.toml scripts/lower_bounds.py scripts/make_venv.sh
	mkdir -p .venv-lower
	$(PYTHON) scripts/lower_bounds.py > .venv-lower/constraints.txt
	$(MAKE_VENV) .venv-lower .venv-lower/constraints.txt test,peers,ray

.venv-newest/.installed: pyproject.toml scripts/make_venv.sh
	$(MAKE_VENV) .venv-newest /dev/null test,peers,ray

setup: $(VENV)/.installed ## build .venv

demo: setup ## the main job, end to end, in about three minutes; writes out/index.html
	$(BIN)/thetaone transfer lm --widths 32,64,128 --target 256 --memory 64MiB --report out/

test: setup ## the default tests, on every core; TESTS=tests/laws for some of them
	$(BIN)/$(PYTEST) $(TESTS)

test-all: setup ## the slow, exhaustive suites too
	$(BIN)/$(PYTEST) -m "slow or not slow" $(TESTS)

campaign: setup ## random models, budgets and faults against plain torch, 20 000 steps; writes campaign.log
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.rematerialization.campaign --episodes 2600 --log campaign.log

test-lower: .venv-lower/.installed ## every dependency at its lower bound, torch's CUDA build included: 7 GB
	.venv-lower/bin/$(PYTEST) -W default::DeprecationWarning $(TESTS) # old releases meet newer ones that they need

test-newest: .venv-newest/.installed ## the newest release of every dependency
	.venv-newest/bin/$(PYTEST) $(TESTS)

test-core: .venv-core/.installed ## no extras, no peer libraries: what needs one is skipped, by name
	THETAONE_TEST_EXTRAS=none .venv-core/bin/$(PYTEST) $(or $(TESTS),tests)

test-float64: setup ## torch's default dtype is float64 in every test of a room that computes
	THETAONE_TEST_DTYPE=float64 $(BIN)/$(PYTEST) \
		$(or $(TESTS),tests/laws tests/parametrization tests/rematerialization tests/estimators tests/sweeps)

coverage: setup ## the default tests with lines counted; fails below the stored figure
	$(BIN)/$(PYTEST) --cov --cov-report=term:skip-covered $(TESTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

contracts: setup
	$(BIN)/lint-imports

docs: setup ## the documentation, in site/
	$(BIN)/zensical build --clean --strict # fails on a broken link or anchor

check: lint types contracts docs coverage gpu-dry-run ## everything that the gate runs

# Peers live beside the rest, so that no test meets them.
.venv-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt scripts/make_venv.sh
	$(MAKE_VENV) .venv-bench constraints.txt test,peers,plot,examples,ray
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/requirements.txt
	touch $@

bench: .venv-bench/.installed ## speed and memory beside the pinned peers, half an hour; BENCHES="norms sweeps" for some
	set -e; for name in $(BENCHES); do .venv-bench/bin/python benchmarks/bench_$$name.py; done
	.venv-bench/bin/python benchmarks/targets.py

bench-all: ## what the rates, searches, verdicts and intervals are worth too, hours
	$(MAKE) bench BENCHES="$(BENCHES) $(STUDIES)"

bench-compare: setup ## which figures of benchmarks/history moved since the run before
	$(BIN)/python benchmarks/compare.py

gpu-wheels: setup ## carry to .gpu-wheels what a CUDA machine with torch lacks
	PYTHON=$(BIN)/python bash scripts/gpu_wheels.sh .gpu-wheels

gpu-check: ## on a CUDA machine, no network needed, 8 minutes at most; writes out/gpu_check.json
	bash scripts/gpu_check.sh --out out/gpu_check.json

gpu-dry-run: setup ## the same at toy size, the CPU in place of the device
	PYTHON=$(BIN)/python bash scripts/gpu_check.sh --dry-run --out out/gpu_dry_run.json

fuzz: setup ## 10 000 wrong inputs to every command: none may raise, hang or leave anything behind
	$(BIN)/python scripts/fuzz.py --inputs 10000

release: setup ## VERSION=0.3.0 gathers changelog.d under it; builds dist/ and tries the wheel by itself
	PYTHON=$(PYTHON) BIN=$(BIN) bash scripts/release.sh $(VERSION)

clean:
	rm -rf .venv .venv-core .venv-lower .venv-newest .venv-bench dist site out .coverage .pytest_cache .ruff_cache .hypothesis
