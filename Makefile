PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED := 1

.PHONY: help setup setup-test demo check test schemas chaos clean bench-stream bench-serving

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("setup: needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'setup: no virtual environment can be made; on Debian, install python3-venv' >&2; exit 1; }

setup: $(BIN)/python  ## install what running needs into .venv
	@$(BIN)/python ops/setup/install.py

setup-test: $(BIN)/python  ## install what tests need as well
	@$(BIN)/python ops/setup/install.py --extras test

demo: setup  ## one whole turn of the wheel, in minutes
	@$(BIN)/deltawheel demo

check: setup-test  ## lint, types, import rules, unit tests: the fast ring
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 -m "not integration and not slow"

test: check  ## everything: the fast ring, then real servers
	$(BIN)/pytest -q -m "integration and not slow"

chaos: setup-test  ## two hundred kills on a real wheel; needs KAFKA_HOME
	@$(BIN)/deltawheel bench chaos

bench-stream: setup  ## pairs per second, latency and memory, with distilabel beside us
	@$(BIN)/deltawheel bench stream

bench-serving: setup-test  ## share of vLLM's pace that the wheel keeps, with vLLM's own client beside us
	@$(BIN)/deltawheel bench serving

schemas: setup-test  ## write the generated files anew
	$(BIN)/python -m deltawheel.contracts.generated

clean:  ## remove what demo and tests left
	rm -rf var .mypy_cache .pytest_cache .ruff_cache .hypothesis
