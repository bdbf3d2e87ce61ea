# One door. `make demo` and `make test` do all the set-up on a fresh machine.
VENV ?= .venv
PY := $(VENV)/bin/python
.PHONY: help demo test check format soak fuzz docs bench clean

help:            ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

$(VENV)/ready: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/ready   ## a node, a client, cuts and resumes, on this machine
	$(PY) -m demo

test: $(VENV)/ready   ## all tests but the slow ones
	$(PY) -m pytest

check: $(VENV)/ready  ## what CI runs: lint, types, import contracts, tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest

format: $(VENV)/ready ## let ruff rewrite the layout
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
