# Two commands: `make demo` and `make test`. Both make the environment in .venv if it is missing or
# the pinned versions changed, and leave it alone otherwise.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test slow clean

demo: $(READY)
	$(BIN)/mezzotint demo --out runs/demo

test: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	# A process a core, with a thread each: many small tests, whose threads would wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile

slow: $(READY)
	# A campaign of faults is one long process after the other: a test a core, whichever is next.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --maxprocesses 8 --dist worksteal

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "mezzotint needs Python 3.11 or newer: install python3, or say make PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mezzotint needs Python 3.11 or newer, $(PYTHON) is older: say make PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: on Debian or Ubuntu install the package python3-venv"; exit 2; }
	@command -v git >/dev/null || { echo "git is missing: install it"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	# Inception's network for its test, without torchvision, which not every torch has a build of.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torch-fidelity
	@touch $(READY)

clean:
	rm -rf $(VENV)
