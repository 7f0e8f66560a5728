# Developer tasks. Needs python3 (3.11 is what the pins are made for), make and PyPI; everything else goes to .venvs/.
# docs/development.md says more.

# PYTHON is a command or a version (3.13), which is also found where pyenv has it; each has environments of its own.
python = $(if $(filter 3.%,$(1)),$(or $(lastword $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python3)),python$(1)),$(1))
ifeq ($(origin PYTHON),undefined)
PYTHON := python3
else
OTHER := -python$(shell $(call python,$(PYTHON)) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
TOOLS_PYTHON := $(if $(filter 3.%,$(PYTHON)),python3,$(PYTHON))
UV := $(or $(shell command -v uv),.venvs/uv/bin/uv)
NEWEST := .venvs/airflow-3.3$(OTHER)
SKYVERN_VENV ?= $(CURDIR)/.venvs/skyvern
SKYVERN := $(SKYVERN_VENV)/.installed
export UV SKYVERN_VENV
unexport PYTHONDONTWRITEBYTECODE # or every process compiles all tests anew

# Of unit tests, two processes per processor: they wait half of the time.
WORKERS := $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
AIRFLOW ?= 3.3
VENV := $(if $(filter stores,$(SUITE)),.venvs/stores,.venvs/airflow-$(AIRFLOW)$(OTHER))
ifneq ($(filter-out unit installs snippets events ticks pages approvals browser stores,$(SUITE)),)
$(error SUITE=$(SUITE): unit, installs, snippets, events, ticks, pages, approvals, browser or stores)
endif
ifneq ($(filter-out airflow pages files,$(RIG)),)
$(error RIG=$(RIG): airflow, pages or files)
endif

.PHONY: help demo check test faults bench docs dist format constraints clean

help:  ## show this list; * marks what a newcomer needs
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(NEWEST)/.installed $(SKYVERN)  ## * run an example DAG on a real Airflow and a real Skyvern (UI=1 leaves them up)
	@$(NEWEST)/bin/python -m dev.demo

check: $(NEWEST)/.installed  ## * formatting, lint, types, declared imports, unit tests: after each change (UNIT=0)
	$(NEWEST)/bin/ruff format --check .
	$(NEWEST)/bin/ruff check .
	$(NEWEST)/bin/mypy
	$(NEWEST)/bin/deptry --no-ansi airflow_skyvern
ifneq ($(UNIT),0)
	$(NEWEST)/bin/python -m pytest -q -n $(WORKERS) -m "not slow" tests/unit
endif

# AIRFLOW=2.11|3.0|3.1|3.2|3.3, PYTHON=3.10|3.11|3.12|3.13, CORE=1: some of the system tests.
# SUITE=unit: no servers; also AIRFLOW=lowest|newest, the lowest and newest versions that the package allows.
# SUITE=installs: the wheel, by pip, beside each Airflow's dependencies of its time (ALL=1: on each Python).
# SUITE=snippets: every DAG in README and docs as written, scheduled, by hand and by `dags test`.
# SUITE=events: many finished runs as events, and a triggerer that is killed (SEED=, KILLS=, POSTGRES=0).
# SUITE=ticks: schedules are taken over and released while they fire, nine minutes of real ticks.
# SUITE=pages: the run page in Chromium (AIRFLOW=3.1 or newer).
# SUITE=browser: a browser logs in, extracts and downloads; needs Chromium, as pages does.
# SUITE=stores: files, outputs and rows in a real S3 (SeaweedFS) and a real PostgreSQL.
# SUITE=approvals: persons who answer in Airflow and in Skyvern, clears, marks, kills (AIRFLOW=3.1 or newer, TIMES=3).
test: $(VENV)/.installed $(if $(filter unit installs,$(SUITE)),,$(SKYVERN))  ## * all tests, with real servers (AIRFLOW=, PYTHON=, UNIT=0, SUITE=)
ifeq ($(SUITE),unit)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) tests/unit
else ifeq ($(SUITE),installs)
	$(VENV)/bin/python -m pytest -v -n 2 --dist loadgroup tests/installs
else ifeq ($(SUITE),snippets)
	$(VENV)/bin/python -m pytest -v -m snippets tests/system
