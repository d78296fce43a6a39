# run · test · test-rest · test-all · check · bench · demo · install · uninstall — each sets up what it needs, in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MANIFESTS = pyproject.toml client/pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help run test test-rest test-all check format bench demo docs install uninstall clean

help:
	@echo 'make run       start the agent here, in the foreground'
	@echo 'make test      the quick tests, on all cores'
	@echo 'make test-rest the tests that make test leaves out'
	@echo 'make test-all  every test, with branch coverage'
	@echo 'make check     ruff, mypy --strict, import rules'
	@echo 'make demo      the commands, end to end, in a scratch folder'
	@echo 'make bench     what it costs, beside what the same costs without it'
	@echo 'make docs      the API reference, from the docstrings, into build/reference'
	@echo 'make install   for this user: commands, manual pages, completions, systemd units'
	@echo 'make uninstall undo it; keys and store stay unless PURGE=1'
	@echo 'make format    let ruff format the code'
	@echo 'make test-pythons  make test on the other supported Python versions'
	@echo 'make clean     remove .venv and every cache'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'agentd needs Python 3.11 or newer; set PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo 'the venv module is missing; on Debian: apt-get install python3-venv'; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

# What the agent needs to run; nothing of the tests.
$(VENV)/.runtime: $(MANIFESTS) | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --editable './client[async,cli,notify,tui]' --editable '.[logind]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

# The frameworks that agentd_client.ext is for, and installers. They are many and large, so `make test` does without.
$(VENV)/.integrations: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --group integrations --group packaging
	@touch $@

run: $(VENV)/.runtime
	@echo 'In a second shell, in this folder:'
	@echo '    $(BIN)/agentctl login      open a session'
	@echo '    $(BIN)/agentctl status     see the agent and your session'
	@echo '    $(BIN)/agentctl verify     is this shell logged in?'
	@exec $(BIN)/agentd serve

# The markers are explained in pyproject.toml.
PARALLEL = --numprocesses auto --dist worksteal

test: $(VENV)/.dev
	@$(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not serial' --ignore tests/integrations $(ARGS)
	@echo '`make test-all` adds the fault suites, the random histories, the frameworks, the units under systemd, and branch coverage.'

# Together with `make test` this is every test, without the coverage, which takes as long again.
test-rest: $(VENV)/.integrations
	@$(BIN)/python -m pytest $(PARALLEL) -m 'slow and not serial' --ignore tests/integrations $(ARGS)
	@$(BIN)/python -m pytest $(PARALLEL) -m 'not serial' tests/integrations $(ARGS)
	@$(BIN)/python -m pytest -m serial $(ARGS)

test-all: $(VENV)/.integrations
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(PARALLEL) -m 'not serial' $(ARGS)
	@$(BIN)/coverage run -m pytest -m serial $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: $(VENV)/.integrations
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo 'run `make format`'; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

.PHONY: test-pythons
test-pythons:
	@PYTHON='$(PYTHON)' sh tests/pythons.sh

demo: $(VENV)/.runtime
	@PATH="$(abspath $(BIN)):$$PATH" sh tests/e2e/demo.sh

# What the bench holds agentd against, of what comes from PyPI.
$(VENV)/.bench: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --group bench
	@touch $@

bench: $(VENV)/.bench
	@$(BIN)/python -m tests.bench $(ARGS)

# mkdocs.yml is strict: a broken link or an argument that is not documented properly fails.
$(VENV)/.docs: $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --group docs
	@touch $@

docs: $(VENV)/.docs
	@$(BIN)/python -m mkdocs build --clean
	@echo 'open build/reference/index.html'

# The environment that `make install` installs into: the service does not depend on this folder.
ENVIRONMENT = $${XDG_DATA_HOME:-$$HOME/.local/share}/agentd/venv
INSTALLED = "$(ENVIRONMENT)/bin/python" -I -m agentd

install: environment
	@$(INSTALLED) service install

# Set up again first where it cannot run, because its Python was removed for instance: it knows what to remove.
uninstall:
	@$(INSTALLED) --version >/dev/null 2>&1 || $(MAKE) --no-print-directory environment
	@$(INSTALLED) service install --uninstall $(if $(filter 1,$(PURGE)),--purge)
	@rm -rf "$(ENVIRONMENT)"; rmdir "$$(dirname "$(ENVIRONMENT)")" 2>/dev/null || true

.PHONY: environment
environment:
	@[ -n "$$HOME" ] && [ -O "$$HOME" ] || \
		{ echo "HOME is $${HOME:-not set}, which is not a folder of your own; set it (sudo -H, su -)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'agentd needs Python 3.11 or newer; set PYTHON=/path/to/python3.11' >&2; exit 1; }
	@"$(ENVIRONMENT)/bin/python" -I -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear "$(ENVIRONMENT)" || \
		{ echo 'the venv module is missing; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@"$(ENVIRONMENT)/bin/python" -I -m pip install --quiet --upgrade './client[async,cli,http,notify,tui]' '.[logind]'

clean:
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
