"""What Airflow keeps in its database, and what DAG files import: frozen from 0.1.0 on."""

from __future__ import annotations

from importlib import import_module

import airflow
import pytest

from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.schedules.guard import SkyvernScheduleGuard
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.task import deferral, xcom
from airflow_skyvern.triggers.approval import SkyvernApprovalTrigger
from airflow_skyvern.triggers.login_code import SkyvernCodeTrigger, SkyvernLoginTrigger
from airflow_skyvern.triggers.run import SkyvernRunTrigger, SkyvernSensorTrigger
from airflow_skyvern.triggers.session_turn import SkyvernSessionTurnTrigger

AIRFLOW_2 = airflow.__version__.startswith("2.")

PUBLIC = {
    "airflow_skyvern.assets": "FinishedRun create_asset runs_in runs_uri sanitize_uri skyvern_runs",
    "airflow_skyvern.exceptions": "SkyvernError SkyvernRunError SkyvernRunFailed SkyvernConfigError",
    "airflow_skyvern.hooks": "SkyvernHook",
    "airflow_skyvern.links": "SkyvernRunLink",
    "airflow_skyvern.models": "Run RunSummary Workflow Schedule",
    "airflow_skyvern.operators": "SkyvernDownloadFilesOperator SkyvernRunWorkflowOperator "
    "SkyvernOpenBrowserSessionOperator SkyvernCloseBrowserSessionOperator SkyvernCreateBrowserProfileOperator "
    "skyvern_browser_session",
    "airflow_skyvern.overdue": "OverdueRun find_overdue_runs overdue_runs",
    "airflow_skyvern.schedules.guard": "SkyvernScheduleGuard",
    "airflow_skyvern.sensors": "SkyvernRunSensor",
    "airflow_skyvern.triggers": "SkyvernApprovalTrigger SkyvernRunTrigger SkyvernSensorTrigger",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_dag_authors_find_every_name_where_it_was(module: str) -> None:
    found = import_module(module)
    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []


def test_airflow_stores_these_class_paths() -> None:
    classes = (
        SkyvernRunWorkflowOperator,
        SkyvernDownloadFilesOperator,
        SkyvernRunSensor,
        SkyvernScheduleGuard,
        SkyvernRunLink,
    )
    assert [f"{found.__module__}.{found.__qualname__}" for found in classes] == [
        "airflow_skyvern.operators.run_workflow.SkyvernRunWorkflowOperator",
        "airflow_skyvern.operators.download_files.SkyvernDownloadFilesOperator",
        "airflow_skyvern.sensors.SkyvernRunSensor",
        "airflow_skyvern.schedules.guard.SkyvernScheduleGuard",
        "airflow_skyvern.links.SkyvernRunLink",
    ]


def test_airflow_stores_this_of_a_wait() -> None:
    path, kwargs = SkyvernRunTrigger("wr_1", "c", 10.0, 1.0).serialize()
    assert path == "airflow_skyvern.triggers.SkyvernRunTrigger"
    assert sorted(kwargs) == [
        "cancel_on_kill",
        "deadline",
        "pause_known",
        "poll_interval",
        "run_id",
        "run_known",
        "skyvern_conn_id",
    ]
    path, kwargs = SkyvernSessionTurnTrigger("wr_1", "c", 10.0, 1.0).serialize()
    assert path == "airflow_skyvern.triggers.SkyvernSessionTurnTrigger"
    assert sorted(kwargs) == ["deadline", "occupied_by", "poll_interval", "skyvern_conn_id"]
    path, kwargs = SkyvernSensorTrigger("wr_1", "c", 10.0, 1.0, backstop=1.0).serialize()
    assert path == "airflow_skyvern.triggers.SkyvernSensorTrigger"
    assert sorted(kwargs) == [
        "backstop",
        "end_from_trigger",
        "poll_interval",
        "run_id",
        "skyvern_conn_id",
        "soft_fail",
        "timeout",
    ]


def test_airflow_stores_this_of_a_wait_for_a_persons_answer() -> None:
    path, kwargs = SkyvernApprovalTrigger("wr_1", "c", 10.0, 1.0, ti_id="0199").serialize()
    assert path == "airflow_skyvern.triggers.SkyvernApprovalTrigger"
    assert sorted(kwargs) == ["cancel_on_kill", "deadline", "poll_interval", "run_id", "skyvern_conn_id", "ti_id"]


def test_airflow_stores_this_of_a_wait_that_may_ask_for_a_code() -> None:
    step = {"block_id": "wrb_1", "task_id": "tsk_1", "label": "in", "actions": 3}
    path, kwargs = SkyvernLoginTrigger("wr_1", "c", 10.0, 1.0, answered={**step, "until": 1.0}).serialize()
    assert path == "airflow_skyvern.triggers.SkyvernLoginTrigger"
    _, of_a_wait = SkyvernRunTrigger("wr_1", "c", 10.0, 1.0).serialize()
    assert sorted(kwargs) == sorted([*of_a_wait, "answered"])
    path, kwargs = SkyvernCodeTrigger("wr_1", "c", 10.0, 1.0, ti_id="0199", step=step).serialize()
    assert path == "airflow_skyvern.triggers.SkyvernCodeTrigger"
    _, of_an_answer = SkyvernApprovalTrigger("wr_1", "c", 10.0, 1.0, ti_id="0199").serialize()
    assert sorted(kwargs) == sorted([*of_an_answer, "step"])


@pytest.mark.skipif(AIRFLOW_2, reason="watchers came with Airflow 3")
def test_airflow_stores_this_of_a_watcher() -> None:
    from airflow_skyvern.triggers.workflow_runs import SkyvernWorkflowRunsTrigger

    path, kwargs = SkyvernWorkflowRunsTrigger("wpid_1").serialize()
    assert path == "airflow_skyvern.triggers.SkyvernWorkflowRunsTrigger"
    assert sorted(kwargs) == [
        "lookback",
        "poll_interval",
        "redeliver_to",
        "skyvern_conn_id",
        "statuses",
        "workflow_id",
    ]


@pytest.mark.parametrize("kind", [SkyvernRunTrigger, SkyvernSensorTrigger])
def test_a_subclass_is_stored_under_its_own_path(kind: type[SkyvernRunTrigger]) -> None:
    mine = type("Mine", (kind,), {"__module__": "my_company.triggers"})
    more = {"backstop": 1.0} if kind is SkyvernSensorTrigger else {}
    assert mine("wr_1", "c", 10.0, 1.0, **more).serialize()[0] == "my_company.triggers.Mine"


def test_a_deferral_carries_this_name() -> None:
    assert deferral.NOTE == "skyvern"
    assert sorted(deferral.note_of_run("wr_1", "c")) == ["app_url", "run_id", "skyvern_conn_id"]


def test_these_are_the_xcoms() -> None:
    assert {name: value for name, value in vars(xcom).items() if name.isupper()} == {
        "RUN_ID": "run_id",
        "APP_URL": "app_url",
        "AWAITING_PERSON": "awaiting_person",
        "APPROVAL": "approval",
        "CONNECTION_AND_RUN_KEY": "connection_and_run_key",
        "WORKFLOW_VERSION": "workflow_version",
        "FILES": "files",
        "EVIDENCE": "evidence",
        "MANIFEST": "manifest",
        "BROWSER_SESSION": "browser_session",
    }
