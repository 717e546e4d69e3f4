# Two commands do all the set-up: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test lint bench lite clean

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

WORK ?= lite-training
lite: $(VENV)/.installed  ## train the fixer lite anew: make lite CAPTURES="FOLDER ..." WORK=FOLDER (its card says which)
	$(BIN)/difix3d pairs --scenes $(CAPTURES) --out $(WORK)/pairs --strategies sparse dense halves underfit \
	    --every 3 5 --stops 0.34 --max-pairs 72 --test-share 0
	$(BIN)/python examples/train_lite.py $(WORK)/pairs --out $(WORK)

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build *.egg-info
