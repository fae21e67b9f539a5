# Needs Python >= 3.11 with venv, git and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-strip-extras

.PHONY: help setup demo test unit integration faults lint types schemas check bench compiled lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'ARGS is passed on: make demo ARGS=--once, make unit ARGS="-k ladder"; PYTHON names another Python'

setup: .venv/.installed ## make .venv with stoploss in it

.venv/.installed: requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null \
		|| { echo "$(PYTHON) is not installed; name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; name another: make setup PYTHON=python3.12" >&2; exit 1; }
# A half-made .venv would look finished the next time.
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## real recorded sessions through a real Kafka, with a live view
	$(BIN)/stoploss demo $(ARGS)

test: setup ## every test
	$(BIN)/python -m pytest $(ARGS)

unit: setup ## the tests that need no broker
	$(BIN)/python -m pytest tests/unit $(ARGS)

integration: setup ## the tests on the real broker
	$(BIN)/python -m pytest tests/integration $(ARGS)

faults: setup ## kills, cuts and restarts for minutes: make faults ARGS="--minutes 60"
	$(BIN)/python -m tests.faults $(ARGS)

lint: setup ## ruff and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup ## mypy --strict
	$(BIN)/mypy

schemas: setup ## write schemas/generated anew
	$(BIN)/python -m schemas.generate

check: setup ## are the files in schemas/generated current
	$(BIN)/python -m schemas.generate --check

bench: setup .venv-peers/.installed compiled ## figures, side by side with the peers
	$(BIN)/python -m bench $(ARGS)

# An environment of their own: the peers want other versions of what we pin.
.venv-peers/.installed: Makefile
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check quixstreams==3.28.1 \
		faust-streaming==0.15.3 aiokafka==0.14.0 uvloop orjson
	@touch $@

compiled: setup ## the fold as machine code, in build/compiled, held against its sources
	$(BIN)/python -m bench.compiled

# Without the extras pip looks for `coverage[toml]` itself, and a new release then breaks every setup.
lock: setup ## write the locked requirements anew from pyproject.toml
	$(COMPILE) --group dev pyproject.toml --output-file requirements.txt
	$(COMPILE) --constraint requirements.txt pyproject.toml --output-file requirements-runtime.txt
	$(COMPILE) --constraint requirements.txt --group build --output-file requirements-build.txt

clean: ## remove what was installed and generated here
	rm -rf .venv .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist
