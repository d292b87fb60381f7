# make demo | test | test-slow | check: each makes or reuses .venv; nothing else is needed but Python 3.11+ and pip.
PYTHON ?= python3
BIN    := .venv/bin

.PHONY: demo test test-slow check clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/anomaly-ae train --normal 0,1,2
	$(BIN)/anomaly-ae evaluate
	@echo
	@echo "Where to look next:"
	@echo "  the figures    mlruns/runs/<run id>/figures/"
	@echo "  in a browser   $(BIN)/anomaly-ae ui"
	@echo "  other digits   $(BIN)/anomaly-ae train --normal all-but:7"

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/installed-dev
	$(PYTEST) -m "not slow"

test-slow: .venv/installed-dev
	$(PYTEST) -m slow

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A stamp file says what is installed; it is older than pyproject.toml when something has to be.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: anomaly-ae needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch .venv/installed $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
