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

# The page is looked at in a real browser: a machine without one cannot say that the page works.
tools:
	@command -v chromium >/dev/null || { \
	  command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  apt-get install -y -qq chromium fonts-dejavu-core >/dev/null; } || { \
	  echo 'make test needs Chromium on PATH as "chromium"; install it (Debian: apt-get install chromium)' >&2; exit 1; }

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
