# One command each; every target makes the environment it needs.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= .demo-venv
BIN     = $(VENV)/bin
EXTRAS  = dev,kernels,measured,proofs,dask

.PHONY: demo test check bench format clean

demo: $(DEMO)/installed          ## install what the main job needs (no torch) and run it
	$(DEMO)/bin/treadle compile examples/llama-3.1-8b-h200/deployment.toml -o build/llama-3.1-8b

test: $(VENV)/installed          ## all tests
	$(BIN)/python -m pytest -q -n 2 -rs

check: $(VENV)/installed         ## lint, format, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed         ## every benchmark with committed results (long)
	$(BIN)/python -m benchmarks.run_all

# torch comes first and pinned: a plain `torch` would bring gigabytes of CUDA libraries.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -e '.[$(EXTRAS)]'
	touch $@

$(DEMO)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install -q --upgrade pip
	$(DEMO)/bin/python -m pip install -q -e '.[kernels]'
	touch $@

clean:
	rm -rf build $(VENV) $(DEMO)
