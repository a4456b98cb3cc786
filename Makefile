# The same targets run on a newcomer's machine and in CI. `make demo` and `make test` need nothing
# before them: the virtual environment is made at first use and kept.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready
ONLY   ?=
DEVICE ?=
JOBS   ?= 2
SECONDS ?= 60
SEED    ?= 1
BROKER  ?= tansu
WORKERS ?= 3
DATA    ?=

.DEFAULT_GOAL := help
.PHONY: help setup check test chaos bench evaluate demo serve clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything in it (the other targets do it, too)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[embedded]" --group dev
	@touch $(READY)

check: $(READY) ## Lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests wait for services more than they compute, so two processes share them, file by file; the
# slow ones of tests/chaos come first.
test: $(READY) ## All tests; what cannot run here is skipped and said so
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(READY) ## Kill things while events flow; SECONDS=60 SEED=1 BROKER=tansu or kafka
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED) --broker $(BROKER) --workers $(WORKERS) $(ARGS)

# One benchmark on a GPU installs nothing: the machine's own torch and numpy are enough for it.
bench: $(if $(and $(ONLY),$(filter cuda,$(DEVICE))),,$(BENCH_READY)) ## Benchmarks; ONLY=name for one, DEVICE=cuda
	@python=$(BIN)/python; test -x $$python || python=$(PYTHON); \
	  $$python -m benchmarks $(ONLY) $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

evaluate: $(READY) ## Train and evaluate on DATA=folder; writes benchmarks/quality.json
	@$(BIN)/python -m benchmarks.quality $(DATA) $(ARGS)

$(BENCH_READY): $(READY) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $(BENCH_READY)

demo: $(READY) ## Everything on this machine with a sample log; ARGS=--once to exit when through
	@$(BIN)/interest demo $(ARGS) || { code=$$?; test $$code -eq 130 || exit $$code; }

serve: $(READY) ## The HTTP API against the services of the settings
	@$(BIN)/interest serve

clean: ## Remove .venv and caches
	rm -rf $(VENV) benchmarks/out .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
