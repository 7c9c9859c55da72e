# `make` lists the tasks. `make demo` and `make test` work as the first command on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
SETUP := $(BIN)/pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types docs bench wheel clean

help:  ## list the tasks
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; try make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv (about 6 GB with PyTorch's CUDA libraries, some minutes) ..."
	@$(PYTHON) -m venv .venv
	@$(SETUP) --editable .
	@touch $@

.venv/ready-dev: .venv/ready
	@echo "Adding the test tools ..."
	@$(SETUP) --editable '.[dev]'
	@touch $@

install: .venv/ready  ## set up .venv with the hrnet command

demo: .venv/ready  ## set up, then draw the skeletons of the people in two real photos
	@echo "Detector and model are the starters inside the package: good for large people, not for"
	@echo "crowds and small ones. 'hrnet download-weights' fetches the full models."
	@$(BIN)/hrnet detect examples/astronaut.jpg .venv/lib/python3*/site-packages/ultralytics/assets/bus.jpg \
	  --detector starter-detector --model starter --flip-test --skeleton --out hrnet-out/demo --overwrite
	@echo "Look at hrnet-out/demo/bus.jpg and hrnet-out/demo/astronaut.jpg"

# The networks of the tests are small: more threads would only wait for each other.
test: .venv/ready-dev  ## set up, then run all tests
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: .venv/ready-dev  ## style, spelling and who may import whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@$(BIN)/lint-imports

types: .venv/ready-dev  ## static types
	@$(BIN)/pyright

docs: .venv/ready-dev  ## bring the help texts in docs/commands.md up to date
	@$(BIN)/python docs/generate.py

bench: .venv/ready-dev  ## time start-up, stages and memory on this machine
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

wheel: .venv/ready-dev  ## build the wheel and try it in an empty environment without the test tools
	@rm -rf dist build && $(BIN)/python -m build --wheel --outdir dist .
	@$(PYTHON) -m venv build/venv
	@build/venv/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	@cd build && venv/bin/hrnet --help && venv/bin/hrnet download-weights --list
	@cd build && venv/bin/hrnet detect ../examples/astronaut.jpg --detector starter-detector \
	  --model starter --offline --skeleton --out out

clean:  ## remove .venv and everything built
	@rm -rf .venv build dist hrnet-out .pytest_cache .ruff_cache .hypothesis .import_linter_cache
