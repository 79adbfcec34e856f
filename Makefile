# Each command needs nothing but Python and make:
#   make run    train on digits and sample            make viz    the pipeline in the browser
#   make test   the tests                             make lint   ruff, mypy, import-linter
#   make coverage  the tests, and what they cover     make format  what ruff can repair
#   make digits the accuracy of the sampled digits    make lock   renew constraints.txt
#   make sweep  try parameters: ARGS="name=values…"   make repro  run stale stages, with DVC
#   make image  the container image, with Docker      make image-test  build and test it
#   make mutants  plant known bugs in copies          make screenshots  the figures in docs/
#   make soak   kill a training 25 times, compare     make bench  training, and its peers
#   make bench-sampling  each sampler, and diffusers  make bench-ingestion  ARGS=images.tar
#   make gpu    measure everything on a GPU           make gpu-kit  its packages, for offline use
# ARGS goes to the command: make run ARGS="--params use.experiment=cifar10"
# PYTHON chooses the interpreter (3.11 or 3.12), VENV the folder of the environment.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help run test coverage mutants lint viz digits sweep repro format lock install clean image image-test screenshots \
	bench bench-sampling bench-ingestion soak gpu gpu-kit gpu-docs

VENV ?= .venv
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	"$$p" -c '$(SUPPORTED)' 2>/dev/null && echo "$$p" && break; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export DO_NOT_TRACK ?= 1

help:
	@sed -n '2,12s/^# \{0,1\}//p' Makefile

run: $(VENV)/.installed
	$(BIN)/kedro run $(ARGS)

viz: $(VENV)/.installed
	$(BIN)/kedro viz run $(ARGS)

# Small networks gain nothing from a second thread; the tests gain from a second process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
test: $(VENV)/.installed-dev $(VENV)/.browser
	$(PYTEST) $(ARGS)

# The same tests; what the fast ones cover is measured, which takes a minute more.
coverage: $(VENV)/.installed-dev $(VENV)/.browser
	$(PYTEST) --cov=ddpm_kedro --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

# The tests open the pipeline in a browser: the system's Chromium, or Playwright's.
$(VENV)/.browser: | $(VENV)/.installed-dev
	command -v chromium chromium-browser google-chrome >/dev/null || $(BIN)/playwright install --with-deps chromium
	touch $@

# Kill a short training 25 times, at random moments and in mid-write, and compare how it ends.
soak: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak $(ARGS)

# ARGS: words, to plant only the bugs whose names contain them.
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m tests.mutants $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

sweep: $(VENV)/.installed-sweep
	$(BIN)/kedro sweep $(ARGS)

repro: $(VENV)/.installed-dvc
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/dvc repro $(ARGS)

# Figures of the last run, for docs/.
screenshots: $(VENV)/.installed-dev $(VENV)/.browser
	$(BIN)/kedro run --pipelines image_to_image,inpainting,interpolation
	$(BIN)/kedro run --params run.repeat=true # Kedro-Viz shows the durations of its nodes
	$(BIN)/python benchmarks/pictures.py
	$(BIN)/python -m pytest --no-cov tests/integration/test_viz.py --screenshots $(ARGS)

digits: $(VENV)/.installed
	$(BIN)/python benchmarks/digits.py $(ARGS)

# After make run: quality and speed of each sampler, compared with diffusers.
bench-sampling: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/sampling.py $(ARGS)

# How fast images are ingested: ARGS is a folder or an archive of images; --help for the rest.
bench-ingestion: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/ingestion.py $(ARGS)

# After make run: docs/benchmarks.md. ARGS: some of step operations quality growth plot; --help for the rest. Without
# make run: ARGS="recipes --source images.tar --seconds 600".
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.training $(ARGS)

# The first interpreter that has torch, out of PYTHON, python3 and the one in $(VENV).
GPU_PYTHON = $(eval GPU_PYTHON := $(shell for p in "$(PYTHON)" python3 $(BIN)/python; do \
	"$$p" -c 'import torch, torchvision' 2>/dev/null && echo "$$p" && break; done))$(GPU_PYTHON)
NO_TORCH := No interpreter here has torch and torchvision: PYTHON=/path/to/python make gpu, or make install.

# docs/benchmarks.md. ARGS: --parts step,tests, --device cpu --tiny to try it; --help for the rest.
gpu:
	@[[ "$(GPU_PYTHON)" != $(BIN)/python ]] || $(MAKE) --silent --no-print-directory $(VENV)/.installed-dev
	@test -n "$(GPU_PYTHON)" || { echo "$(NO_TORCH)" >&2; exit 2; }
	@$(GPU_PYTHON) -m benchmarks.gpu $(ARGS)

# Wheels and images for a machine with a GPU that may have no network. PYTHON_VERSION: its version of Python.
gpu-kit:
	@test -n "$(GPU_PYTHON)" || { echo "$(NO_TORCH)" >&2; exit 2; }
	@$(GPU_PYTHON) -m benchmarks.gpu.kit --python-version "$(PYTHON_VERSION)" --images "$(IMAGES)"

# Write the results of make gpu into docs/benchmarks.md.
gpu-docs:
	@$(GPU_PYTHON) -m benchmarks.gpu.page

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed

$(VENV)/bin/python:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV): torch is large, this takes minutes the first time."
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(PIP) --editable '.[$*]'
	touch $@

# DOCKER_BUILD_FLAGS: --build-arg BASE_IMAGE=…, or mirrors as build secrets (see the Dockerfile).
IMAGE ?= ddpm-kedro
export IMAGE DOCKER_BUILD_FLAGS
image:
	docker build $(DOCKER_BUILD_FLAGS) --tag $(IMAGE) \
		--build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/ddpm_kedro/__init__.py)" \
		--build-arg REVISION="$$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)" .

# Without Docker Compose, its file is not checked: the last lines say so.
image-test: image $(VENV)/.installed-dev
	$(BIN)/python -m pytest --no-cov -m container $(ARGS)

# One constraints file for Python 3.11 and 3.12: made with 3.11, since its versions install on both.
lock:
	"$(PYTHON)" -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-lock/bin/python -m pip install --quiet --editable '.[dev]'
	{ echo "# Made by 'make lock'. Versions only: no hosts, no hashes."; \
	  .venv-lock/bin/python -m pip freeze --all --exclude-editable; } > constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .venv-lock
