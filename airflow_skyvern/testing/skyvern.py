"""The fixture ``skyvern``: the Skyvern of one test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.testing.endings import Ending, completed, extracted
from airflow_skyvern.testing.fake.records import Run, Seen, Workflow
from airflow_skyvern.testing.scripted_fake import ScriptedFake

if TYPE_CHECKING:
    import pytest

    from airflow_skyvern.testing.fake.skyvern import Scripted
    from airflow_skyvern.testing.guard import Guard
    from airflow_skyvern.testing.scripted_fake import HowItEnds

BLOCK = "task_output"
"""The output of the one block of the workflow that runs prompts."""

LONG_AGO = datetime(2026, 11, 22, 20, tzinfo=timezone.utc)


class StartedRun:
    """A run that the DAG has started, as Skyvern knows it now."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"StartedRun({self.run_id!r}, {self.status!r}, {self.parameters!r})"

    @property
    def run_id(self) -> str:
        """Its id."""
        return self._run.run_id

    @property
    def workflow_id(self) -> str:
        """The id of its workflow."""
        return self._run.workflow.workflow_id

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that it was started with."""
        return self._run.parameters

    @property
    def request(self) -> dict[str, Any]:
        """The whole body of the request that has started it, as Skyvern's API names things."""
        return self._run.request

    @property
    def tags(self) -> dict[str, str]:
        """Its tags, including the provider's."""
        return self._run.tags

    @property
    def status(self) -> str:
        """Its status, as ``running``, ``completed`` or ``canceled``."""
        return str(self._run.state["status"])


