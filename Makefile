# Every target installs what it needs and can be interrupted and called again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile pyproject.toml --group build --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --quiet

.PHONY: help setup demo demo-edge demo-azure test test-whole story lint format lock bench bench-ingest bench-run bench-demo bench-check bench-airlock bench-serve bench-submit clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.runtime ## create .venv with the locked packages

demo: $(VENV)/.runtime ## the whole loop on this machine: private rows in, registered model out
	@$(BIN)/edgeml demo

demo-edge: $(VENV)/.dev ## the same on an edge VM, a real SSH server in namespaces of its own (as root)
	@$(BIN)/python -m tests.edge.vm -- $(BIN)/edgeml demo --target edge

demo-azure: $(VENV)/.dev ## the demo through a loopback Azure, every call of the SDK shown
	@$(BIN)/python -m tests.azure.demo

# The workers of pytest have every core already; a pool of threads in each of them costs a tenth more.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/.dev ## all tests; installs Node, Chromium and the rest where they are missing
	@$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

test-whole: export EDGEML_TEST_KILLS = 100
test-whole: export EDGEML_TEST_GRAPHS = 50
test-whole: export EDGEML_TEST_WHOLE = 1
test-whole: test ## all tests, also those of minutes: a VM that is booted, 200 kills, 50 random graphs

STORY ?= tests/story
story: export EDGEML_TEST_STORY = 1
story: export EDGEML_TEST_WHOLE = 1
story: $(VENV)/.dev ## the journey of a change through every workflow, on this machine; needs root
	@$(BIN)/python -m pytest -n 0 $(STORY) $(PYTEST_ARGS)

lint: $(VENV)/.dev ## style, types, pipelines
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/edgeml check --with-tools

format: $(VENV)/.dev ## rewrite the sources in the project's style
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: $(VENV)/.dev ## compile the locks anew from pyproject.toml
	@$(COMPILE) --extra dev -o requirements/dev.lock
	@$(COMPILE) --extra all -c requirements/dev.lock -o requirements/runtime.lock
	@$(BIN)/uv pip compile pyproject.toml --extra train --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet -c requirements/dev.lock -o environments/training/requirements.lock
	@# The image holds the server's packages alone: of the base ones it needs none.
	@$(BIN)/uv pip compile pyproject.toml --extra serve --python-platform linux --python-version 3.11 --generate-hashes \
		--no-emit-package pyyaml --no-emit-package pathspec --no-header --no-annotate --quiet \
		-c requirements/dev.lock -o environments/scoring/requirements.lock
	@$(BIN)/edgeml check --fix

bench: bench-run bench-ingest bench-demo bench-check bench-airlock bench-serve bench-submit ## all benchmarks (slow)

bench-ingest: $(VENV)/.dev ## ingest against a bare download
	@$(BIN)/python benchmarks/ingest.py

bench-run: $(VENV)/.dev ## edgeml run against other runners, then on large graphs and inputs
	@$(BIN)/python benchmarks/run.py
	@echo
	@$(BIN)/python benchmarks/scale.py

bench-airlock: $(VENV)/.dev ## the whole leak suite against the egress gate and other scanners
	@$(BIN)/python benchmarks/airlock.py

bench-demo: $(VENV)/.dev ## where the seconds of `make demo` go
	@$(BIN)/python benchmarks/demo.py

bench-submit: $(VENV)/.dev ## `edgeml submit` against the loopback Azure, then a thousand faults
	@$(BIN)/python benchmarks/submit.py

bench-check: $(VENV)/.dev ## how long `edgeml check` takes, and what it finds that the SDK does not
	@$(BIN)/python benchmarks/check.py

bench-serve: $(VENV)/.dev ## the scoring server against other servers, and the HTTP libraries it could stand on
	@$(BIN)/python benchmarks/serve.py
	@echo
	@$(BIN)/python benchmarks/serve_libraries.py

clean: ## remove .venv and .edgeml, with the embedded storage and all runs in it
	@test ! -x $(BIN)/edgeml || $(BIN)/edgeml storage stop
	@rm -rf $(VENV) .edgeml

$(VENV)/.installer: requirements/installer.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgeml needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "edgeml: this Python cannot make virtual environments; install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@# Python 3.11 puts setuptools beside pip: no lock names it, and it makes every Python start a millisecond later.
	@$(BIN)/python -m pip uninstall --quiet --yes --disable-pip-version-check setuptools 2>/dev/null || true
	@echo "installing the locked packages into $(VENV) (once, about 900 MB)" >&2
	@# uv is five times faster; where it cannot be had, pip does the same work below.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< 2>/dev/null || true
	@touch $@

$(VENV)/.runtime: $(VENV)/.installer requirements/runtime.lock pyproject.toml
	@$(call install,requirements/runtime.lock)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@$(call install,requirements/dev.lock)
	@# Compiled at once: where Python may not write bytecode, every process of a test would compile MLflow anew. (uv's
	@# own way compiles only what it has just installed, so not the packages of the runtime.)
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib edgeml
	@touch $@

define install
{ $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1) 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1); } \
&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . \
|| { echo "edgeml: the locked packages could not be installed, see above; check network and disk and call make again" >&2; exit 1; }
endef
