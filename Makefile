# make demo   the main job on synthetic cases: five folds, tables, figures, MLflow
# make test   the quick tests, with ruff and mypy; make test-slow the long ones
# Each sets up .venv by itself. PYTHON chooses the interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL_LOG := $(VENV)/install.log
# processes that run the quick tests side by side
WORKERS ?= 2
# one thread per process: folds and tests run side by side, and threads that compete for cores are slow
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint install clean

demo: install
	$(BIN)/uncseg cross-validate experiments/demo.yaml

test: install lint
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" tests

test-slow: install
	$(BIN)/python -m pytest -m slow tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "uncseg needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes; log: $(INSTALL_LOG))"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]' > $(INSTALL_LOG) 2>&1 || \
		{ tail -n 40 $(INSTALL_LOG); echo "the installation failed; the whole log: $(INSTALL_LOG)"; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
