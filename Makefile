# Two commands do all the set-up: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test lint bench clean

run: $(VENV)/.installed  ## install, then open the app on the bundled example
	$(BIN)/python app.py examples/courtyard/images

test: $(VENV)/.installed  ## install, then run every test that can run here
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/journeys
	$(BIN)/python -m pytest tests/journeys  # alone: browsers wait only so long for a busy server

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## print the figures quoted in benchmarks/RESULTS.md
	$(BIN)/python benchmarks/rasterizer.py

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build *.egg-info
