# Thin on purpose: every target is one command that can be typed by hand in the virtual environment, with PYTHONPATH=.

# from wherever it is called, it works in the checkout that it lies in
HERE := $(dir $(lastword $(MAKEFILE_LIST)))
ifneq ($(realpath $(HERE)),$(realpath .))
.PHONY: $(or $(MAKECMDGOALS),help)
$(or $(MAKECMDGOALS),help):
	@$(MAKE) --no-print-directory -C '$(HERE)' $@
else

.DEFAULT_GOAL := help
.PHONY: help env figures recompute notebooks records test faults bench board schedule lab html release data validate lint lock clean

VENV ?= .venv
PROFILE ?= quick
# names of data sets to fetch; options of the benchmarks; tcp://… of a Dask cluster to train on
SETS ?=
BENCH ?=
SCHEDULE ?=
SCHEDULER ?=
PY := '$(VENV)/bin/python'
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg
# on all cores, up to four; a file's tests, and a notebook's cells, stay together; the short ones are last
CORES := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# the first Python that is new enough; PYTHON=… names another
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)

# a misspelt variable would change nothing, without a word
SETTABLE := VENV PROFILE SETS BENCH SCHEDULE SCHEDULER PYTHON
UNKNOWN := $(foreach name,$(filter-out $(SETTABLE) EPKIT_% CXX SHELL MAKEFLAGS,$(.VARIABLES)),$(if \
	$(filter command,$(origin $(name))),$(name)))
$(if $(strip $(UNKNOWN)),$(error $(strip $(UNKNOWN)): no such variable; there are $(SETTABLE) and EPKIT_…))

# data sets kept beside the checkout are found; EPKIT_DATA_MIRROR= (empty) turns that off
ifeq ($(origin EPKIT_DATA_MIRROR),undefined)
EPKIT_DATA_MIRROR := $(abspath $(wildcard ../shared/data))
endif
export EPKIT_DATA_MIRROR

# An environment holds the locked packages alone, so that checkouts can share one: what is imported is this checkout.
export PYTHONPATH := $(CURDIR)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|digits|quick|study|paper  SCHEDULER=tcp://host:8786  VENV=folder  PYTHON=python3.x"

# fresh or not is a matter of content, for git gives every file of a new checkout the same time
env:  ## the virtual environment from requirements.lock, once
	@cmp -s requirements.lock '$(VENV)/.epkit.lock' || { \
		test -x $(PY) || $(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
			echo "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is not that. Name one: make PYTHON=…"; exit 1; }; \
		echo "Installing the locked packages into $(VENV): about 6 GB with PyTorch's GPU build, some minutes, once."; \
		{ test -x $(PY) || $(PYTHON) -m venv '$(VENV)'; } && \
		$(PY) -m pip install -q --disable-pip-version-check -r requirements.lock && \
		cp requirements.lock '$(VENV)/.epkit.lock'; }

# A profile that somebody names is that profile or an error; the default becomes `digits` without the data sets.
FALLBACK := $(if $(filter file,$(origin PROFILE)),--fallback digits)
ON := $(if $(SCHEDULER),--scheduler '$(SCHEDULER)')
figures: env  ## the figures and their summary, from PROFILE
	$(PY) -m epkit figures --profile '$(PROFILE)' $(FALLBACK) $(ON)

recompute: env  ## like figures, with PROFILE's finished stores set aside (*.old) and computed anew
	$(PY) -m epkit figures --profile '$(PROFILE)' --fresh $(ON)

notebooks: env  ## refresh the committed, executed notebooks from the committed stores
	$(PY) -m epkit notebooks

records: env  ## renew what is made from stores, notebooks and models: README, manifests, schemas
	$(PY) -m epkit records

# kernels start without the settings and startup files of whoever calls it
test validate faults: export IPYTHONDIR := $(CURDIR)/.cache/ipython
test validate faults: export PYTHONSTARTUP :=
# the cores have tests of their own to run: threads would only wait for one another
test validate faults: export OMP_NUM_THREADS := 1
test validate faults: .cache/ipython
.cache/ipython:
	@mkdir -p $@

test: env  ## unit tests, every notebook at profile smoke, and `validate`
	$(PY) -m pytest $(CORES) $(NBVAL) tests notebooks

validate: env  ## re-execute the committed notebooks and compare what they print
	$(PY) -m pytest $(CORES) $(NBVAL) notebooks

faults: env  ## the fault tests at length (50 kills; some minutes), and the tables of docs/faults.md
	EPKIT_COUNTS=results/counts $(PY) -m pytest tests/test_faults.py tests/test_bad_input.py tests/test_foreign_stores.py tests/test_public_calls.py --kills 50 -k "not page"
	$(PY) tests/counts.py

bench: env  ## time the engine and what surrounds it (15 minutes on a quiet machine): tables, stores, figure
	$(PY) benchmarks/speed.py --docs $(BENCH)
	$(PY) benchmarks/spine.py --docs $(BENCH)
	$(PY) benchmarks/readouts.py --docs

board: env  ## train the XOR board on ngspice (5 minutes): table and store
	$(PY) benchmarks/xor_board.py --docs

schedule: env  ## measure and simulate how a large study splits into jobs: table, store, figure
	$(PY) benchmarks/schedule.py --docs $(SCHEDULE)

lab: env  ## open the notebooks in JupyterLab, with the whole checkout beside them
	$(PY) -m jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

html: env  ## the study as a site, in build/html, from what is committed; nothing is executed
	$(PY) -m sphinx -b html -c docs -d build/doctrees -E -W --keep-going -q . build/html
	@echo "build/html/index.html is the front page."

release: env  ## stores, figures, lock and metadata as an RO-Crate, in build/release
	$(PY) -m epkit release build/release --date "$$(git log -1 --format=%cs)"

data: env  ## fetch and verify the data sets (SETS=… for some)
	$(PY) -m epkit data $(SETS)

lint: env  ## style, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy epkit benchmarks

lock:  ## renew requirements.lock from pyproject.toml (needs uv); pins still allowed stay
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-emit-index-url \
		--no-annotate --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove caches and the results of smoke and digits; data, environment and other results stay
	rm -rf results/smoke results/digits .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find epkit tests notebooks -depth \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +

endif
