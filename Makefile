# One place for every routine command; .ci/run and the CI workflow call these targets.
# Needs Python >= 3.11 with pip, and make. Everything is installed into .venv, again when pyproject.toml changes.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# -qq: errors only.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
RUNTIME := -e ".[cli,server,fast]"

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.runtime ## Replay two weeks of flights through an embedded NATS server.
	@$(BIN)/streamflow demo

.PHONY: test
test: $(VENV)/.dev ## Run the test suite, the real NATS server included.
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: chaos
chaos: $(VENV)/.dev ## Kill processes and servers under a pipeline for some minutes, and compare with the model.
	STREAMFLOW_CHAOS=1 $(BIN)/python -m pytest tests/chaos -s

.PHONY: check
check: lint types layers site ## Run every static check: lint, types, layers, site.

.PHONY: lint
lint: $(VENV)/.dev ## Check style and format with ruff.
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: format
format: $(VENV)/.dev ## Repair what ruff can repair.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: types
types: $(VENV)/.dev ## Check types with mypy --strict and pyright.
	$(BIN)/mypy --strict
	$(BIN)/pyright

.PHONY: layers
layers: $(VENV)/.dev ## Check that imports follow the layers.
	$(BIN)/lint-imports --no-logo

.PHONY: site
site: $(VENV)/.dev ## Build the documentation into site/, strictly.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: docs
docs: $(VENV)/.dev ## Serve the documentation while you write it.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

.PHONY: bench
bench: $(VENV)/.peers ## Measure streamflow beside its peers.
	@$(BIN)/streamflow bench

.PHONY: clean
clean: ## Remove the environment and everything built.
	rm -rf $(VENV) build dist site docs/operators.md docs/connectors.md docs/pictures .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find streamflow tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ------------------------------------------------------------------------------------
# A Python without ensurepip (some Linux distributions) builds the environment with the pip outside it.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "streamflow needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@$(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml
	@echo "Installing streamflow"
	@$(PIP) install $(RUNTIME)
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	@echo "Installing streamflow and the development tools"
	@$(PIP) install $(RUNTIME) --group dev
	@touch $@ $(VENV)/.runtime

# Wheels only, one at a time: a peer that has none here is named and left out, and `streamflow bench` says so too.
$(VENV)/.peers: $(VENV)/.dev
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["peers"], sep="\n")' \
	| while read -r peer; do \
		echo "Installing $$peer"; \
		$(PIP) install --only-binary :all: "$$peer" 2>$(VENV)/peer.log || \
			echo "  left out: $$(tail -n 1 $(VENV)/peer.log)"; \
	done
	@touch $@
