# Developer tasks. Needs python3 (3.11 is what the pins are made for), make and PyPI; everything else goes to .venvs/.
# docs/development.md says more.

PYTHON ?= python3
UV := $(or $(shell command -v uv),.venvs/uv/bin/uv)
NEWEST := .venvs/airflow-3.3
OLDER := .venvs/airflow-2.11 .venvs/airflow-3.1
SKYVERN_VENV ?= $(CURDIR)/.venvs/skyvern
SKYVERN := $(SKYVERN_VENV)/.installed
export UV SKYVERN_VENV

.PHONY: help demo test test-matrix test-schedules test-events faults faults-older scale check format constraints clean
.PHONY: bench bench-smoke bench-airflow

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(NEWEST)/.installed $(SKYVERN)  ## run the example DAG on a real Airflow and a real Skyvern (UI=1 leaves them up)
	@$(NEWEST)/bin/python -m dev.demo

check: $(NEWEST)/.installed  ## formatting, lint, types, fast tests
	$(NEWEST)/bin/ruff format --check .
	$(NEWEST)/bin/ruff check .
	$(NEWEST)/bin/mypy
	$(NEWEST)/bin/python -m pytest -q -n auto tests/unit

test: $(NEWEST)/.installed $(SKYVERN)  ## all tests on Airflow 3.3, with real servers
	$(NEWEST)/bin/python -m pytest -q -n auto tests/unit
	$(NEWEST)/bin/python -m pytest -v tests/contract tests/system

test-matrix: $(OLDER:=.tested)  ## fast and system tests on the older Airflow versions

.venvs/%.tested: .venvs/%/.installed $(SKYVERN) FORCE
	.venvs/$*/bin/python -m pytest -q -n auto tests/unit
	.venvs/$*/bin/python -m pytest -v tests/system

test-schedules: .venvs/airflow-$(or $(AIRFLOW),3.3)/.installed $(SKYVERN)  ## schedules change hands while they fire: nine minutes of real ticks (AIRFLOW=)
	.venvs/airflow-$(or $(AIRFLOW),3.3)/bin/python -m pytest -v -s tests/system/ticks.py

test-events: .venvs/airflow-$(or $(AIRFLOW),3.3)/.installed $(SKYVERN)  ## many events, and a triggerer that is killed (AIRFLOW=, SEED=, POSTGRES=0)
	.venvs/airflow-$(or $(AIRFLOW),3.3)/bin/python -m pytest -v -rP tests/events

faults: .venvs/airflow-$(or $(AIRFLOW),3.3)/.installed $(SKYVERN)  ## runs under faults and kills (SEED=, EXECUTIONS=, AIRFLOW=, DURABLE=0)
	.venvs/airflow-$(or $(AIRFLOW),3.3)/bin/python -m tests.faults.run

faults-older: $(OLDER:=.faults)  ## the same, shortened, on the older Airflow versions, with their limits

.venvs/airflow-%.faults: .venvs/airflow-%/.installed $(SKYVERN) FORCE
	AIRFLOW=$* SEED=$(or $(SEED),6) EXECUTIONS=$(or $(EXECUTIONS),24) .venvs/airflow-$*/bin/python -m tests.faults.run

bench: .venvs/bench/.installed  ## waiting beside the triggers of other providers, 20 min (N=, PEERS=); writes docs/performance.md
	@.venvs/bench/bin/python -m benchmarks.run

bench-smoke: .venvs/bench/.installed  ## does the benchmark still work? half a minute
	@.venvs/bench/bin/python -m benchmarks.run --smoke

bench-airflow: $(NEWEST)/.installed $(SKYVERN)  ## worker seconds and requests of deferred runs, real Airflow and Skyvern (RUNS=)
	@$(NEWEST)/bin/python -m benchmarks.airflow_runs

scale: $(NEWEST)/.installed $(SKYVERN)  ## a hundred deferred runs at once, every request counted (RUNS=, RUN_SECONDS=)
	$(NEWEST)/bin/python -m tests.scale.run

format: $(NEWEST)/.installed  ## format and fix what can be fixed
	$(NEWEST)/bin/ruff format .
	$(NEWEST)/bin/ruff check --fix .

constraints: | $(UV)  ## resolve the newest pins into constraints/
	$(PYTHON) -m dev.constraints

clean:  ## remove environments and caches
	rm -rf .venvs .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# Environments: .venvs/airflow-X.Y with this package and the tools, .venvs/skyvern with the server.
.venvs/uv/bin/uv:
	$(PYTHON) -m venv .venvs/uv
	.venvs/uv/bin/pip install --quiet --disable-pip-version-check uv

.venvs/airflow-%/.installed: constraints/airflow-%.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable . --group dev
	touch $@

.venvs/bench/.installed: constraints/bench.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable . --group bench
	touch $@

$(SKYVERN): constraints/skyvern.txt | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --requirement $<
	touch $@

.PRECIOUS: .venvs/airflow-%/.installed
.PHONY: FORCE
FORCE:
