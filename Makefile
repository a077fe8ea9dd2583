# The front door: `make demo` shows the pool at work, `make test` proves it, `make check` is what CI runs.
# Needs Python 3.11 or newer with venv, make and a C compiler; everything else is installed into .venv.

PYTHON ?= python3
# What the demo or the benchmark is given, for example: make demo ARGS="--keep"
ARGS ?=
# Which plans of the fault simulator are run, for example: make faults SEEDS=17-17
SEEDS ?= 0-199
# A chaos run, for example: make chaos SEED=7 TRADES=10000 FAULTS=worker:5,restart, or FAULTS=each for one kind a run.
SEED ?= 1
TRADES ?= 100000
FAULTS ?= all
# How many audits of a large pool at work, for example: make audits RUNS=5
RUNS ?= 50
# How many tests run at once. More than there are cores: half of their time they wait for other processes.
JOBS ?= 3
UV ?= $(shell command -v uv || echo .venv/lock/bin/uv)

COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links --python-version 3.11

# All that gpu-test and gpu-bench need, beside Python, numpy and CuPy: a bare machine with a device gets these alone.
GPU_FILES := Makefile tradepool/__init__.py tradepool/errors.py tradepool/pnl tests/pnl_oracle.py tests/gpu \
  bench/gpu_marks.py

# Compiled modules are kept whatever the environment says: a fleet is many programs, each of which would compile anew.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
STAMP := .venv/.installed
GPU_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help setup demo prometheus test test-slow test-celery faults audits chaos soak gpu-test gpu-bench gpu-files check format format-check lint types layers lock docs clean python-version

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(STAMP) ## make .venv and install what requirements.lock pins

# Runs again only when a pin or the project's own description changed.
$(STAMP): requirements.lock pyproject.toml | python-version
	@$(PYTHON) -m venv .venv || { echo "make: $(PYTHON) cannot make a virtual environment; install its venv package (Debian: python3-venv)" >&2; exit 1; }
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

python-version:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: tradepool needs Python 3.11 or newer, but $(PYTHON) is $$({ $(PYTHON) --version || echo missing; } 2>/dev/null); name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }

demo: setup ## start a server and the fleet, feed it trades for half a minute, prove nothing was lost
	@$(BIN)/tradepool demo $(ARGS)

# Debian's own package, unpacked and not installed: no service, no root. Newer ones elsewhere do as well: what the
# tests run is what PROMETHEUS_BIN names, else this, else what is on the PATH.
APT_GET := apt-get -qq -o APT::Sandbox::User=root
prometheus: .venv/prometheus/usr/bin/promtool ## a real Prometheus for tests/monitoring, where apt-get is

.venv/prometheus/usr/bin/promtool: | setup
	@rm -rf .venv/prometheus && mkdir -p .venv/prometheus
	@cd .venv/prometheus && { $(APT_GET) download prometheus || { $(APT_GET) update && $(APT_GET) download prometheus; } || { \
	  echo "make: apt-get cannot find the package prometheus; run apt-get update, or set PROMETHEUS_BIN" >&2; exit 1; }; }
	@cd .venv/prometheus && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb

test: setup ## the tests, under five minutes on two cores
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow"

test-slow: setup ## the long tests alone
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m slow

test-celery: setup ## the fleet's tests, long ones too, with TRADEPOOL_BROKER_TRANSPORT=celery
	@TRADEPOOL_BROKER_TRANSPORT=celery $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile tests/fleet

faults: setup ## 200 seeds of writers against kills, crashes, full disks and cut wires: nothing lost, nothing doubled
	@$(BIN)/python -m tests.faults.simulator --seeds $(SEEDS)

chaos: setup ## a whole fleet at work against kills, restarts, stops and dead wires: see docs/reliability.md
	@$(BIN)/python -m tests.fleet.chaos --seed $(SEED) --trades $(TRADES) --faults $(FAULTS) $(ARGS)

soak: setup ## ten minutes of load on a fleet for 64 threads: does the memory of any process grow?
	@$(BIN)/python bench/soak.py $(ARGS)

audits: setup ## 50 audits at all levels of 100,000 trades while bots trade: none may find anything
	@$(BIN)/python -m tests.audit_runs --runs $(RUNS)

gpu-test: ## the checks of the CUDA backend on a machine with a device; see docs/gpu.md
	@$(GPU_PYTHON) -m tests.gpu

gpu-bench: ## how close marks on a device come to its memory's bandwidth
	@$(GPU_PYTHON) -m bench.gpu_marks $(ARGS)

gpu-files: ## the files that those two need, and no others
	@echo $(GPU_FILES)

check: format-check lint types layers test ## everything CI checks

format: setup ## rewrite the sources in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

format-check: setup
	@$(BIN)/ruff format --check --quiet . || { echo "make: some files are not formatted; run: make format" >&2; exit 1; }

lint: setup ## ruff, the compose files against their specification, the shell script's syntax
	@$(BIN)/ruff check .
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.gpu.yml
	@bash -n .ci/run

types: setup ## mypy, strict
	@$(BIN)/mypy

layers: setup ## imports go down only
	@$(BIN)/lint-imports --no-logo

# The second lock is what production runs: without the tools, at the versions that the tests ran with. The third
# adds what the benchmarks compare us with; the last two are production's with CuPy for a driver of CUDA 11 and 13.
lock: python-version ## pin every dependency again, with hashes, for every platform
	@test -x "$(UV)" || { $(PYTHON) -m venv .venv/lock && .venv/lock/bin/python -m pip --disable-pip-version-check install --quiet uv; }
	@$(COMPILE) --extra archive --extra embedded --extra fast --extra dev pyproject.toml -o requirements.lock
	@$(COMPILE) --extra archive --extra fast --constraints requirements.lock pyproject.toml -o requirements-run.lock
	@$(COMPILE) --extra bench --extra fast --constraints requirements.lock pyproject.toml -o requirements-bench.lock
	@$(COMPILE) --extra archive --extra fast --extra gpu --constraints requirements.lock pyproject.toml -o requirements-gpu.lock
	@$(COMPILE) --extra archive --extra fast --extra gpu13 --constraints requirements.lock pyproject.toml -o requirements-gpu13.lock

docs: setup ## write the table of settings into docs/operations.md
	@$(BIN)/python -m tests.tidy.settings_table

clean: ## remove everything make made; pool data is not touched
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
