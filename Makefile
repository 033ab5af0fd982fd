# Everything here works on a machine with only Python >= 3.10 and make: each target sets up .venv first.
.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast interop lint typecheck docs bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Two workers, one numeric thread each: torch would otherwise start a thread per core in every worker.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | \
		while IFS='|' read -r target text; do printf '  make %-11s %s\n' "$$target" "$$text"; done

# Reinstalls only when one of these changed; the install is editable, so the code itself is not among them.
$(INSTALLED): pyproject.toml constraints.txt scripts/setup.sh scripts/system_deps.sh scripts/system-packages.txt
	@PYTHON='$(PYTHON)' sh scripts/setup.sh $(VENV)
	@touch $@

setup: $(INSTALLED)  ## create .venv and install the package with its tools

quickstart: $(INSTALLED)  ## collect, train, plan, evaluate and write a report (into runs/quickstart)
	$(BIN)/swm quickstart --out runs/quickstart

test: $(INSTALLED)  ## run every test
	$(PYTEST)

test-fast: $(INSTALLED)  ## run the tests that take seconds
	$(PYTEST) -m 'not slow'

# 77: it cannot be installed here, for example under another version of Python, and says why.
interop: $(INSTALLED)  ## test what needs packages that do not fit in .venv: LeRobot, Craftax, PyFlyt's rocket
	@for script in lerobot optional_envs; do \
		sh tests/interop/$$script.sh || { status=$$?; test $$status -eq 77 || exit $$status; }; \
	done

lint: $(INSTALLED)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(INSTALLED)  ## check types
	$(BIN)/mypy

docs: $(INSTALLED)  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)  ## run the benchmarks, one after the other
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove .venv, caches and built files; runs/ stays
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
