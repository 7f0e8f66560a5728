"""What OpenLineage, as its provider for Airflow reads it, knows of stored files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.sdk.lineage import HookLineageCollector

from airflow_skyvern.compat.stores import add_input_to_lineage, add_output_to_lineage
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import SkyvernDownloadFilesOperator
from airflow_skyvern.testing.loopback import Loopback
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


def outputs() -> set[tuple[str, str]]:
    """The outputs of this process's task: namespace and name."""
    found = ExtractorManager().get_hook_lineage()
    return {(output.namespace, output.name) for output in found.outputs} if found else set()


@pytest.fixture(autouse=True)
def _new_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that has nothing of other tests, as each task has."""
    from airflow.sdk import lineage

    new = HookLineageCollector()
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", lambda: new)


def test_a_file_in_a_folder_is_an_output_of_its_task(
    fake: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback() as server:
        server.fake = fake
        given = {"conn_type": "skyvern", "host": server.url, "password": fake.api_key}
        monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", json.dumps(given))
        run_id = fake.run(plan=("completed",), artifacts={"a.pdf": b"%PDF"})
        task = SkyvernDownloadFilesOperator(task_id="t", run_id=run_id, files_to=str(tmp_path))
        run_task(lambda: task, FakeTaskInstance())
    assert outputs() == {("file", f"{tmp_path}/a.pdf")}


def test_a_workflow_is_an_input_of_its_connection() -> None:
    add_input_to_lineage(SkyvernHook(), "skyvern://skyvern_default/wpid_123")
    found = ExtractorManager().get_hook_lineage()
    assert found is not None
    assert [(item.namespace, item.name) for item in found.inputs] == [("skyvern://skyvern_default", "wpid_123")]


def test_an_object_is_an_output_in_its_bucket() -> None:
    add_output_to_lineage(SkyvernHook(), "s3://invoices/2026-11-26/r1-1.pdf")
    assert outputs() == {("s3://invoices", "2026-11-26/r1-1.pdf")}
