# Each command does its own set-up from a bare checkout.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check clean

demo: $(READY)  ## the main job on data and models that come with the installation
	$(BIN)/graft demo digits -o .demo/digits.graft
	$(BIN)/graft demo text -o .demo/text.graft

test: $(READY)  ## the whole suite
	$(BIN)/python -m pytest -n 2

check: $(READY)  ## linters and types
	$(BIN)/ruff check src tests benchmarks recipes
	$(BIN)/ruff format --check src tests benchmarks recipes
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,words,onnx,keras,tune,service,dev]'
	touch $@

clean:
	rm -rf .venv .demo build dist
