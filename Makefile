PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Waiting threads that spin as long as they like make two cores with other work on one of them thirty times slower.
export GOMP_SPINCOUNT ?= 5000

# Tests run so many files at once; each process holds a gigabyte or two.
TEST_PROCESSES ?= 2

.PHONY: setup demo test test-slow lint audit format docs examples doctor bench clean

setup: $(READY)

# pyproject.toml decides what is installed; the stamp is made last, so a broken install is done again.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "autobackbone needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/autobackbone demo

test: setup
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m "slow or not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd benchmarks && $(abspath $(BIN))/mypy --config-file ../pyproject.toml *.py
	$(BIN)/lint-imports

# Our own code, and whether a dependency has a known vulnerability; the latter asks a service, and says so if it cannot.
audit: setup
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src scripts
	$(BIN)/python scripts/audit.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site, into site/: a warning is an error. What the theme says of the next major version of mkdocs concerns nobody here:
# pyproject.toml keeps to the present one.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Each of them with nothing said: some twenty seconds on small real pictures.
examples: setup
	@for example in examples/*.py; do echo "$$example"; $(BIN)/python "$$example" || exit 1; done

# PICTURES is a folder with one sub-folder per class; nothing else may run on the machine meanwhile.
bench: setup
	@test -n "$(PICTURES)" || { echo "usage: make bench PICTURES=folder"; exit 2; }
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/stopping.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/copies.py $(PICTURES)
	$(BIN)/python benchmarks/imbalance.py $(PICTURES)
	$(BIN)/python benchmarks/honesty.py $(PICTURES) --kept .honesty
	$(BIN)/python benchmarks/throughput.py $(PICTURES)
	$(BIN)/python benchmarks/transfer.py $(PICTURES)
	$(BIN)/python benchmarks/time_to_quality.py $(PICTURES)
	$(BIN)/python benchmarks/against_exhaustive.py $(PICTURES)

doctor: setup
	$(BIN)/autobackbone doctor

clean:
	rm -rf $(VENV) build dist src/*.egg-info
