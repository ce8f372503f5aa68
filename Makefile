# What a person or a machine needs to try and to check jobpool: Python 3.11 or newer with its venv module, and make.
#
#   make demo    a real job, from its table to its collected result
#   make test    lint, types, import layers, tests (PYTEST_ARGS="-k retry" for some of the tests)
#   make lint    the first three of these
#   make faults  the fault suite's long sweeps and their table (FAULTS_ARGS="--only 4,17", FAULTS_ARGS=--quick)
#   make bench   jobpool and its peers, side by side (BENCH_ARGS="--works a,b --rounds 5", BENCH_ARGS=--quick)
#   make clean   remove what the others made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PYTEST_ARGS ?= -n 2

.PHONY: help demo test lint faults bench clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/examples.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" JOBPOOL_HOME="$(CURDIR)/.demo" sh examples/demo.sh

test: lint
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

faults: $(VENV)/test.stamp
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

bench: $(VENV)/made.stamp
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) .bench .demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	rm -f examples/*/*.csv examples/*/*.parquet
	find benchmarks examples jobpool_cli tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The environment is made anew when what it must hold has changed; otherwise a second run begins at once.
$(VENV)/examples.stamp: $(VENV)/made.stamp pyproject.toml jobpool_cli/version.py
	$(PIP) install --quiet --use-pep517 --editable '.[examples]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/made.stamp pyproject.toml jobpool_cli/version.py
	$(PIP) install --quiet --use-pep517 --editable '.[test]'
	@touch $@ $(VENV)/examples.stamp

$(VENV)/made.stamp:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: there is no $(PYTHON) here; name a Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: jobpool needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1);" \
	    "name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) lacks its venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@
