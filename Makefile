# setup · reproduce · reproduce-all · publish · benchmark · gpu · gpu-paper · test · test-lowest · test-crash · test-cluster · browser · lint ·
# lab · lock: a line or two of standard tools each.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
BROWSER := .venv-browser
READY := $(VENV)/.ready
UV := $(VENV)/uv/bin/uv
DATASET ?=
# REUSE=no trains published runs again.
REUSE ?= yes
# Folder of a real data set's clips; by default data/<set> in the project.
ROOT ?=
# PROFILE=paper DATASET=mafw selects the profile paper-mafw.
PROFILE ?= demo
# Where jobs run: a file in workflow/profiles.
CLUSTER ?= local
# Runs that share a GPU of this machine; by default many small models or one of the paper's.
RUNS_PER_GPU ?=
# Taken verbatim, whatever characters they contain: make does not expand them again, and the shell gets them from the
# environment.
override DATASET := $(value DATASET)
override ROOT := $(value ROOT)
override PROFILE := $(value PROFILE)
override CLUSTER := $(value CLUSTER)
override RUNS_PER_GPU := $(value RUNS_PER_GPU)
override REUSE := $(value REUSE)
ifneq ($(and $(filter paper,$(PROFILE)),$(filter-out dfew,$(DATASET))),)
override PROFILE := paper-$(DATASET)
endif
# nproc would otherwise obey the variable exported below.
ifeq ($(origin JOBS),undefined)
JOBS := $(shell env -u OMP_NUM_THREADS nproc)
endif
override JOBS := $(value JOBS)
# Of the stand-in for DFEW that make gpu-paper trains on.
CLIPS ?= 2560
override CLIPS := $(value CLIPS)
export PROFILE JOBS CLUSTER RUNS_PER_GPU CLIPS REUSE
export ADATOSK_ROOT := $(ROOT)

# The models are small: two runs with one thread each are faster than one run with two threads.
export OMP_NUM_THREADS := 1
# Containers set it, and each command and job would compile torch and all else that it imports.
unexport PYTHONDONTWRITEBYTECODE
export HF_HUB_OFFLINE := 1
export PYTHONUNBUFFERED := 1

.PHONY: help setup reproduce reproduce-all publish benchmark gpu gpu-paper test test-lowest test-crash test-cluster browser lint lab notebooks lock

help:
	@echo "make reproduce      set up, render the data, train, evaluate, execute the notebooks, compare with the published results"
	@echo "make reproduce-all  every table and figure, over all seeds; takes hours on two cores, resumes after an interruption"
	@echo "make publish        copy outputs/ to results/, and update README.md and RESULTS.md"
	@echo "make benchmark      compare time and memory with VideoMAE's; writes results/benchmark"
	@echo "make gpu            tests, steps, a fed epoch and demo's rate on this machine's GPU, in the environment of PYTHON=…; 8 minutes"
	@echo "make gpu-paper      the paper's recipe on CLIPS=2560 rendered clips in DFEW's layout: train, kill, resume, score"
	@echo "make test           set up, lint, run the unit tests and the notebooks"
	@echo "make test-lowest    run the unit tests with the lowest versions that pyproject.toml declares; downloads some GB"
	@echo "make test-crash     simulate a kill and a full disk at every file operation of training, caching and rendering; minutes"
	@echo "make test-cluster   run the workflow on a SLURM of four nodes, started on this machine: Debian, as root; minutes"
	@echo "make browser        open, run and play with every notebook in JupyterLab in chromium; 15 minutes"
	@echo "make lint           ruff, import-linter and pyrefly"
	@echo "make lab            open the notebooks in JupyterLab"
	@echo "make notebooks      execute the notebooks in place and store their outputs"
	@echo "make lock           resolve the dependencies in pyproject.toml and write requirements.lock"

setup: $(READY)

# uv is installed next to the environment, so neither ensurepip nor a writable system Python is needed. Without --no-config,
# it would treat the constraint in pyproject.toml as a requirement without a hash.
$(UV):
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target $(VENV)/uv uv==0.13.8

$(READY): $(UV) requirements.lock pyproject.toml
	$(UV) pip install --python $(BIN)/python --no-config --require-hashes --requirement requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	touch $@

# Snakemake's own lock would outlive a killed process; the Snakefile has another.
SNAKEMAKE := $(BIN)/python -m snakemake --workflow-profile "workflow/profiles/$$CLUSTER.yaml" \
	$(if $(filter local,$(CLUSTER)),--cores "$$JOBS") --nolock --rerun-incomplete --rerun-triggers mtime --quiet rules
