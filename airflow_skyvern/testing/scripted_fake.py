"""The fake, with workflows whose runs end as a test says, and an account of what the test did not foresee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx

from airflow_skyvern.testing.endings import GONE, Ending, never_ends
from airflow_skyvern.testing.fake.checks import Refusal, detail
from airflow_skyvern.testing.fake.records import Run, Seen, Workflow
from airflow_skyvern.testing.fake.resources import Credential
from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

HowItEnds = Ending | Callable[[dict[str, Any]], Ending]
"""An ending, or a function that makes it from the parameters of the run."""

REFUSED = 400
FILE_TAG = "airflow_file"


class ScriptedFake(FakeSkyvern):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Run] = []
        self.unforeseen: list[str] = []
        self.away_for = 0
        self.answers_as_scripted: set[str] = set()
        """Details of refusals that belong to what the test has scripted."""
        self.prompts: tuple[HowItEnds, ...] = ()
        """How the runs of prompts end; the provider itself creates their workflow."""
        self.workflow_files: dict[str, tuple[HowItEnds, ...]] = {}
        """How the runs of workflow files end, by the names of the files; the provider creates their workflows."""
        self._gone: set[str] = set()
        self._endings: dict[str, tuple[HowItEnds, ...]] = {}
        self._begun: dict[str, int] = {}

    def add(self, workflow: Workflow, endings: Sequence[HowItEnds]) -> None:
        """Add a workflow, and how its runs end: one way for all, or one for each."""
        self.workflows[workflow.workflow_id] = workflow
        self._endings[workflow.workflow_id] = tuple(endings)

    def add_run(self, run_id: str, workflow: Workflow, ending: Ending) -> None:
        """Add a run that somebody else has started."""
        self.workflows[workflow.workflow_id] = workflow
        self.runs[run_id] = Run(run_id, _with(workflow, ending), {}, {}, None, self._tick(), {})

    def add_credential(self, name: str, credential_id: str | None = None) -> str:
        """Add a credential, and return its id."""
        made = Credential(credential_id or self._id("cred"), name, "password", {"username": "somebody"})
        self.credentials[made.credential_id] = made
        return made.credential_id

    def may_be_endless(self, workflow_id: str) -> bool:
        """Return whether the newest run of a workflow, or the first one if none has started, never ends by itself."""
        newest = [run.plan for run in self.started if run.workflow.workflow_id == workflow_id][-1:]
        coming = [end.plan for end in self._endings.get(workflow_id, ()) if isinstance(end, Ending)]
        return any(never_ends(plan) for plan in newest or coming)

    def is_endless(self, run_id: str) -> bool:
        """Return whether a run never ends by itself."""
        return run_id in self.runs and never_ends(self.runs[run_id].plan)

    @property
    def unused(self) -> list[str]:
        """What was scripted and never happened."""
        left = {
            name: len(endings) - self._begun.get(name, 0)
            for name, endings in {**self._endings, **self.workflow_files}.items()
            if len(endings) > 1
        }
        runs = [f"{count} more of {workflow_id}" for workflow_id, count in left.items() if count > 0]
        away = [f"{self.away_for} more requests while the server is away"] if self.away_for else []
        return [*super().unused, *runs, *away]

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, unless the server is away."""
        with self._lock:
            is_away = bool(self.away_for and self.started)
            self.away_for -= is_away
        if is_away:
            raise httpx.ReadTimeout("the server is away", request=request)
        return super().handle(request)

    def _answer(self, seen: Seen) -> httpx.Response:
        answer = super()._answer(seen)
        if answer.status_code >= REFUSED and (reason := _detail_of(answer)) not in self.answers_as_scripted:
            self.unforeseen.append(f"{seen.method} {seen.path} was refused with {answer.status_code}: {reason}")
        return answer

    def _start(self, workflow: Workflow, parameters: dict[str, Any], body: dict[str, Any]) -> Run:
        name, endings = self._endings_of(workflow)
        begun = self._begun.get(name, 0)
        if not endings:
            self.unforeseen.append(_how_to_say(workflow))
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow.workflow_id}")
        if begun and begun >= len(endings) > 1:
            left = f"the test has {len(endings)} runs of {name}, and this is one more"
            self.unforeseen.append(left)
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow.workflow_id}")
        ending = endings[begun % len(endings)]
        made = ending(parameters) if callable(ending) else ending
        run = super()._start(_with(workflow, made), parameters, body)
        self._begun[name] = begun + 1
        self.started.append(run)
        return run

    def _endings_of(self, workflow: Workflow) -> tuple[str, tuple[HowItEnds, ...]]:
        """Return how the runs of a workflow end, and what the test calls it: its id, or the name of its file."""
        if (name := workflow.tags.get(FILE_TAG)) is not None and workflow.workflow_id not in self._endings:
            return name, self.workflow_files.get(name, ())
        return workflow.workflow_id, self._endings.setdefault(workflow.workflow_id, self.prompts)

    def _get_workflow(self, seen: Seen, workflow_id: str) -> Any:
        if (made := self.workflows.get(workflow_id)) is not None and made.any_parameters:
            raise self._explained(
                422,
                f"The test does not say which parameters {workflow_id} has, so it takes any: parameters={{…}} does.",
            )
        return super()._get_workflow(seen, workflow_id)

    def _run(self, run_id: str, complaint: str) -> Run:
        run = self.runs.get(run_id)
        if run is not None and run.plan[-1] == GONE and run.step == len(run.plan) - 2:
            del self.runs[run_id]
            self._gone.add(run_id)
        if run_id in self._gone:
            raise self._explained(404, complaint)
        return super()._run(run_id, complaint)

    def _explained(self, status: int, reason: str) -> Refusal:
        self.answers_as_scripted.add(reason)
        return detail(status, reason)


def _how_to_say(workflow: Workflow) -> str:
    if name := workflow.tags.get(FILE_TAG):
        return f"the test does not say how runs of {name} end: skyvern.workflow_file({name!r}, output=…) does"
    return "the test does not say how prompts end: skyvern.prompts(output=…) does"


def _with(workflow: Workflow, ending: Ending) -> Workflow:
    return replace(
        workflow,
        plan=ending.plan,
        output=ending.output,
        artifacts=ending.files,
        failure_reason=ending.reason,
        errors=ending.errors,
    )


def _detail_of(answer: httpx.Response) -> str:
    given = answer.json().get("detail")
    return given if isinstance(given, str) else "; ".join(str(item.get("msg")) for item in given)
