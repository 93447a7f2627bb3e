# make run: install what is missing and start the demo. make test: install and test. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
RUN ?= demo
# Processes that share the fast tests; a file is tested in one of them.
TEST_PROCESSES ?= 2

.PHONY: setup run test test-slow test-browser pictures coverage mutate chaos results-small check bench docs clean

setup: $(STAMP)

# UV_FIND_LINKS lets a local folder of wheels (PIP_FIND_LINKS) go before the registry, where there is one.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gato needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name one with make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[dev]" -c constraints.txt
	@touch $(STAMP)

run: $(STAMP)
	$(BIN)/gato start $(RUN)

test: $(STAMP) check
	$(BIN)/python -m pytest -m "not slow" -q --reruns 1 -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -q --timeout 3600

# The page in a headless Chromium (apt-get install chromium): what it draws and when, many tabs, and
# with npm its accessibility.
test-browser: $(STAMP)
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[browser]" -c constraints.txt
	! command -v npm > /dev/null || npm install --silent --no-save --no-package-lock axe-core@4.14.1
	$(BIN)/python -m pytest -q tests/cluster/web/test_browser.py --timeout 3600

# The pictures of the README and of docs/watching.md, from runs that are trained for them.
pictures: $(STAMP)
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[browser]" -c constraints.txt
	GATO_RUNS=$${GATO_RUNS:-runs/pictures} $(BIN)/python -m docs.screenshots
	GATO_RUNS=$${GATO_RUNS:-runs/pictures} $(BIN)/python -m benchmarks.pictures demo

# Lines and branches that the fast tests run; written into docs/testing.md.
coverage: $(STAMP)
	rm -rf .coverage
	mkdir .coverage
	$(BIN)/coverage run -m pytest -m "not slow" -q --timeout 900 -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet -o .coverage/coverage.json
	$(BIN)/python -m benchmarks.coverage_page

# Mutants of the arithmetic that no test notices; written into docs/testing.md. It takes about an hour.
mutate: $(STAMP)
	$(BIN)/python -m tests.mutate

# Three machines as network namespaces; every 5 s for 10 minutes something is killed or cut off, then
# the promises of docs/reliability.md are checked. Needs root.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos.storm --write

# Small forms of the results in docs/results, checked against stored bounds: about an hour on two slow cores.
results-small: $(STAMP)
	$(BIN)/python -m benchmarks.small

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run

# The site, in site/: settings and commands from the code, then all pages. A warning is an error.
docs: $(DOCS_STAMP)
	$(BIN)/python -m docs.generate
	$(BIN)/zensical build --strict --clean

$(DOCS_STAMP): $(STAMP)
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[docs]" -c constraints.txt
	@touch $(DOCS_STAMP)

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .coverage
