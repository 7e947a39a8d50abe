# Two commands on a fresh machine: `make run` brings the service up, `make test` runs the tests. Both install what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST ?= $(BIN)/python -m pytest
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help .port run observe test test-faults test-observe test-charts test-images test-pods test-cluster golden check bench bench-peers format docs images lock clean

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

# said before anything is installed
.port:
	@! command -v $(PYTHON) >/dev/null || $(PYTHON) -c 'import os, socket; \
	host, _, port = (os.environ.get("BOBRAI_API_BIND") or "127.0.0.1:8001").rpartition(":"); \
	family = socket.AF_INET6 if ":" in host else socket.AF_INET; \
	socket.create_server((host.strip("[]"), int(port)), family=family)' 2>/dev/null || { \
	echo "bobrAI cannot listen on $${BOBRAI_API_BIND:-127.0.0.1:8001}; free that, or choose: make run BOBRAI_API_BIND=127.0.0.1:8011" >&2; exit 2; }

run: .port $(VENV)/.run  ## start the whole service on 127.0.0.1:8001, or BOBRAI_API_BIND, with nothing else to install
	@exec $(BIN)/bobrai dev $(ARGS)

observe: $(VENV)/.test  ## look at a loaded bobrAI in Prometheus, and in Grafana where Docker can have it, until Ctrl-C
	@exec $(BIN)/python -m tests.observe $(ARGS)

test: $(VENV)/.test  ## run the tests on real servers, all but faults, images and what watches them (ARGS="-k name" narrows them)
	-@$(BIN)/python -m tests.support.servers
	-@$(BIN)/python -m tests.charts.helm_binary
	-@$(BIN)/python -m tests.support.environments
	-@$(BIN)/python -m tests.support.programs
	$(PYTEST) -n 4 --dist loadgroup -m "not faults and not images and not pods and not observe" $(ARGS)

test-faults: $(VENV)/.test  ## kill, freeze, cut off and restart every part under load; a few minutes
	-@$(BIN)/python -m tests.support.servers
	$(PYTEST) -n 2 --dist worksteal -m faults $(ARGS)

test-observe: $(VENV)/.test  ## ask every dashboard's queries of a real Prometheus that scrapes a loaded installation; a minute
	-@$(BIN)/python -m tests.support.servers
	$(PYTEST) -m observe $(ARGS)

test-charts: $(VENV)/.test  ## the part of `make test` that is about the Helm chart
	$(BIN)/python -m tests.charts.helm_binary
	$(PYTEST) -n 2 --dist loadgroup tests/charts $(ARGS)

golden: $(VENV)/.test  ## write anew what the chart renders for each mode, to be read in the diff
	$(BIN)/python -m tests.charts.golden

test-images: $(VENV)/.test  ## build both images with the Docker engine that answers, and run them hardened
	-@$(BIN)/python -m tests.support.servers
	$(PYTEST) -m images $(ARGS)

test-pods: $(VENV)/.test  ## run a whole release in containers, each pod as the chart says (as root, with a Docker engine)
	$(PYTEST) -m pods $(ARGS)

test-cluster: $(VENV)/.test  ## try a whole release on the cluster of the current context, in a namespace of its own; ten minutes
	@$(BIN)/python -m tests.cluster $(ARGS)

check: $(VENV)/.test  ## ruff, mypy strict, import contracts, pages and schema that name every setting and value
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@for page in $(PAGES); do \
	  $(MAKE) --no-print-directory .page-$$page | diff -u docs/$$page.md - || { echo "docs/$$page.md is out of date: run 'make docs'"; exit 1; }; \
	done
	@$(BIN)/python -m tests.charts.values_docs --check
	@$(BIN)/python -m charts.dashboards --check

format: $(VENV)/.test  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test  ## write the pages, the schema and the dashboards that are made from the code and from values.yaml
	@for page in $(PAGES); do \
	  $(MAKE) --no-print-directory .page-$$page > .page.tmp && mv .page.tmp docs/$$page.md || { rm -f .page.tmp; exit 1; }; \
	done
	@$(BIN)/python -m tests.charts.values_docs
	@$(BIN)/python -m charts.dashboards

# Each is a page whose last table is what the command of the same name prints.
PAGES := settings metrics logs
.page-%:
	@sed '/^| \(variable\|metric\|event\) |/,$$d' docs/$*.md
	@$(BIN)/bobrai $* $(if $(filter settings,$*),--markdown)

VERSION  = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD 2>/dev/null)
REGISTRY ?= ghcr.io/bobrai
images:  ## build bobrai-api and bobrai-worker, tagged with the version, also as the chart asks for them (REGISTRY= for another)
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -f Dockerfile.api -t bobrai-api:$(VERSION) -t $(REGISTRY)/bobrai-api:$(VERSION) $(ARGS) .
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -f Dockerfile.worker -t bobrai-worker:$(VERSION) -t $(REGISTRY)/bobrai-worker:$(VERSION) $(ARGS) .

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate --custom-compile-command "make lock" $(ARGS)
lock: | $(BIN)/python  ## write down the exact versions that the images hold (ARGS=--upgrade for newer ones)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) pyproject.toml --extra api -o requirements/api.txt
	$(LOCK) pyproject.toml --extra worker -c requirements/api.txt -o requirements/worker.txt
	echo 'watchfiles>=1' | $(LOCK) - -c requirements/api.txt -o requirements/reload.txt
	echo 'setuptools>=77' | $(LOCK) - -o requirements/build.txt

bench: $(VENV)/.test  ## measure speed side by side, print a table, write bench-results/*.json
	$(BIN)/python -m tests.bench $(ARGS)

bench-peers: $(VENV)/.test  ## the same, with Dramatiq and Taskiq beside it
	$(BIN)/python -m tests.bench --peers $(ARGS)

clean:  ## remove what was made here, the data of `make run` included
	rm -rf $(VENV) .bobrai .make build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
