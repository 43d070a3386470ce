# Everything a developer types. Each target creates what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLE := .venv-oracle
DEMO := demo-out

# How often `make chaos` kills, and where its chance begins.
N := 30
SEED := 0

.PHONY: demo test test-slow chaos lint bench oracle clean

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

chaos: $(VENV)/.stamp
	CHAOS_KILLS=$(N) CHAOS_SEED=$(SEED) $(BIN)/python -m pytest -q -m slow tests/pipelines/finetune/test_chaos.py

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What transformers 5 dropped, computed once by 4.56.2, which wants an older tokenizers: an environment of its own.
$(ORACLE)/.stamp: Makefile
	test -x $(ORACLE)/bin/python || $(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check 'transformers==4.56.2' \
		'torch>=2.11,<2.14' 'tokenizers>=0.22,<=0.23.0' sentencepiece numpy safetensors
	touch $@

oracle: $(ORACLE)/.stamp
	$(ORACLE)/bin/python tests/oracle/question_answering.py tests/golden/question_answering.json
	$(ORACLE)/bin/python tests/oracle/head_masks.py tests/golden/head_masks.json
	$(ORACLE)/bin/python tests/oracle/documented_classes.py tests/golden/documented_classes.json

bench: $(VENV)/.stamp
	$(BIN)/xlmr bench

clean:
	rm -rf $(VENV) $(ORACLE) $(DEMO) build *.egg-info
