from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import airflow
import pytest

from airflow_skyvern.assets import create_asset, runs_in, sanitize_uri, skyvern_runs
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.finished_runs.uri import FINAL, runs_named, runs_uri
from airflow_skyvern.models import FINAL_STATUSES

AIRFLOW_2 = airflow.__version__.startswith("2.")
has_partitions = pytest.mark.skipif(
    tuple(map(int, airflow.__version__.split(".")[:2])) < (3, 3), reason="partitions came with Airflow 3.3"
)
on_airflow_3 = pytest.mark.skipif(AIRFLOW_2, reason="assets came with Airflow 3")

WRONG = [
    ("skyvern://", "does not name Skyvern runs"),
    ("skyvern://c", "does not name Skyvern runs"),
    ("skyvern://c/", "does not name Skyvern runs"),
    ("skyvern://c/wpid_1/more", "does not name Skyvern runs"),
    ("skyvern:/c/wpid_1", "does not name Skyvern runs"),
    ("skyvern://c/wpid_1?page=2", "page is not allowed there"),
    ("skyvern://c/wpid_1?status=done", "choose from canceled, completed"),
    ("skyvern://c/wpid_1?status=", "choose from canceled, completed"),
]


def asset(uri: str) -> Any:
    return import_module("airflow.sdk").Asset(uri=uri)


def test_the_final_statuses_are_those_of_the_models() -> None:
    assert set(FINAL) == FINAL_STATUSES


@pytest.mark.parametrize(
    ("args", "uri"),
    [
        (("wpid_1",), "skyvern://skyvern_default/wpid_1"),
        (("wpid_1", "Prod.eu"), "skyvern://Prod.eu/wpid_1"),
        (("wpid_1", "team/prod#1"), "skyvern://team%2Fprod%231/wpid_1"),
        (("wpid_1", "c", "failed"), "skyvern://c/wpid_1?status=failed"),
        (("wpid_1", "c", ["failed", "canceled", "failed"]), "skyvern://c/wpid_1?status=canceled&status=failed"),
        (("wpid_1", "c", FINAL), "skyvern://c/wpid_1"),
    ],
)
def test_workflow_connection_and_statuses_make_one_address(args: tuple[Any, ...], uri: str) -> None:
    assert runs_uri(*args) == uri
    workflow_id, conn_id, statuses = runs_named(uri)
    assert runs_uri(workflow_id, conn_id, statuses) == uri


@pytest.mark.parametrize(("uri", "complaint"), WRONG)
def test_a_wrong_address_says_how_to_write_it(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        sanitize_uri(urlsplit(uri))


@pytest.mark.parametrize("given", ["", "  ", None, 5])
def test_an_asset_cannot_be_named_by_nothing(given: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="workflow_id must be a text"):
        runs_uri(given)
    with pytest.raises(SkyvernConfigError, match="skyvern_conn_id must be a text"):
        runs_uri("wpid_1", given)


@on_airflow_3
@pytest.mark.parametrize(
    "written", ["skyvern://c/wpid_1/", "SKYVERN://c/wpid_1", "skyvern://c/%77pid_1", "skyvern://c/wpid_1#x"]
)
def test_airflow_brings_every_way_to_write_it_into_one_form(written: str) -> None:
    assert asset(written).uri == "skyvern://c/wpid_1" == skyvern_runs("wpid_1", "c").uri


@on_airflow_3
@pytest.mark.parametrize(("uri", "complaint"), WRONG[2:-1])
def test_airflow_refuses_an_asset_with_a_wrong_address(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        asset(uri)


@on_airflow_3
def test_the_factory_makes_the_same_asset() -> None:
    assert create_asset(workflow_id="wpid_1", skyvern_conn_id="c").uri == runs_uri("wpid_1", "c")


@on_airflow_3
def test_a_watched_asset_has_a_watcher_that_knows_all_of_it() -> None:
    made = skyvern_runs("wpid_1", "c", statuses="failed", watch=True, poll_interval=5)
    [watcher] = made.watchers
    assert made.uri == "skyvern://c/wpid_1?status=failed"
    assert watcher.trigger.serialize()[1] == {
        "workflow_id": "wpid_1",
        "skyvern_conn_id": "c",
        "statuses": ["failed"],
        "poll_interval": 5.0,
        "lookback": 600.0,
        "redeliver_to": None,
    }
    assert skyvern_runs("wpid_1", "c").watchers == []


def with_partitions(folder: Path, condition: str) -> dict[str, str]:
    """Load a DAG file as Airflow does, and return its import errors."""
    (folder / "d.py").write_text(
        "from airflow.sdk import DAG, Asset\n"
        "from airflow.sdk.definitions.timetables.assets import PartitionedAssetTimetable\n"
        "from airflow_skyvern.assets import skyvern_runs\n"
        f"dag = DAG('d', schedule=PartitionedAssetTimetable(assets={condition}))\n"
    )
    from airflow.dag_processing.dagbag import DagBag

    return {Path(file).name: error for file, error in DagBag(folder).import_errors.items()}


@has_partitions
@pytest.mark.parametrize(
    "condition",
    [
        "skyvern_runs('wpid_p1', watch=True)",
        "Asset('s3://b/x') | skyvern_runs('wpid_p1', watch=True)",
        "Asset('s3://b/x') & (Asset('s3://b/y') | skyvern_runs('wpid_p1', watch=True))",
    ],
)
def test_a_dag_with_partitions_that_a_watcher_should_start_is_an_import_error(tmp_path: Path, condition: str) -> None:
    [error] = with_partitions(tmp_path, condition).values()
    assert "has partitions" in error
    assert "skyvern://skyvern_default/wpid_p1" in error
    assert "redeliver_to" in error


@has_partitions
@pytest.mark.parametrize(
    "condition",
    [
        "skyvern_runs('wpid_p2')",
        "skyvern_runs('wpid_p3', watch=True, redeliver_to='https://a.example.com/skyvern/webhooks/skyvern_default')",
        "Asset('s3://b/x')",
    ],
)
def test_a_dag_with_partitions_may_be_started_by_webhooks(tmp_path: Path, condition: str) -> None:
    assert with_partitions(tmp_path, condition) == {}


@on_airflow_3
def test_redelivery_needs_a_watcher() -> None:
    with pytest.raises(SkyvernConfigError, match="needs watch=True"):
        skyvern_runs("wpid_1", redeliver_to="https://airflow.example.com/skyvern/webhooks/c")


@pytest.mark.skipif(not AIRFLOW_2, reason="what Airflow 2 says")
def test_airflow_2_is_told_that_this_needs_airflow_3() -> None:
    with pytest.raises(SkyvernConfigError, match="needs Airflow 3"):
        skyvern_runs("wpid_1")
    with pytest.raises(ImportError, match="needs Airflow 3"):
        _ = import_module("airflow_skyvern.triggers").SkyvernWorkflowRunsTrigger


def event(*run_ids: str, **extra: Any) -> Any:
    return SimpleNamespace(extra={"payload": {"runs": [{"run_id": run_id} for run_id in run_ids]}, **extra})


def test_the_runs_of_all_events_are_read_each_once_and_in_order() -> None:
    events = {"a": [event("1", "2", from_trigger=True), event("2", "3")], "b": [event("3", "4", from_webhook=True)]}
    assert [run["run_id"] for run in runs_in(events)] == ["1", "2", "3", "4"]


def test_events_that_somebody_else_made_hold_no_runs() -> None:
    strange = [SimpleNamespace(extra=extra) for extra in (None, {}, {"payload": None}, {"payload": "x"}, {"a": 1})]
    assert runs_in({"a": strange}) == []
