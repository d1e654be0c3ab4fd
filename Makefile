# Everything a person or the continuous integration does here. Needs Python 3.11 or newer, make and
# a package index; `.venv` makes itself, from the hashed pins in requirements/.

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PINNED := $(VENV)/.pinned
INSTALLED := $(VENV)/.installed

# Overridden from outside: `make PYTHON=/opt/python/bin/python3.12 test`, `make bench ARGS=--quick`.
PYTHON ?=
ARGS ?=
LOCK_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help demo test test-slow lint format gate coverage bench lab lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## Watch tasks survive the death of what runs them
	@$(BIN)/holdfast demo $(ARGS)

# Who names tests to run, `make test ARGS=tests/core`, does not wait for the gate.
test: lint $(if $(ARGS),,gate) ## Run all checks and all tests, as the continuous integration does
	@$(BIN)/python -m pytest $(ARGS)

test-slow: $(INSTALLED) ## Try far more of what can be made from the OpenAPI document
	@HOLDFAST_EXAMPLES=200 $(BIN)/python -m pytest tests/web/test_schema.py $(ARGS)

lint: $(INSTALLED) ## Check style, format, types and the arrows between the rooms
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Put the code into the format that lint asks for
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

gate: $(INSTALLED) ## See that their own tests reach every branch of the core and of the judges
	@$(GATE) erase
	@$(GATE) run -m pytest --quiet -p no:randomly --hypothesis-seed=0 \
		-k "not can_be" $(GATED_TESTS)
	@$(GATE) combine --quiet
	@$(GATE) report --fail-under=100 --include=$(GATED)

coverage: $(INSTALLED) ## Run all tests and show the lines and branches they miss
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(INSTALLED) ## Measure speed on this machine
	@$(BIN)/holdfast bench $(ARGS)

lab: $(INSTALLED) ## Kill what works for 90 s and judge what became of it: make lab ARGS="--seed 2"
	@$(BIN)/python -m holdfast.lab.killtest $(ARGS)

lock: $(INSTALLED) ## Make the pins again; LOCK_ARGS=--upgrade takes the newest versions
	@$(call compile,dev,--group dev)
	@$(call compile,base,--constraints requirements/dev.txt)

clean: ## Remove what tools and builds left; keeps .venv and the state in .holdfast
	@rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# What decides, and what judges: all else stands on these. The tests `…_can_be_altered` and
# `…_can_be_one_more` play others once more, which reaches nothing new.
GATE := COVERAGE_FILE=.coverage.gate $(BIN)/coverage
GATED := "*/holdfast/core/*,*/holdfast/model/*,*/lab/judgement.py,*/sim/judge.py,*/sim/charges.py,*/sim/lapses.py,*/sim/overdue.py"
GATED_TESTS := tests/core tests/model tests/lab/test_judgement.py tests/sim/test_judge.py \
	tests/sim/test_charges.py tests/sim/test_overdue.py

# One lock serves Python 3.11 to 3.13. The pins stay as they are unless LOCK_ARGS says --upgrade or
# pyproject.toml asks for others. No file names an index: that is the business of each machine.
compile = $(BIN)/uv pip compile pyproject.toml $(2) --output-file requirements/$(1).txt \
	--universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" --quiet $(LOCK_ARGS)

# Prints the first Python that is new enough, or says which were found and fails.
define find_python
found=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.14); do \
	version=$$("$$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) \
		|| continue; \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		python=$$candidate; break; \
	fi; \
	found="$$found $$candidate is $$version;"; \
done; \
if [ -z "$${python-}" ]; then \
	echo "Holdfast needs Python 3.11 or newer, but:$${found:- no Python was found;}" \
		"install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; \
fi
endef

# An environment that already works is kept and brought to the pins.
$(PINNED): requirements/dev.txt
	@if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		python=; $(find_python); \
		echo "Making $(VENV) with Python $$version"; \
		"$$python" -m venv --clear $(VENV) || { \
			echo "$$python has no working venv module (Debian and Ubuntu: python3-venv)" >&2; \
			exit 1; }; \
	fi
	@echo "Installing the pinned requirements"
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --require-hashes --requirement $<; \
	else \
		$(BIN)/python -m pip install --quiet --require-hashes --requirement $<; \
	fi
	@touch $@

$(INSTALLED): $(PINNED) pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
