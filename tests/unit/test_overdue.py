"""A DAG run that has missed its deadline: which Skyvern runs it has, and which of them are canceled; Airflow 3.1."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("airflow.sdk.definitions.deadline", reason="deadlines came with Airflow 3.1")

from airflow_skyvern.compat.sdk import XCom
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.overdue import OverdueRun, find_overdue_runs, overdue_runs

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

CANCEL = "/v1/runs/[^/]+/cancel"
CONTEXT = {"dag_run": {"dag_id": "d", "dag_run_id": "manual__1"}, "deadline": {"id": "1", "deadline_time": "now"}}
ANNOUNCED = {"skyvern_conn_id": "skyvern_default", "group": "group"}


class Airflow:
    """What Airflow answers to the triggerer."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.xcoms: dict[tuple[str, int, str], Any] = {}

    def task(self, name: str, task_id: str | None = None, map_index: int = -1, **xcoms: Any) -> None:
        """Add a task instance, by the name that Airflow gives it."""
        self.states[name] = "deferred"
        for key, value in xcoms.items():
            self.xcoms[task_id or name, map_index, key] = value

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, Any]:
        assert (dag_id, run_ids) == ("d", ["manual__1"])
        return {"manual__1": self.states} if self.states else {}

    def get_one(self, *, key: str, dag_id: str, task_id: str, run_id: str, map_index: int) -> Any:
        assert (dag_id, run_id) == ("d", "manual__1")
        return self.xcoms.get((task_id, map_index, key))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    known = Airflow()
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(known.get_task_states))
    monkeypatch.setattr(XCom, "get_one", known.get_one)
    return known


def overdue(**more: Any) -> list[OverdueRun]:
    return asyncio.run(find_overdue_runs(context=CONTEXT, **more))


def test_an_active_run_is_named_with_its_links(skyvern: FakeSkyvern, airflow: Airflow, task_log: TaskLog) -> None:
    run_id = skyvern.run(plan=("running",))
    airflow.task("pay", run_id=run_id, app_url="http://s/1", connection_and_run_key=ANNOUNCED)
    airflow.task("report")
    [run] = overdue()
    assert (run["task_id"], run["run_id"], run["status"], run["canceled"]) == ("pay", run_id, "running", False)
    assert run["app_url"] == f"http://localhost:8080/runs/{run_id}"
    assert "/dags/d/runs/manual__1/tasks/pay" in run["page_url"]
    assert skyvern.sent("POST", CANCEL) == []
    assert f"DAG d: run manual__1 has missed its deadline; task pay has Skyvern run {run_id} (running)" in task_log()


