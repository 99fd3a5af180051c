# setup · reproduce · reproduce-all · benchmark · test · test-lowest · test-crash · lint · lab · lock: each a line or two of real tools.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
READY := $(VENV)/.ready
UV := $(VENV)/uv/bin/uv
DATASET ?=
# Where the clips of a real set lie; data/<set> of the project by default.
ROOT ?=
# PROFILE=paper DATASET=mafw is the profile paper-mafw.
PROFILE ?= demo
# As they were given, whatever characters they have: make reads them no second time, and a shell gets them from the
# environment.
override DATASET := $(value DATASET)
override ROOT := $(value ROOT)
override PROFILE := $(value PROFILE)
ifneq ($(and $(filter paper,$(PROFILE)),$(filter-out dfew,$(DATASET))),)
override PROFILE := paper-$(DATASET)
endif
# nproc would obey the variable below.
JOBS ?= $(shell env -u OMP_NUM_THREADS nproc)
export PROFILE JOBS
export ADATOSK_ROOT := $(ROOT)

# Two runs of one thread each beat one run of two threads: the models are small.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export PYTHONUNBUFFERED := 1

.PHONY: help setup reproduce reproduce-all benchmark test test-lowest test-crash lint lab notebooks lock

help:
	@echo "make reproduce   set up, make the data, train, evaluate, execute the notebooks, print the table"
	@echo "make reproduce-all   every table and figure, over all seeds; hours on two cores, goes on where it was cut off"
	@echo "make benchmark   seconds and memory beside VideoMAE's, into results/benchmark"
	@echo "make test        set up, lint, unit tests and notebooks"
	@echo "make test-lowest   unit tests with the oldest versions that pyproject.toml declares; downloads some GB"
	@echo "make test-crash  a kill and a full disk at every file operation of training, caching and rendering; minutes"
	@echo "make lab         JupyterLab on the notebooks"
	@echo "make notebooks   execute the notebooks in place and keep the outputs"
	@echo "make lock        resolve pyproject.toml anew into requirements.lock"

setup: $(READY)

# uv stands beside the environment, so that neither ensurepip nor a writable system Python is needed. Without --no-config it
# would take the constraint in pyproject.toml for a requirement without a hash.
$(UV):
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target $(VENV)/uv uv==0.13.8

$(READY): $(UV) requirements.lock pyproject.toml
	$(UV) pip install --python $(BIN)/python --no-config --require-hashes --requirement requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	touch $@

# Snakemake's own lock would outlive a run that is killed; the Snakefile has another.
SNAKEMAKE := $(BIN)/python -m snakemake --cores "$$JOBS" --nolock --rerun-incomplete --rerun-triggers mtime --quiet rules
REPORT := $(BIN)/adatosk report --profile "$$PROFILE" $(if $(filter demo,$(PROFILE)),--readme)

reproduce: setup
	$(SNAKEMAKE) --config profile="$$PROFILE"
	$(REPORT)

reproduce-all: setup
	$(SNAKEMAKE) --keep-going --config profile="$$PROFILE" grid=all
	$(REPORT)

benchmark: setup
	OMP_NUM_THREADS=$(JOBS) $(BIN)/adatosk benchmark --model --sweeps
	OMP_NUM_THREADS=$(JOBS) $(BIN)/adatosk benchmark --loader
	OMP_NUM_THREADS=$(JOBS) $(BIN)/adatosk benchmark --decoding

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --nbval-lax tests notebooks

test-crash: setup
	$(BIN)/python -m pytest -n $(JOBS) -m crash tests/test_crashes.py

test-lowest: $(UV)
	$(UV) venv --no-config --quiet --clear --python 3.11 $(LOWEST)
	$(UV) pip compile --no-config --quiet --resolution lowest-direct --python-version 3.11 --all-extras --no-header \
		--no-annotate pyproject.toml --output-file $(LOWEST)/requirements.txt
	$(UV) pip install --no-config --python $(LOWEST)/bin/python --requirement $(LOWEST)/requirements.txt
	$(UV) pip install --no-config --python $(LOWEST)/bin/python --no-deps --editable .
	PATH="$(CURDIR)/$(LOWEST)/bin:$(CURDIR)/$(VENV)/uv/bin:$$PATH" \
		$(LOWEST)/bin/python -m pytest -n $(JOBS) --dist loadfile tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

lab: setup
	$(BIN)/jupyter lab --notebook-dir notebooks

notebooks: setup
	rm -rf results/smoke
	$(BIN)/python -c "from adatosk.workspace import open_workspace; open_workspace('smoke').split('train')"
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute --ClearMetadataPreprocessor.enabled=True \
		--ClearMetadataPreprocessor.preserve_cell_metadata_mask='[("tags",)]' \
		--ClearMetadataPreprocessor.preserve_nb_metadata_mask='[("kernelspec",), ("language_info", "name"), ("adatosk",)]' notebooks/*.ipynb

lock: $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-header --no-annotate \
		pyproject.toml --output-file requirements.lock