class Skyvern:
    """
    A Skyvern that lives as long as one test; Airflow's connection ``skyvern_default`` leads to it.

    A test fails at its end if its DAG sent a request that the test did not foresee, regardless of how the DAG handled
    the refusal, or if something that the test scripted never happened.
    """

    def __init__(self, url: str, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.fake = ScriptedFake()
        self._guard = guard
        self._monkeypatch = monkeypatch

    def workflow(
        self,
        workflow_id: str,
        *runs: HowItEnds,
        output: Any = None,
        files: Mapping[str, bytes] | None = None,
        parameters: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        title: str = "a workflow",
    ) -> None:
        """
        Add a workflow.

        :param workflow_id: Its id, ``wpid_…``, as the DAG has it.
        :param runs: How its runs end. One: every run of it. Several: one each for the first run, the second, and so
            on; exactly that many must start. A function gets the parameters of the run and returns its ending.
            Default: each run completes with ``output`` and ``files``.
        :param output: See :func:`~airflow_skyvern.testing.endings.completed`.
        :param files: See :func:`~airflow_skyvern.testing.endings.completed`.
        :param parameters: The type of each of its parameters: ``string``, ``integer``, ``float``, ``boolean``,
            ``json``, ``credential_id``. A run with other parameters, or without one that has no default, is refused,
            as Skyvern does. Default: any parameters are accepted.
        :param defaults: The defaults of its parameters.
        :param title: Its title.
        """
        if runs and (output is not None or files is not None):
            raise ValueError("Give output and files to completed(…), where you say how runs end.")
        self.fake.add(
            Workflow(
                workflow_id,
                title,
                ("running", "completed"),
                None,
                LONG_AGO,
                parameters=parameters or {},
                defaults=defaults or {},
                any_parameters=parameters is None,
                any_blocks=True,
            ),
            runs or [completed(output, files)],
        )

    def prompts(self, *runs: HowItEnds, output: Any = None, files: Mapping[str, bytes] | None = None) -> None:
        """
        Script how the runs of prompts end, regardless of the prompt.

        :param runs: As for a workflow; the output of ``completed(…)`` is the data that is extracted. A function gets
            the parameters of the run, ``prompt`` and ``url`` among them.
        :param output: The data that is extracted: what the task returns.
        :param files: See :func:`~airflow_skyvern.testing.endings.completed`.
        """
        self.fake.prompts = tuple(_of_prompt(ending) for ending in runs or [completed(output, files)])

    def workflow_file(
        self, name: str, *runs: HowItEnds, output: Any = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """
        Script how the runs of a workflow file end. The file itself is read and checked as with a real Skyvern.

        :param name: The name of the file, without its folder: ``"invoices.yaml"``.
        :param runs: As for a workflow.
        :param output: See :func:`~airflow_skyvern.testing.endings.completed`.
        :param files: See :func:`~airflow_skyvern.testing.endings.completed`.
        """
        self.fake.workflow_files[name] = runs or (completed(output, files),)

    def credential(self, name: str, credential_id: str | None = None) -> str:
        """
        Add a credential for runs that log in, and return its id.

        :param name: Its name, which a parameter of the type ``credential_id`` may have as its value.
        :param credential_id: Its id, ``cred_…``. Default: a new one.
        """
        return self.fake.add_credential(name, credential_id)

    def run(self, run_id: str, ending: Ending | None = None, *, workflow_id: str = "wpid_of_another") -> None:
        """
        Add a run that something else has started, for a sensor or a hook to find.

        :param run_id: Its id, ``wr_…``.
        :param ending: How it ends. Default: it completes.
        :param workflow_id: The id of its workflow.
        """
        workflow = Workflow(workflow_id, "a workflow", (), None, LONG_AGO, any_parameters=True)
        self.fake.add_run(run_id, workflow, ending or completed())

    def away(self, requests: int = 5) -> None:
        """
        Let the server be away for about a minute: after a run was started, the next requests get no answer.

        :param requests: How many; the provider polls less often while it gets no answer, so five take about a minute.
        """
        self.fake.away_for += requests

    def next(self, method: str, path: str, *answers: Scripted) -> None:
        """
        Script the answers to the next requests, one after the other.

        :param method: ``GET``, ``POST`` …
        :param path: A regular expression for the path, as ``/v1/runs/.*``.
        :param answers: An ``httpx.Response``, or an ``httpx.HTTPError`` where none arrives.
        """
        self.fake.next(method, path, *answers)

    def connection(self, conn_id: str, **fields: Any) -> None:
        """
        Point another connection to this Skyvern, in addition to ``skyvern_default``.

        :param conn_id: Its id.
        :param fields: Fields in which the connection differs: ``extra={"proxy": …}``, ``password="wrong"``.
        """
        given = {"conn_type": "skyvern", "host": self.url, "password": self.fake.api_key, **fields}
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(given))

    def allow_host(self, *hosts: str) -> None:
        """
        Let the test reach other hosts; by default it reaches only this machine.

        :param hosts: Names or addresses: of a database, say, that tasks write to.
        """
        self._guard.allowed.update(hosts)

    def started(self, workflow_id: str | None = None) -> list[StartedRun]:
        """
        Return the runs that were started so far, the first one first.

        :param workflow_id: Only runs of this workflow. Default: all.
        """
        return [StartedRun(run) for run in self.fake.started if workflow_id in (None, run.workflow.workflow_id)]

    @property
    def requests(self) -> list[Seen]:
        """Every request so far."""
        return self.fake.requests

    @property
    def unforeseen(self) -> list[str]:
        """What was refused so far; clear it in a test that is about a refusal."""
        return self.fake.unforeseen

    def check(self) -> None:
        """
        Fail if something was refused that the test did not foresee, or something scripted never happened.

        :raises AssertionError: it names all of it.
        """
        refused = [*self.fake.unforeseen, *self._guard.refused]
        problems = [
            *(f"not foreseen by the test: {what}" for what in refused),
            *(f"scripted, but it never happened: {what}" for what in self.fake.unused),
        ]
        if problems:
            raise AssertionError("\n".join(["Skyvern, as the test has it:", *problems]))


def _of_prompt(ending: HowItEnds) -> HowItEnds:
    """Put the data where the one block of the workflow has it."""
    if not isinstance(ending, Ending):
        return lambda parameters: _with_data(ending(parameters))
    return _with_data(ending)


def _with_data(ending: Ending) -> Ending:
    return ending if ending.output is None else replace(ending, output={BLOCK: extracted(ending.output)})
