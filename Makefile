# `make demo` trains a small model from nothing on any machine; `make test` is what CI runs.
VENV ?= .venv
KIND ?= # cpu or cuda; found by itself when empty
PYTHON ?= # interpreter for a new environment
PYTEST_ARGS ?=
WORKERS ?= 2# processes that share the tests; each takes a core and up to 8 GB, 0 is none beside pytest's own

PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest -q -n $(WORKERS)
CODE := rayrlhf jobs tests benchmarks tools data
HAVE := $(wildcard $(CODE))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## locked requirements and rayrlhf into VENV (default .venv), about 6 GB
	@PYTHON="$(strip $(PYTHON))" requirements/install.sh $(VENV) $(strip $(KIND))

demo: install ## SFT, reward model and PPO on a small model, on this machine
	@$(PY) jobs/demo.py

test: install lint ## lint and the whole test suite
	@$(PYTEST) $(PYTEST_ARGS)

test-fast: install lint ## lint and all tests that start no cluster and simulate no faults
	@$(PYTEST) -m "not (ray or e2e or faults or gpu or peer)" $(PYTEST_ARGS)

lint: install ## ruff and mypy
	@$(PY) -m ruff check $(HAVE)
	@$(PY) -m ruff format --check --quiet $(HAVE) || { $(PY) -m ruff format --check $(HAVE); exit 1; }
	@$(PY) -m mypy

format: install ## what ruff can fix by itself
	@$(PY) -m ruff check --fix $(HAVE)
	@$(PY) -m ruff format $(HAVE)

clean: ## remove caches and build output; keeps .venv and runs
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build rayrlhf.egg-info
	find $(HAVE) -name __pycache__ -type d -prune -exec rm -rf {} +
