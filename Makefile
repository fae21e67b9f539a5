# Needs Python >= 3.11 with venv, git and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test unit integration lint types schemas bench lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## make .venv with stoploss in it

.venv/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; name another: make setup PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## real recorded sessions through a real Kafka, with a live view
	$(BIN)/stoploss demo $(ARGS)

test: setup ## every test
	$(BIN)/python -m pytest $(ARGS)

unit: setup ## the tests that need no broker
	$(BIN)/python -m pytest tests/unit $(ARGS)

integration: setup ## the tests on the real broker
	$(BIN)/python -m pytest tests/integration $(ARGS)

lint: setup ## ruff and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup ## mypy --strict
	$(BIN)/mypy

schemas: setup ## write schemas/generated anew
	$(BIN)/python -m schemas.generate

bench: setup .venv-peers/.installed ## figures, side by side with quix-streams
	$(BIN)/python -m bench $(ARGS)

# An environment of their own: the peers want other versions of what we pin.
.venv-peers/.installed: pyproject.toml
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check quixstreams==3.28.1 orjson
	@touch $@

lock: ## write requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --group dev pyproject.toml --output-file requirements.txt

clean: ## remove what was installed and generated here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
