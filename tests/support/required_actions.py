"""Airflow's Required Actions without an Airflow, and a task that asks there, deferral by deferral."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from airflow_skyvern.compat.sdk import TaskDeferred
from tests.support.tasks import FakeTaskInstance, context_of, first_event, rebuilt, resumed

if TYPE_CHECKING:
    from airflow_skyvern.operators import SkyvernRunWorkflowOperator

AS_AIRFLOW_3_3 = {
    "chosen_options": ["Approve"],
    "params_input": {},
    "responded_by_user": {"id": "1", "name": "alice"},
    "responded_at": "2026-11-26T12:40:59.672799+00:00",
    "timedout": False,
}


class Killed(BaseException):
    """The worker's process is gone, at this place in it."""


class RequiredActions:
    """Airflow's requests to persons, as its API server keeps them, behind the tasks' connection to Airflow."""

    def __init__(self) -> None:
        self.requests: dict[UUID, Any] = {}
        self.responses: dict[UUID, dict[str, Any]] = {}
        self.asked_by_worker = False
        """Whether a worker asks: Airflow lets it create requests, and nothing else."""
        self.kills: Literal["before it asks", "after it has asked"] | None = None
        """When the next worker that asks is killed."""

    def send(self, msg: Any) -> Any:
        """Answer a message of a task or a trigger."""
        kind = type(msg).__name__
        if kind == "CreateHITLDetailPayload":
            return self._create(msg)
        if self.asked_by_worker:
            raise RuntimeError("API_SERVER_ERROR: 400, Unhandled request")
        if msg.ti_id not in self.requests:
            raise RuntimeError("404: HITLDetail not found")
        if kind == "UpdateHITLDetail":
            if msg.ti_id in self.responses:
                raise RuntimeError("409: already exists")
            self._respond(msg.ti_id, msg.chosen_options[0], None)
        return self._detail(msg.ti_id)

    def _create(self, msg: Any) -> Any:
        kills, self.kills = self.kills, None
        if kills == "before it asks":
            raise Killed
        self.responses.pop(msg.ti_id, None)
        created = self.requests.setdefault(msg.ti_id, msg)
        if kills:
            raise Killed
        return created

    def choose(self, option: str, user: str = "alice") -> None:
        """Answer the only open request as a person."""
        [ti_id] = self.open
        assert option in self.requests[ti_id].options
        self._respond(ti_id, option, {"id": user, "name": user})

    @property
    def open(self) -> list[UUID]:
        """The requests that wait for an answer."""
        return [ti_id for ti_id in self.requests if ti_id not in self.responses]

    @property
    def only(self) -> Any:
        """The only request."""
        [request] = self.requests.values()
        return request

    def _respond(self, ti_id: UUID, option: str, user: dict[str, str] | None) -> None:
        now = datetime.now(timezone.utc)
        self.responses[ti_id] = {"chosen_options": [option], "responded_by_user": user, "responded_at": now}

    def _detail(self, ti_id: UUID) -> Any:
        from airflow.sdk.api.datamodels._generated import HITLDetailResponse

        nothing: dict[str, Any] = {"chosen_options": [], "responded_by_user": None, "responded_at": None}
        response = self.responses.get(ti_id)
        return HITLDetailResponse(response_received=response is not None, params_input={}, **(response or nothing))


def required_actions() -> RequiredActions:
    """Return what stands for Airflow in this test."""
    from airflow.sdk.execution_time import task_runner

    known = task_runner.SUPERVISOR_COMMS
    assert isinstance(known, RequiredActions)
    return known


class Task:
    """A task that is executed deferral by deferral."""

    def __init__(self, make: Callable[[], SkyvernRunWorkflowOperator]) -> None:
        self.airflow = required_actions()
        self.ti = FakeTaskInstance()
        self.ti.max_tries = make().retries or 0
        self.make = make
        self.deferral: TaskDeferred | None = None
        self.result: Any = None
        self._do(lambda: self.make().execute(context_of(self.ti)))

    def retry(self) -> Task:
        """Execute the next try: Airflow gives it an id of its own, and puts away what the one before has asked."""
        self.airflow.requests.pop(self.ti.id, None)
        self.ti.try_number += 1
        self.ti.id = UUID(int=self.ti.id.int + 1)
        self._do(lambda: self.make().execute(context_of(self.ti)))
        return self

    def resume(self, event: Any = None) -> Task:
        """Let the trigger come to its event, or take this one, and resume the task."""
        deferral = self.deferral
        assert deferral is not None
        if event is None:
            event = asyncio.run(first_event(rebuilt(deferral.trigger)))
        self._do(lambda: resumed(self.make(), deferral, event, context_of(self.ti)))
        return self

    def until(self, asked: str) -> Task:
        """Go on until the task waits for a person, with whose answer this method resumes it."""
        while self.deferral and self.deferral.method_name != asked:
            self.resume()
        return self

    def until_asked(self) -> Task:
        """Go on until a person is asked for an approval."""
        return self.until("approval_complete")

    def finish(self) -> Any:
        """Go on to the end."""
        while self.deferral is not None:
            self.resume()
        return self.result

    def _do(self, step: Callable[[], Any]) -> None:
        self.deferral = None
        self.airflow.asked_by_worker = True
        try:
            self.result = step()
        except TaskDeferred as deferred:
            self.deferral = deferred
        finally:
            self.airflow.asked_by_worker = False


class DeferredTask:
    """The task instance of a trigger."""

    dag_id, run_id, task_id, map_index = "d", "manual__1", "t", -1
