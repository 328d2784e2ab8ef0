# Everything runs in .venv, which `tools/setup.sh` makes from a lock file and leaves alone while
# that lock file, pyproject.toml and the Python it was made with stay the same.
# Another interpreter: make setup PYTHON=/path/to/python3.12

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Extra arguments, for example: make unit ARGS="-k manifest -x", make bench ARGS="warm cold"
ARGS ?=
# Modules share a node each, so a module stays in one process. For one at a time: AT_ONCE=
AT_ONCE ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Compiles one lock file; the rest of the command names the groups and the output.
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url \
	--no-annotate --python-version 3.11 --universal pyproject.toml

export PYTHON
# Tests start Python a thousand times: it shall not compile our files each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check unit e2e fuzz bench setup setup-bench lock clean help

demo: setup ## start a node, deploy the examples, call them, stop and clean up
	@$(BIN)/python -m tools.demo $(ARGS)

test: check unit e2e ## everything that must pass before a commit

check: setup ## formatting, lint, types and import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## tests of one package at a time, with real files, databases and guests
	@command -v npm >/dev/null || tools/debian.sh nodejs npm
	@tools/debian.sh rustc libstd-rust-dev-wasm32 lld wasi-libc
	$(BIN)/pytest $(AT_ONCE) tests/unit $(ARGS)

e2e: setup ## tests of the whole: `isopod up`, the command line and HTTP
	@tools/debian.sh postgresql mariadb-server redis-server pgbouncer
	@tools/debian.sh rustc libstd-rust-dev-wasm32 lld wasi-libc
	@command -v npm >/dev/null || tools/debian.sh nodejs npm
	$(BIN)/pytest $(AT_ONCE) tests --ignore=tests/unit $(ARGS)

fuzz: setup ## ten minutes of hostile inputs for each target; ARGS="--minutes 1 manifest"
	@$(BIN)/python -m tools.fuzz $(ARGS)

bench: setup-bench ## figures beside their targets, against gunicorn; see bench/results/
	@$(BIN)/python -m bench.run $(ARGS)

setup: ## make or refresh .venv (quick when nothing changed)
	@tools/setup.sh requirements-dev.lock

setup-bench:
	@tools/debian.sh bubblewrap crun nginx-light postgresql
	@tools/setup.sh requirements-bench.lock

lock: setup ## resolve the lock files again (add ARGS=--upgrade for newer versions)
	$(COMPILE) $(ARGS) --output-file requirements.lock
	$(COMPILE) $(ARGS) --group dev --output-file requirements-dev.lock
	$(COMPILE) $(ARGS) --group dev --group bench --output-file requirements-bench.lock

clean: ## remove .venv and everything made in the checkout; shared caches stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@echo "isopod: the first two commands are \`make demo\` and \`make test\`."
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
