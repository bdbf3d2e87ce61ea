# One door. `make demo` and `make test` do all the set-up on a fresh machine: Python 3.11, its venv module, make.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
.PHONY: help demo test check format soak fuzz docs bench clean

help:                 ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: $(VENV)/ready   ## a node, a client, cuts in the middle and what comes back, on this machine
	$(PY) -m demo

test: $(VENV)/ready   ## all tests but the slow ones
	$(PY) -m pytest $(PARALLEL)

check: $(VENV)/ready  ## what CI runs: lint, types, import contracts, pages, tests
	sh tools/debian.sh --if-possible
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m tools.docs --check
	$(PY) -m tools.cli_docs --check
	$(PY) -m pytest $(PARALLEL)

format: $(VENV)/ready ## let ruff rewrite the layout
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

soak: $(VENV)/ready   ## the slow tests
	$(PY) -m pytest -m soak --timeout=600 -o faulthandler_timeout=1200

fuzz: $(VENV)/ready   ## bytes and operations into the protocol's core, half a minute each
	$(PY) -m fuzz.decoder --seconds 30
	$(PY) -m fuzz.operations --seconds 30

docs: $(VENV)/ready   ## write the reference pages that are generated from the code
	$(PY) -m tools.docs
	$(PY) -m tools.cli_docs

bench: $(VENV)/ready  ## the numbers in bench/README.md, peers beside them
	tools/bench_peers.sh $(PY)
	$(PY) -m bench $(NAME)

clean:                ## remove the environment and all caches
	rm -rf $(VENV) build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Towline needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V`. Try: make PYTHON=python3.11 …" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about half a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=constraints.txt $(PY) -m pip install --quiet --disable-pip-version-check --no-input -e '.[dev]'
	@touch $@
