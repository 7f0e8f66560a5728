"""
Rows of a real run in a real table and a real Parquet file: the example DAG's tasks, one after the other.

Needs the providers ``apache-airflow-providers-postgres`` and ``pyarrow``, which no other test needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from airflow_skyvern.compat.sdk import AirflowFailException, BaseHook
from dev.postgres import PostgresServer
from dev.skyvern_server import SkyvernServer
from tests.support.tasks import FakeTaskInstance, run_task
from tests.system.conftest import ROOT, SKYVERN_VENV

if TYPE_CHECKING:
    from collections.abc import Iterator

parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("airflow.providers.postgres")

STATEMENT = "item,price\npaper,1.5\nink,20\n"
ROWS = [("paper", 1.5), ("ink", 20.0)]


@pytest.fixture
def workflow_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A workflow that reads a CSV file; the connections of the DAG lead to real servers."""
    with PostgresServer() as postgres, SkyvernServer(tmp_path / "skyvern", SKYVERN_VENV) as skyvern:
        given = {"conn_type": "skyvern", "host": skyvern.base_url, "password": skyvern.api_key}
        monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", json.dumps(given))
        address = urlsplit(postgres.url("postgres"))
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", address._replace(scheme="postgresql").geturl())
        yield skyvern.workflow("csv_rows")


def example(name: str, workflow_id: str, folder: Path) -> dict[str, Any]:
    """What a DAG file defines, with an operator that runs here."""
    defined = run_path(str(ROOT / "dags" / f"{name}.py"))
    operator = defined["rows"]
    operator.workflow_id, operator.upload = workflow_id, {"statement": f"{folder}/statement.csv"}
    operator.poll_interval = 1.0
    return defined


def test_the_rows_of_a_statement_end_in_postgresql_and_in_parquet(workflow_id: str, tmp_path: Path) -> None:
    (tmp_path / "statement.csv").write_text(STATEMENT)
    sql, ti = example("rows_to_sql", workflow_id, tmp_path), FakeTaskInstance()
    rows = run_task(lambda: sql["rows"], ti)
    for _ in range(2):  # a cleared task changes nothing
        assert sql["load"].function(rows, ti.xcoms["run_id"]) == 2
    hook = BaseHook.get_connection("warehouse").get_hook()
    assert hook.get_records("SELECT item, price FROM skyvern_rows ORDER BY number") == ROWS

    to_parquet = example("rows_to_parquet", workflow_id, tmp_path)
    file = to_parquet["write"].function(rows, ti.xcoms["run_id"], {"folder": f"file://{tmp_path}/warehouse"})
    table = parquet.read_table(file.removeprefix("file://"))
    assert [(row["item"], row["price"]) for row in table.to_pylist()] == ROWS


def test_rows_that_do_not_fit_are_not_loaded(workflow_id: str, tmp_path: Path) -> None:
    (tmp_path / "statement.csv").write_text(STATEMENT.replace("1.5", "free"))
    operator = example("rows_to_sql", workflow_id, tmp_path)["rows"]
    with pytest.raises(AirflowFailException, match=r"0\.price: Input should be a valid number"):
        run_task(lambda: operator)