else ifeq ($(SUITE),events)
	$(VENV)/bin/python -m pytest -v -rP tests/events
else ifeq ($(SUITE),approvals)
	$(VENV)/bin/python -m pytest -v -rP tests/approvals
else ifeq ($(SUITE),browser)
	$(VENV)/bin/python -m pytest -v --durations=3 tests/browser
else ifeq ($(SUITE),stores)
	$(VENV)/bin/python -m pytest -v -rP tests/stores
else ifeq ($(SUITE),pages)
	$(VENV)/bin/python -m pytest -v tests/run_page
else ifeq ($(SUITE),ticks)
	$(VENV)/bin/python -m pytest -v -s -m real_ticks tests/system
else
ifneq ($(UNIT),0)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) tests/unit
endif
	$(VENV)/bin/python -m pytest -v -n 2 --dist loadgroup $(if $(CORE),-m core) $(if $(filter 3.3,$(AIRFLOW)),tests/contract) tests/system
endif

faults: $(VENV)/.installed $(SKYVERN)  ## runs under faults and kills (AIRFLOW=, SEED=, EXECUTIONS=, ONLY=, EVENTS=, ROUNDS=, DURABLE=0)
	AIRFLOW=$(AIRFLOW) $(VENV)/bin/python -m tests.faults.run

# RIG=airflow: deferred runs on real servers, worker seconds and every request (RUNS=, RUN_SECONDS=, BLIP=).
# RIG=files: storing the files of a run in a folder, beside curl (ROUNDS=).
# RIG=pages: fifty viewers of one running run on a real API server, and the latency of Airflow's own API meanwhile.
ifeq ($(RIG),airflow)
bench: $(NEWEST)/.installed $(SKYVERN)
	@$(NEWEST)/bin/python -m benchmarks.airflow_runs
else ifeq ($(RIG),pages)
bench: $(NEWEST)/.installed
	@$(NEWEST)/bin/python -m benchmarks.run_page
else ifeq ($(RIG),files)
bench: $(NEWEST)/.installed
	@$(NEWEST)/bin/python -m benchmarks.files
else
bench: .venvs/bench/.installed  ## waiting beside the triggers of other providers, 20 min (N=, PEERS=, BLOCKS=1, SMOKE=1, RIG=airflow|pages|files)
	@.venvs/bench/bin/python -m benchmarks.run $(if $(SMOKE),--smoke)
endif

docs: .venvs/docs/.installed  ## the documentation's site, into site/; strict (SERVE=1 shows it on 127.0.0.1:8000)
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs $(if $(SERVE),serve,build --quiet)

dist: .venvs/docs/.installed | $(UV)  ## builds the package into dist/ and checks it (TAG=v0.1.0 also that it may be published)
	rm -rf dist
	$(UV) build --quiet
	.venvs/docs/bin/twine check --strict dist/*
	.venvs/docs/bin/python -m dev.release $(TAG)

format: $(NEWEST)/.installed  ## format and fix what can be fixed
	$(NEWEST)/bin/ruff format .
	$(NEWEST)/bin/ruff check --fix .

constraints: | $(UV)  ## resolve the newest pins into constraints/
	$(TOOLS_PYTHON) -m dev.constraints

clean:  ## remove environments and caches
	rm -rf .venvs .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site

# Environments: .venvs/airflow-X.Y with this package and the tools, .venvs/skyvern with the server.
.venvs/uv/bin/uv:
	$(TOOLS_PYTHON) -m venv .venvs/uv
	.venvs/uv/bin/pip install --quiet --disable-pip-version-check uv

.SECONDEXPANSION:
.venvs/airflow-%/.installed: constraints/airflow-$$(firstword $$(subst -, ,$$*)).txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(call python,$(PYTHON)) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable . \
	  --group $(if $(findstring airflow-lowest,$@)$(findstring airflow-newest,$@),test,dev)
	touch $@

.venvs/stores/.installed: constraints/stores.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable '.[s3]' --group dev --group stores
	touch $@

.venvs/bench/.installed: constraints/bench.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable . --group bench
	touch $@

.venvs/docs/.installed: constraints/docs.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --group docs
	touch $@

$(SKYVERN): constraints/skyvern.txt | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --requirement $<
	touch $@

.PRECIOUS: .venvs/airflow-%/.installed
