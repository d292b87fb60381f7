# make demo | test | test-slow | check | docs | build: makes or reuses .venv; all else it needs is Python 3.11+ and pip.
PYTHON ?= python3
BIN    := .venv/bin
SHELL  := bash

.PHONY: demo test test-slow check docs build clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/anomaly-ae train --normal 0,1,2 && echo "trained in $$SECONDS s"
	$(BIN)/anomaly-ae evaluate && echo "evaluated in $$SECONDS s"
	@echo
	@echo "Where to look next:"
	@echo "  the figures    mlruns/runs/<run id>/figures/"
	@echo "  in a browser   $(BIN)/anomaly-ae ui"
	@echo "  other digits   $(BIN)/anomaly-ae train --normal all-but:7"

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/installed-dev
	$(PYTEST) -m "not slow"

test-slow: .venv/installed-dev
	$(PYTEST) -m slow

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MKDOCS)

docs: .venv/installed-dev
	$(MKDOCS)
	@echo "site/index.html is the front page"

build: $(BIN)/pyproject-build
	rm -rf dist
	$(BIN)/pyproject-build

# A stamp file says what is installed; it is older than pyproject.toml when something has to be.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: anomaly-ae needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

# Of what pip says, what is large and comes from the network, or was kept by pip when it last did. Most of what it installs
# is never loaded, and need not be compiled.
LARGE   := awk '/(Downloading|Using cached) .*([0-9][0-9][0-9]\.[0-9] M|G)B\)/ { print; fflush() }'
INSTALL := set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --no-compile

.venv/installed: pyproject.toml | .venv/bin/python
	@echo "installing into .venv: 3 GB to download unless pip has kept them, 6 GB on disk; a minute, or several …"
	@$(INSTALL) --editable . | $(LARGE) && echo "installed in $$SECONDS s"
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	@echo "installing into .venv, with what the tests need: 7 GB on disk; a minute, or several …"
	@$(INSTALL) --editable '.[dev]' | $(LARGE) && echo "installed in $$SECONDS s"
	@touch .venv/installed $@

$(BIN)/pyproject-build: | .venv/bin/python
	$(INSTALL) --quiet 'build>=1.2,<2'

clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