CONFIG := --config profile="$$PROFILE" $(if $(RUNS_PER_GPU),runs_per_gpu="$$RUNS_PER_GPU") $(if $(filter-out yes,$(REUSE)),reuse="$$REUSE")
REPORT := $(BIN)/python -m adatosk report --profile "$$PROFILE"

# Beside demo itself, the pair on the same faces moving as real ones do, which lie in data/ wherever demo's do.
LIFELIKE := $(if $(subst demo,,$(PROFILE)),,env -u ADATOSK_ROOT $(SNAKEMAKE) --config profile=demo-lifelike grid=runs)
reproduce: setup
	$(SNAKEMAKE) $(CONFIG)
	$(LIFELIKE)
	$(REPORT)

reproduce-all: setup
	$(SNAKEMAKE) --keep-going $(CONFIG) grid=all
	$(REPORT)

publish: setup
	$(REPORT) --publish

benchmark: setup
	OMP_NUM_THREADS="$$JOBS" $(BIN)/adatosk benchmark --model --sweeps
	OMP_NUM_THREADS="$$JOBS" $(BIN)/adatosk benchmark --loader
	OMP_NUM_THREADS="$$JOBS" $(BIN)/adatosk benchmark --decoding
	OMP_NUM_THREADS="$$JOBS" $(BIN)/adatosk benchmark --video

# Works offline in an environment that is already there, such as a GPU node's: make gpu PYTHON=/opt/env/bin/python.
OWN := $(filter file,$(origin PYTHON))
ON_GPU := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" "$(if $(OWN),$(BIN)/python,$(PYTHON))"
gpu: $(if $(OWN),setup)
	$(ON_GPU) -m adatosk.cost.node

gpu-paper: $(if $(OWN),setup)
	$(ON_GPU) -m adatosk.cost.recipe "$$CLIPS"

test: lint
	$(BIN)/python -m pytest -n "$$JOBS" --dist loadfile --no-loadscope-reorder --nbval-lax tests notebooks

test-crash: setup
	$(BIN)/python -m pytest -n "$$JOBS" -m crash tests/test_crashes.py tests/test_cli.py

# Each file of tests has a process, which waits for jobs more than it computes.
test-cluster: setup
	tests/cluster/slurm.sh "$${TMPDIR:-/tmp}/adatosk-slurm" $(BIN)/python -m pytest -p no:nbval -n 4 --dist loadfile -m cluster tests/cluster

test-lowest: $(UV)
	$(UV) venv --no-config --quiet --clear --python 3.11 $(LOWEST)
	$(UV) pip compile --no-config --quiet --resolution lowest-direct --python-version 3.11 --all-extras --no-header \
		--no-annotate pyproject.toml --output-file $(LOWEST)/requirements.txt
	$(UV) pip install --no-config --python $(LOWEST)/bin/python --requirement $(LOWEST)/requirements.txt
	$(UV) pip install --no-config --python $(LOWEST)/bin/python --no-deps --editable .
	PATH="$(CURDIR)/$(LOWEST)/bin:$(CURDIR)/$(VENV)/uv/bin:$$PATH" \
		$(LOWEST)/bin/python -m pytest -n "$$JOBS" --dist loadfile --no-loadscope-reorder tests

browser: setup
	$(UV) venv --no-config --quiet --allow-existing $(BROWSER)
	$(UV) pip install --no-config --quiet --python $(BROWSER)/bin/python --requirement tests/browser/requirements.txt
	$(BROWSER)/bin/python tests/browser/check_notebooks.py --python "$(CURDIR)/$(BIN)/python" --shots outputs/browser

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pyrefly check

# workflow/jupyter turns autosave off, so that opening and running a notebook changes no tracked file.
lab: setup
	JUPYTER_CONFIG_PATH="$(CURDIR)/workflow/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
		$(BIN)/jupyter lab --notebook-dir . --LabApp.default_url=/lab/tree/notebooks/index.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root)

notebooks: setup
	rm -rf outputs/smoke
	$(BIN)/python -c "from adatosk.workspace import open_workspace; open_workspace('smoke').split('train')"
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute --ClearMetadataPreprocessor.enabled=True \
		--ClearMetadataPreprocessor.preserve_cell_metadata_mask='[("tags",)]' \
		--ClearMetadataPreprocessor.preserve_nb_metadata_mask='[("kernelspec",), ("language_info",), ("adatosk",), ("widgets",)]' notebooks/[0-9]*.ipynb
	$(BIN)/jupyter nbconvert --coalesce-streams --inplace notebooks/[0-9]*.ipynb

lock: $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-header --no-annotate \
		pyproject.toml --output-file requirements.lock
