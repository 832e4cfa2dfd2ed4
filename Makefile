# `make demo` and `make test` set up .venv by themselves, then do their job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint results

demo: $(INSTALLED)
	rm -rf runs/demo
	$(BIN)/python -m experiments.train --config=configs/digits.py --workdir=runs/demo

# A worker that crashes ends the tests: xdist, given another in its place, waits for ever at the end.
test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist=loadfile --max-worker-restart=0

# Every table and plot of experiments/results from its archives of runs.
results: $(INSTALLED)
	for set in experiments/results/runs/*.tar.xz; do \
	  out=experiments/results/$$(basename $$set .tar.xz); \
	  $(BIN)/python -m experiments.report --workdir=$$set --out=$$out || exit 1; \
	done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dynsel_jax needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
