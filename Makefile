# Everything that a person or CI does with this tree. Needs Python 3.11+, GNU make and, for what the tests want beyond
# Python, apt-get; the rest comes into .venv, pinned and hashed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

SYSTEM_PACKAGES = $(shell sed 's/\#.*//' deploy/packages/debian.txt)
# One more than CI has cores: many tests wait for real processes.
WORKERS ?= 3
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadscope

# timed,NAME,COMMAND: runs the command and says how long it took.
define timed
@start=$$SECONDS; $(2) || { echo "$(1): failed after $$((SECONDS - start)) s"; exit 1; }; echo "$(1): $$((SECONDS - start)) s"
endef

.PHONY: help demo test check lint format bench bench-simulation bench-crash bench-chaos venv lock system docs clean

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: venv ## broken VMs put right on this machine; ONCE=1 cleans all of them up and leaves nothing running
	@$(BIN)/oma demo $(if $(filter-out 0,$(ONCE)),--once)

test: lint system ## lint and the whole suite
	@$(PYTEST)

check: lint ## lint and the fast tests, under a minute
	@$(PYTEST) --quiet -m "not slow" tests/unit tests/arch

lint: venv ## ruff, mypy --strict, import-linter
	$(call timed,ruff check,$(BIN)/ruff check --quiet)
	$(call timed,ruff format,$(BIN)/ruff format --check --quiet)
	$(call timed,mypy,$(BIN)/mypy --no-error-summary)
	$(call timed,import-linter,$(BIN)/lint-imports --no-cache)

format: venv ## ruff's fixes and format
	@$(BIN)/ruff check --fix --quiet && $(BIN)/ruff format --quiet

bench: venv ## the table of benchmarks/
	@$(BIN)/python -m benchmarks

SEEDS ?= 10000
FIRST_SEED ?= 1
bench-simulation: venv ## whole runs on virtual time under seeded faults: SEEDS=… FIRST_SEED=…
	@$(BIN)/python -m benchmarks.simulation $(SEEDS) $(FIRST_SEED)

bench-chaos: venv ## real processes killed, paused and cut off, 200 rounds: ARGS="--rounds 20 --first-seed 1 --worlds 2"
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

bench-crash: venv ## every crash point x every way to die x both databases: ARGS="--way SIGKILL --database SQLite"
	@$(BIN)/python -m benchmarks.crash $(ARGS)

docs: venv ## the generated pages of docs/reference
	@$(BIN)/python -m docs.generate

system: ## the Debian packages that the tests want
	@deploy/packages/install.sh $(SYSTEM_PACKAGES)

venv: .venv/.project ## .venv with the pinned packages and this project

.venv/.created:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || deploy/packages/install.sh python3-venv
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.requirements: requirements/dev.txt .venv/.created
	@$(BIN)/python -m pip install --quiet --retries 10 --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@touch $@

.venv/.project: pyproject.toml .venv/.requirements
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $(if $(UPGRADE),--upgrade)
lock: .venv/.requirements ## requirements/*.txt from pyproject.toml; UPGRADE=1 takes the newest
	@$(COMPILE) pyproject.toml --output-file requirements/runtime.txt
	@$(COMPILE) --extra dev pyproject.toml --output-file requirements/dev.txt

clean: ## everything that was made
	@rm -rf .venv dist var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
