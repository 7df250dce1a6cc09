# It installs and calls; the work is in Python and dev/*.sh. `make` lists the targets. GNU make 3.81 (macOS) works.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
INSTALLED := $(VENV)/.installed
RUNTIME_PACKAGES = `sed -n 's/^\([A-Za-z0-9][A-Za-z0-9._-]*\).*==.*/\1/p' requirements.txt`
FREE_GB := 4
ROUNDS := 5
# Tests mostly wait for services, so there are more processes than cores.
WORKERS := 3
MINUTES := 30

.PHONY: help install up down status demo demo-once test test-fast test-all soak bench check secrets licences audit format settings lock
.DEFAULT_GOAL := help

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## create .venv with everything; again only when the requirements changed

demo: install ## the whole pipeline on this machine, live, until Ctrl-C
	@$(BIN)/python -m dev.demo

demo-once: install ## the same, ends after the first scored batch with a summary
	@$(BIN)/python -m dev.demo --once

test: install check ## everything CI runs, with stacks of their own
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder
	@$(BIN)/python -m tests.soak --minutes 1 --seed 1 --output .local/soak-short.json

test-fast: install ## what needs no services: two minutes, for each save
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not stack and not fault and not long"

test-all: test ## the same, the long variants, and every fault, five times (hours); ROUNDS=1 for once
	@$(BIN)/python -m pytest -m "long and not fault" --numprocesses 2 --dist loadgroup
	@round=1; while [ $$round -le $(ROUNDS) ]; do \
	  echo "faults, round $$round of $(ROUNDS)"; \
	  $(BIN)/python -m pytest -m fault -x tests/faults tests/verify tests/models || { echo "make: a fault case failed in round $$round" >&2; exit 1; }; \
	  round=`expr $$round + 1`; done

soak: install ## payments at a steady rate while faults strike: MINUTES=30, and SEED=… to repeat one
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: install ## measure it beside bare loops, two hours; PEERS=1: beside its peers too
	@$(BIN)/python -m benchmarks chain ledger runs idle age backlog shards $(if $(PEERS),peers)

check: install secrets licences audit ## check lint, format and types, and run the three checks below
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

secrets: install ## look for passwords and keys in tracked files
	@dev/secrets.sh $(BIN)/detect-secrets-hook

licences: install ## look for licences that pyproject.toml does not allow; SHOW=1 lists all
	@$(BIN)/pip-licenses --packages $(RUNTIME_PACKAGES) $(if $(SHOW),,>/dev/null) \
	  || { echo "licences: read it, then add it to [tool.pip-licenses] in pyproject.toml or remove the package" >&2; exit 1; }
	@echo "licences: those of all packages are allowed"

audit: install ## look for known vulnerabilities of pinned packages, once a day, in the OSV database
	@dev/audit.sh $(BIN)/pip-audit .local/audit-clean requirements.txt requirements-dev.txt

format: install ## let ruff fix what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

settings: install ## write the settings into .env.example and docs/configuration.md
	@$(BIN)/python -m dev.settings_docs

up: install ## start the local stack in the background (data and logs in .local)
	@$(BIN)/python -m dev.stack up

down: ## stop it; no process is left, the data stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m dev.stack down; fi

status: ## which part of it runs where
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m dev.stack status || [ $$? -eq 3 ]; else echo "nothing installed yet: make install"; fi

lock: $(UV) ## compile requirements*.in into pinned requirements*.txt with hashes
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements.in -o requirements.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements-dev.in -o requirements-dev.txt

# The first Python that works and that Airflow supports; `make PYTHON=/path/to/python` names another. A name on the
# PATH may be a pyenv shim of a version that is not installed, so each is tried.
$(BIN)/python:
	@free=`df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'`; \
	if [ "$$free" -lt $(FREE_GB) ]; then echo "make: $$free GB free in `pwd`, $(FREE_GB) GB are needed" >&2; exit 1; fi; \
	for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	      package=`$$python -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'`; \
      echo "make: $$python has no venv module (on Debian and Ubuntu: apt install $$package)" >&2; exit 1; fi; \
	    echo "Python: `$$python -c 'import sys; print(sys.executable)'`"; \
	    $$python -m venv --clear $(VENV) || { echo "make: $$python could not create $(VENV)" >&2; exit 1; }; \
	    exit 0; \
	  elif [ -n "$(PYTHON)" ]; then break; fi; \
	done; \
	echo "make: no working Python 3.11, 3.12 or 3.13 found; name one: make PYTHON=/path/to/python3.13" >&2; exit 1

$(UV): | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) \
	  || { echo "make: uv could not be installed: is the network up, and is there room on the disk?" >&2; exit 1; }

$(INSTALLED): requirements.txt requirements-dev.txt pyproject.toml | $(UV)
	@echo "installing some 250 packages into $(VENV), a minute or two …"
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt -r requirements-dev.txt \
	  || { echo "make: packages could not be installed: is the network up, and is there room on the disk?" >&2; exit 1; }
	@$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@
