# Two commands: `make demo` shows what fewmatch does, `make test` checks that it does. Each sets up everything it needs.
# Options: PYTHON=python3.12, VENV=.venv, OUT=demo-output, PYTEST="-x -k store".
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
PYTEST ?= -n 3
BIN := $(VENV)/bin

.PHONY: demo test lint types bench clean

demo: $(VENV)/.installed
	$(BIN)/fewmatch demo -o $(OUT)

# Tests start many processes: bytecode is kept, even where the environment says not to.
test: $(VENV)/.installed-dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/python tests/check_types.py

bench: $(VENV)/.installed-dev
	$(BIN)/pip install -q --no-deps -c constraints.txt easyfsl kornia kornia_rs
	$(BIN)/python benchmarks/episodes.py
	$(BIN)/python benchmarks/pt_map.py
	$(BIN)/python benchmarks/nearest_neighbours.py
	$(BIN)/python benchmarks/encoder_speed.py

clean:
	rm -rf build $(VENV) $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The versions in constraints.txt are those the tests ran with; without it, torch alone would bring gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt --group dev
	touch $@
