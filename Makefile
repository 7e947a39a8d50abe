# Two commands on a fresh machine: `make run` brings the service up, `make test` runs the tests. Both install what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-faults check bench bench-peers format docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "bobrAI needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@ $(VENV)/.run

run: $(VENV)/.run  ## start the whole service on 127.0.0.1:8001, with nothing else to install
	@exec $(BIN)/bobrai dev $(ARGS)

test: $(VENV)/.test  ## run the tests on real servers, all but the faults (ARGS="-k name" narrows them)
	-@$(BIN)/python -m tests.support.servers
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not faults" $(ARGS)

test-faults: $(VENV)/.test  ## kill, freeze, cut off and restart every part under load; a few minutes
	-@$(BIN)/python -m tests.support.servers
	$(BIN)/python -m pytest -n 2 --dist worksteal -m faults $(ARGS)

check: $(VENV)/.test  ## ruff, mypy strict, import contracts, docs that name every setting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory .settings-table | diff -u docs/settings.md - || { echo "docs/settings.md is out of date: run 'make docs'"; exit 1; }

format: $(VENV)/.test  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test  ## write the pages that are made from the code
	@$(MAKE) --no-print-directory .settings-table > .settings.tmp && mv .settings.tmp docs/settings.md || { rm -f .settings.tmp; exit 1; }

.settings-table:
	@sed '/^| variable/,$$d' docs/settings.md
	@$(BIN)/bobrai settings

bench: $(VENV)/.test  ## measure speed side by side, print a table, write bench-results/*.json
	$(BIN)/python -m tests.bench $(ARGS)

bench-peers: $(VENV)/.test  ## the same, with Dramatiq and Taskiq beside it
	$(BIN)/python -m tests.bench --peers $(ARGS)

clean:  ## remove what was made here, the data of `make run` included
	rm -rf $(VENV) .bobrai .make build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
