# Thin on purpose: every target is one command that can be typed by hand in the virtual environment.

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help env figures recompute notebooks test faults bench schedule lab data validate lint lock clean

# what may be given on the command line is what has a default here, and EPKIT_…
VENV ?= .venv
PROFILE ?= quick
SETS ?=
BENCH ?=
# tcp://… of a running Dask cluster to train on; empty: this machine's cores
SCHEDULER ?=
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.epkit-installed
NBVAL := --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg

# the first Python that is new enough; PYTHON=… names another
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)

# data sets kept beside the checkout are found; EPKIT_DATA_MIRROR= (empty) turns that off
ifeq ($(origin EPKIT_DATA_MIRROR),undefined)
EPKIT_DATA_MIRROR := $(abspath $(wildcard ../shared/data))
endif
export EPKIT_DATA_MIRROR

# notebooks run in another folder: they must import this checkout, also where checkouts share an environment
export PYTHONPATH := $(CURDIR)

# a misspelt variable would change nothing, without a word
SETTABLE := $(shell sed -n 's/^\([A-Z]*\) ?=.*/\1/p' $(firstword $(MAKEFILE_LIST)))
NEAREST := import sys, difflib; known = sys.argv[2:]; near = difflib.get_close_matches(sys.argv[1].upper(), known, 1); \
	print(f"did you mean {near[0]}?" if near else f"there are {chr(32).join(known)}")
$(foreach name,$(filter-out $(SETTABLE) EPKIT_% CXX SHELL MAKEFLAGS,$(.VARIABLES)),$(if \
	$(filter command,$(origin $(name))),$(error $(name): no such variable; $(shell \
	$(or $(PYTHON),false) -c '$(NEAREST)' '$(name)' $(SETTABLE) || echo there are $(SETTABLE)))))

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|digits|quick|study|paper  SCHEDULER=tcp://host:8786  VENV=folder  PYTHON=python3.x"

env: $(INSTALLED)  ## the virtual environment from requirements.lock, once
$(INSTALLED): requirements.lock pyproject.toml
	@test -x $(PY) || $(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is not that. Name one: make PYTHON=…"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV): about 6 GB with PyTorch's GPU build, some minutes, once."
	$(PY) -m pip install -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	touch $@

# A profile that somebody names is that profile or an error; the default becomes `digits` without the data sets.
FALLBACK := $(if $(filter file,$(origin PROFILE)),--fallback digits)
ON := $(if $(SCHEDULER),--scheduler '$(SCHEDULER)')
figures: $(INSTALLED)  ## the figures and their summary, from PROFILE
	$(PY) -m epkit figures --profile $(PROFILE) $(FALLBACK) $(ON)

recompute: $(INSTALLED)  ## like figures, with PROFILE's finished stores set aside (*.old) and computed anew
	$(PY) -m epkit figures --profile $(PROFILE) --fresh $(ON)

notebooks: $(INSTALLED)  ## refresh the committed, executed notebooks from the committed stores
	$(PY) -m epkit notebooks

test: $(INSTALLED)  ## unit tests, every notebook at profile smoke, and `validate`
	$(PY) -m pytest $(NBVAL) tests notebooks

validate: $(INSTALLED)  ## re-execute the committed notebooks and compare what they print
	$(PY) -m pytest $(NBVAL) notebooks

faults: $(INSTALLED)  ## the fault tests at length (50 kills; some minutes), and the tables of docs/faults.md
	EPKIT_COUNTS=results/counts $(PY) -m pytest tests/test_faults.py tests/test_bad_input.py --kills 50 -k "not page"
	$(PY) tests/counts.py

bench: $(INSTALLED)  ## time the engine and what surrounds it (10 minutes on a quiet machine): tables, stores, figure
	$(PY) benchmarks/speed.py --readme $(BENCH)
	$(PY) benchmarks/spine.py --readme $(BENCH)

schedule: $(INSTALLED)  ## measure and simulate how a large study splits into jobs: table, store, figure
	$(PY) benchmarks/schedule.py --docs $(SCHEDULE)

lab: $(INSTALLED)  ## open the notebooks in JupyterLab
	$(PY) -m jupyter lab --notebook-dir=. notebooks

data: $(INSTALLED)  ## fetch and verify the data sets (SETS=… for some)
	$(PY) -m epkit data $(SETS)

lint: $(INSTALLED)  ## style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy epkit benchmarks

lock:  ## renew requirements.lock from pyproject.toml (needs uv); pins still allowed stay
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-emit-index-url \
		--no-annotate --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove caches and the results of smoke and digits; data, environment and other results stay
	rm -rf results/smoke results/digits .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find epkit tests notebooks -depth \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
