# make run     serve on http://127.0.0.1:8080 with the data in ./data; settings as TIDINGS_... or ARGS="--port 9000"
# make venv    only install, into .venv, what that takes; EXTRAS=aws,redis for the drivers of many nodes, too
# make test    the tests that take seconds
# make check   format, lint, types and all tests: what a change must pass
# make bench   the budgets, as ratios measured on this machine; make bench-quick in about a minute, with more noise
#              (those of many nodes where there is a redis-server, and what make standin installs)
# make foreign the clients that others wrote, by npm, without which some tests are skipped
# make standin servers of DynamoDB's API, by pip, likewise
# make cluster three nodes and a balancer over them, to try; ARGS="--port 9000 --nodes 2", STORE=dynamodb://..., FEED=redis://...
# make pins    bring every pinned version up to date

VENV ?= .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/.run-is-ready
DEV := $(VENV)/.dev-is-ready
FOREIGN := tests/foreign/node_modules/.is-ready
STANDIN := build/standin/.is-ready
ARGS ?=
# Given behind make, not taken from the environment, where they may mean something else; the latter two of make cluster.
EXTRAS :=
STORE :=
FEED :=
comma := ,
DRIVERS := $(addprefix $(VENV)/.has-,$(subst $(comma), ,$(EXTRAS)))
# Tests mostly wait for servers, so one more at a time than there are cores; JOBS=0 runs them in one process.
JOBS ?= $(shell expr $$(nproc) + 1)
PYTEST := $(PY) -m pytest -n $(JOBS) --dist worksteal

.PHONY: run venv test test-slow lint types check bench bench-quick foreign standin cluster pins clean

run: $(RUN) $(DRIVERS)
	@exec $(VENV)/bin/tidings serve $(ARGS)

venv: $(RUN) $(DRIVERS)

test: $(DEV)
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(DEV)
	$(PYTEST) -m slow $(ARGS)

lint: $(DEV)
	$(PY) -m ruff format --check src tests bench tools
	$(PY) -m ruff check src tests bench tools

types: $(DEV)
	$(PY) -m mypy

check: lint types test test-slow

bench: $(DEV)
	$(PY) -m bench $(ARGS)

bench-quick: $(DEV)
	$(PY) -m bench --quick $(ARGS)

foreign: $(FOREIGN)

# The stamps make every later run instant, and possible without a network.
$(RUN): requirements.txt pyproject.toml | $(PY)
	@echo "Installing what Tidings needs, once ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# The versions are those of the tests. (pip only warns of an extra that there is not.)
$(VENV)/.has-aws $(VENV)/.has-redis: $(VENV)/.has-%: requirements-dev.txt $(RUN)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements-dev.txt -e '.[$*]'
	@touch $@

$(DEV): requirements-dev.txt $(RUN)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Exact versions by package.json; a lock file would have the addresses of whatever registry was used.
$(FOREIGN): tests/foreign/package.json
	@cd tests/foreign && npm install --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

# In an environment of its own: it pins what it needs to versions that are not ours.
standin: $(STANDIN)

$(STANDIN): tests/standin/requirements.txt | $(PY)
	@$(PY) -m venv build/standin
	@build/standin/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

cluster: $(DEV) $(if $(STORE),,$(STANDIN))
	@exec $(PY) -m tools.cluster $(if $(STORE),--store '$(STORE)') $(if $(FEED),--feed '$(FEED)') $(ARGS)

$(PY):
	@for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    $$python -m venv $(VENV) && exit 0; \
	    echo "$$python can't make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	  fi; \
	done; \
	echo "Tidings needs Python 3.11 or newer; found: $$(python3 --version 2>&1)" >&2; exit 1

# Each file is what a clean environment holds after an install from pyproject.toml, so all that is needed is pinned.
pins:
	@rm -rf build/pins && $(MAKE) --no-print-directory VENV=build/pins build/pins/bin/python
	build/pins/bin/python -m pip install --quiet --upgrade '.[build]'
	build/pins/bin/python -m pip freeze --exclude tidings > requirements.txt
	build/pins/bin/python -m pip install --quiet --upgrade -c requirements.txt '.[build,dev]'
	build/pins/bin/python -m pip freeze --exclude tidings > requirements-dev.txt
	@rm -rf build/pins

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
