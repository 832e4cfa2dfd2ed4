# `make demo`, `make check` and `make test` set up .venv by themselves, then do their job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# For fewer epochs or tests: make demo DEMO=:seeds=1,epochs=1, make test TESTS=tests/test_memory.py
DEMO :=
TESTS :=

# For more faults: make faults FAULTS=1000
FAULTS := 200

.PHONY: demo check test docs results faults

# Four methods on digits, and what they saved and lost.
demo: $(INSTALLED)
	rm -rf runs/demo
	$(BIN)/python -m experiments.sweep --sweep=configs/sweeps/demo.py$(DEMO) --workdir=runs/demo
	$(BIN)/python -m experiments.report --workdir=runs/demo

# Lint, format and types.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A worker that crashes ends the tests: xdist, given another in its place, waits for ever at the end.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 $(TESTS)

# Breaks runs on purpose, an hour or more; see docs/faults.md.
faults: $(INSTALLED)
	$(BIN)/python -m experiments.faults campaign --faults=$(FAULTS) --workdir=runs/faults

# The documentation as a site that is read from the disk, build/docs/index.html. A broken link ends it.
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo build/docs/index.html

# Every table and plot of experiments/results from its archives of runs.
results: $(INSTALLED)
	for set in experiments/results/runs/*.tar.xz; do \
	  out=experiments/results/$$(basename $$set .tar.xz); \
	  $(BIN)/python -m experiments.report --workdir=$$set --out=$$out || exit 1; \
	done
	$(BIN)/python -m experiments.studies.picture --out=docs/images/tradeoff.svg

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dynsel_jax needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