def test_airflow_gets_a_text_to_store(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    """A triggerer of 3.3.2 ends when a callback has returned anything else."""
    assert asyncio.run(overdue_runs(context=CONTEXT)) == "The DAG run has no Skyvern runs."
    runs = [skyvern.run(plan=("running",)) for _ in range(2)]
    for number, run_id in enumerate(runs):
        airflow.task(f"pay_{number}", run_id=run_id, connection_and_run_key=ANNOUNCED)
    said = asyncio.run(overdue_runs(context=CONTEXT, cancel=True))
    assert said.splitlines() == [
        f"pay_{number}: {run_id} (canceled now), see http://localhost:8080/runs/{run_id}"
        for number, run_id in enumerate(runs)
    ]


def test_only_active_runs_that_end_with_their_task_are_canceled(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    active, over, free = (skyvern.run(plan=(status,)) for status in ("running", "completed", "running"))
    airflow.task("active", run_id=active, connection_and_run_key=ANNOUNCED)
    airflow.task("over", run_id=over, connection_and_run_key=ANNOUNCED)
    airflow.task("free", run_id=free, app_url="http://s/3")
    found = {run["task_id"]: (run["status"], run["canceled"]) for run in overdue(cancel=True)}
    assert found == {"active": ("canceled", True), "over": ("completed", False), "free": (None, False)}
    assert [sent.path for sent in skyvern.sent("POST", CANCEL)] == [f"/v1/runs/{active}/cancel"]


def test_mapped_tasks_and_tasks_that_are_named_like_them_are_found(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    mapped, named = skyvern.run(plan=("running",)), skyvern.run(plan=("running",))
    airflow.task("pay_3", "pay", 3, run_id=mapped, connection_and_run_key=ANNOUNCED)
    airflow.task("step_2", run_id=named, connection_and_run_key=ANNOUNCED)
    assert [(run["task_id"], run["map_index"], run["run_id"]) for run in overdue()] == [
        ("pay", 3, mapped),
        ("step_2", -1, named),
    ]


def test_each_tool_call_of_an_agent_has_its_run(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    runs = [skyvern.run(plan=("running",)) for _ in range(2)]
    calls = [{**ANNOUNCED, "run_id": run_id, "app_url": None} for run_id in runs]
    airflow.task("agent", run_id="the agent's own", connection_and_run_key={**calls[-1], "calls": calls})
    assert [run["run_id"] for run in overdue(cancel=True)] == runs
    assert len(skyvern.sent("POST", CANCEL)) == 2


def test_a_sensor_of_the_same_run_does_not_keep_it_from_being_canceled(
    skyvern: FakeSkyvern, airflow: Airflow
) -> None:
    run_id = skyvern.run(plan=("running",))
    airflow.task("before", run_id=run_id)
    airflow.task("pay", run_id=run_id, connection_and_run_key=ANNOUNCED)
    assert [(run["task_id"], run["canceled"]) for run in overdue(cancel=True)] == [("pay", True)]


def test_what_another_provider_calls_run_id_is_no_run_of_skyvern(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    airflow.task("databricks", run_id=17)
    airflow.task("dbt", run_id="17")
    airflow.task("odd", connection_and_run_key="text")
    assert overdue(cancel=True) == []
    assert skyvern.requests == []


def test_a_run_of_which_skyvern_says_nothing_is_named_and_the_others_are_canceled(
    skyvern: FakeSkyvern, airflow: Airflow, task_log: TaskLog
) -> None:
    run_id = skyvern.run(plan=("running",))
    airflow.task("gone", run_id="wr_gone", app_url="http://s/gone", connection_and_run_key=ANNOUNCED)
    airflow.task("elsewhere", run_id="wr_else", connection_and_run_key={"skyvern_conn_id": "deleted", "group": "g"})
    airflow.task("pay", run_id=run_id, connection_and_run_key=ANNOUNCED)
    found = {run["task_id"]: (run["status"], run["app_url"]) for run in overdue()}
    assert found["gone"] == (None, "http://s/gone")
    assert found["elsewhere"][0] is None
    assert found["pay"][0] == "running"
    assert "Skyvern run wr_gone" in task_log()


def test_a_refused_cancel_is_said_and_names_the_run(
    skyvern: FakeSkyvern, airflow: Airflow, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_skyvern.overdue.REFUSALS", 0.0)
    run_id = skyvern.run(plan=("running",))
    skyvern.next("POST", CANCEL, httpx.Response(403, json={"detail": "Invalid credentials"}))
    airflow.task("pay", run_id=run_id, connection_and_run_key=ANNOUNCED)
    [run] = overdue(cancel=True)
    assert (run["run_id"], run["status"], run["canceled"]) == (run_id, None, False)
    assert f"Skyvern run {run_id} may still be running" in task_log()


def test_a_dag_run_without_runs_has_none(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    assert overdue() == []


def test_airflow_takes_it_as_a_callback() -> None:
    sdk = import_module("airflow.sdk.definitions.deadline")
    callback = sdk.AsyncCallback(overdue_runs, kwargs={"cancel": True})
    assert callback.path == "airflow_skyvern.overdue.overdue_runs"
    sdk.DeadlineAlert(
        reference=sdk.DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(hours=2), callback=callback
    )


def test_another_callback_says_that_it_is_for_deadlines() -> None:
    with pytest.raises(SkyvernConfigError, match="is the callback of a DeadlineAlert"):
        asyncio.run(overdue_runs({"ti": None}))
