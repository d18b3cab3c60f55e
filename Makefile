# Two commands do everything on a fresh machine with Python 3.11 or newer: `make report` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: report quantize test check lint unit tools benchmarks clean

report: $(VENV)/.runtime
	$(BIN)/doit report

quantize: $(VENV)/.runtime
	$(BIN)/doit quantize

# What CI runs.
test: check
check: lint unit
	$(BIN)/pytest tests/plan tests/actions tests/e2e

lint: $(VENV)/.development
	$(BIN)/ruff format --check quantbuild tests benchmarks examples
	$(BIN)/ruff check quantbuild tests benchmarks examples
	$(BIN)/mypy

unit: $(VENV)/.development tools
	$(BIN)/pytest tests/unit

# The tests use the real thing: a browser looks at the page, nginx holds the shared cache. A machine without them cannot
# say that these work, so that is a failure and no skip.
tools:
	@tests/install-tools

benchmarks: $(VENV)/.development
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.development: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf build dist
