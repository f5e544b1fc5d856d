# All set-up is done here: a virtual environment in the checkout, at the versions in constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test bench dist image image-test lint format constraints clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[airflow,kubernetes,scoring,pandas]' --group dev
	touch $@

demo: $(VENV)/installed ## score the demo data set through Airflow, with an S3 server on this machine
	$(BIN)/python -m demo

test: $(VENV)/installed ## run the test suite, but for what needs the image
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not image" --junitxml=build/tests.xml

bench: $(VENV)/installed ## measure speed, memory and import cost; takes half an hour, see benchmarks/README.md
	$(BIN)/python -m benchmarks

dist: $(VENV)/installed ## build the wheel and the source distribution into dist/
	$(BIN)/python -m hatchling build --directory dist

# Docker where its engine answers, else podman.
ENGINE ?= $(shell docker info > /dev/null 2>&1 && echo docker || echo podman)
DEVICE ?= cpu

image: ## build the scorer's container image; DEVICE=cuda for NVIDIA GPUs
	$(ENGINE) build --file docker/Dockerfile --build-arg DEVICE=$(DEVICE) --tag clip-operator .

image-test: $(VENV)/installed ## build the image without a registry, and test what runs in it
	$(BIN)/python -m pytest -m image --junitxml=build/image-tests.xml

lint: $(VENV)/installed ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy plugins/clip_operator demo docker tests benchmarks
	$(BIN)/lint-imports

format: $(VENV)/installed ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/installed ## write the installed versions to constraints.txt
	$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -v '^setuptools==' > constraints.new
	mv constraints.new constraints.txt

clean: ## remove the virtual environment and everything the demo and the tools made
	rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
