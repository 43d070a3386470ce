# Everything a developer types. Each target creates what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-out

.PHONY: demo test test-slow lint bench clean

# The stamp is rebuilt when the dependencies change.
$(VENV)/.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.stamp
	$(BIN)/xlmr annotate pipelines/sample/corpus.jsonl --output $(DEMO) --id-column id \
		--task language=mini#language --task vector=mini#embedding
	$(BIN)/xlmr verify $(DEMO)

test: $(VENV)/.stamp
	$(BIN)/python -m pytest -q

test-slow: $(VENV)/.stamp
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.stamp
	$(BIN)/xlmr bench

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
