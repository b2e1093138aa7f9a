# Every target makes .venv first, if it isn't there or pyproject.toml has changed.
PYTHON ?= python3
BIN := .venv/bin
# What the commands of `make demo`, `make test-compat`, `make unit` and `make pytest` are given.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help environment demo test test-ui test-compat check pytest unit bundle format bench mutants release clean

help: ## say what there is to make
	@echo "make TARGET [PYTHON=python3.12] [ARGS=…]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'

environment: ## make .venv: Open WebUI and the tools for the tests
	@$(PYTHON) scripts/setup_environment.py

demo: environment ## show the filter in a real Open WebUI (ARGS=--check: test it, leave nothing)
	@$(BIN)/python -m scripts.demo $(ARGS)

test: check pytest ## everything: checks, unit tests, tests against a real Open WebUI

test-compat: environment ## what works on older versions of Open WebUI (ARGS="0.11 --keep")
	@$(BIN)/python -m scripts.compat $(ARGS)

check: environment ## lint, format, types, and whether the pasted file is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings helpers/openwebui/page/page.js
	$(BIN)/deno check --quiet --no-remote --no-npm --no-lock --config helpers/openwebui/page/deno.json \
		helpers/openwebui/page/page.js
	$(BIN)/python -m scripts.bundle --check

pytest: environment ## the tests alone (ARGS="-k stop": some of them)
	$(BIN)/python -m pytest $(ARGS)

unit: environment ## the quick tests of helpers/, in less than a minute
	$(BIN)/python -m pytest -m "not server and not slow" $(addprefix tests/,limits metering ledger openwebui) $(ARGS)

test-ui: environment ## the valves form and the chat page in Chromium (PICTURES=docs/images: pictures)
	$(BIN)/python -m pytest tests/ui $(ARGS)

bundle: environment ## write filter_usage_limits.py anew from helpers/
	$(BIN)/python -m scripts.bundle

format: environment ## format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: environment ## measure: how fast a check is, how good an estimate
	$(BIN)/python -m scripts.bench $(ARGS)

mutants: environment ## change the code a little, and see which tests notice (ARGS=helpers/limits)
	$(BIN)/python -m scripts.mutants $(ARGS)

release: environment ## put the pasted file, the wheel and their checksums into dist/
	$(BIN)/python -m scripts.bundle --check
	rm -rf dist && mkdir dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	cp filter_usage_limits.py dist/
	cd dist && sha256sum * > SHA256SUMS

clean: ## remove .venv and everything that tools have cached
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
