# Everything here works on a fresh clone with Python 3.11+ and make: the first target makes .venv and
# installs into it (minutes: PyTorch is large); later calls find it there and start at once.
#
#   make demo ARGS="--preset diff-scm"      arguments for the command behind a target
#   make bench BENCH=tables ARGS=--quick    one of the scripts in benchmarks/
#   make test PYTHON=/opt/python3.12        another interpreter (first call only)

PYTHON ?= python3
ARGS ?=
BENCH ?= tables

# A process for each core; PARALLEL= runs the tests in one.
PARALLEL ?= -n logical --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
# A stamp is newer than pyproject.toml when what that file asks for is installed.
INSTALLED := $(VENV)/installed
INSTALLED_DEV := $(VENV)/installed-dev

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-lowest test-newest mutants check docs format bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Draw counterfactuals of handwritten digits with the gallery model
	$(BIN)/causalgen demo $(ARGS)

test: $(INSTALLED_DEV) ## Run the tests
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-slow: $(INSTALLED_DEV) ## Run the tests that take minutes each
	$(BIN)/python -m pytest -m slow $(PARALLEL) $(ARGS)

test-lowest: ## Run the tests with the lowest versions that pyproject.toml admits
	$(PYTHON) tests/versions.py lowest $(PARALLEL) $(ARGS)

test-newest: ## Run the tests with the newest ones
	$(PYTHON) tests/versions.py newest $(PARALLEL) $(ARGS)

mutants: $(INSTALLED_DEV) ## Change the engine's code here and there, and see whether a test notices (hours)
	$(BIN)/python -m pip install -q -e ".[mutation]"
	$(BIN)/python tests/mutation.py $(ARGS)

check: $(INSTALLED_DEV) ## Check format, lint, types, imports and docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory docs

docs: $(INSTALLED_DEV) ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

format: $(INSTALLED_DEV) ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED_DEV) ## Run the benchmark BENCH (of tables) and save its results
	$(BIN)/python benchmarks/$(BENCH).py $(ARGS)

clean: ## Remove .venv and everything built
	rm -rf $(VENV) .versions .mutants build dist docs/_build .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find benchmarks causalgen docs graphs mechanisms tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	$(call install,.)
	@touch $@

$(INSTALLED_DEV): pyproject.toml
	$(call install,.[dev$(comma)docs])
	@touch $(INSTALLED) $@

# $(1): what pip installs, in editable form. A .venv without a working Python is made anew.
comma := ,
define install
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in "$(PYTHON)" python3.13 python3.12 python3.11 python3.14; do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
				echo "Making $(VENV) with $$python: $$("$$python" --version)"; \
				"$$python" -m venv --clear $(VENV) && exit 0; \
				echo "$$python cannot make virtual environments: see above (Debian: install python3-venv)." >&2; \
				exit 1; \
			fi; \
		done; \
		echo "causalgen needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 || true)" >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@echo "Installing causalgen and what it needs into $(VENV) (a few minutes the first time)"
	$(BIN)/python -m pip install -e "$(1)"
endef
