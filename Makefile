# Every target makes what it needs: the virtual environment, the pinned packages, then the work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/quickstart
IMAGES ?=

.PHONY: quickstart test test-all check docs wheel format clean worlds-libero

quickstart: $(VENV)/.worlds
	$(BIN)/gemvlm quickstart --out $(OUT) $(if $(IMAGES),--images $(IMAGES))

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow and not gpu"

test-all: $(VENV)/.dev
	$(BIN)/pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: $(VENV)/.dev
	$(BIN)/pytest tests/test_wheel.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) out dist

# LIBERO and robosuite declare far more than their simulation uses (a training stack, a second OpenCV, another torch)
worlds-libero: $(VENV)/.libero

$(VENV)/.libero: $(VENV)/.worlds
	$(BIN)/pip install -q --disable-pip-version-check --no-input --no-deps -c constraints.txt hf-libero robosuite bddl
	$(BIN)/pip install -q --disable-pip-version-check --no-input -c constraints.txt cloudpickle easydict future gymnasium \
	    matplotlib networkx numba opencv-python-headless pyyaml scipy termcolor tqdm
	$(BIN)/python -c "from gemvlm.worlds.libero import SUITES, task_names; [task_names(suite) for suite in SUITES]" < /dev/null
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit('gemvlm needs Python 3.11 or newer, this is ' + sys.version.split()[0] + '; set PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)

# torch first and by its pin: packages that depend on it would otherwise pick the newest build
$(VENV)/.worlds: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[worlds]'
	touch $@

$(VENV)/.dev: $(VENV)/.worlds
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
