"""Rows of a real run in a real table and a real Parquet file: the tasks of the examples, one after the other."""

from __future__ import annotations

from io import BytesIO
from runpy import run_path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from airflow_skyvern.compat.sdk import AirflowFailException, BaseHook
from dev.postgres import PostgresServer
from tests.stores.conftest import BUCKET, ROOT, Rig
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATEMENT = "item,price\npaper,1.5\nink,20\n"
ROWS = [("paper", 1.5), ("ink", 20.0)]


@pytest.fixture
def _warehouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with PostgresServer() as postgres:
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres.uri("postgres"))
        yield


def example(name: str, rig: Rig, statement: str, conn_id: str | None = None) -> dict[str, Any]:
    """What a DAG file defines, with an operator that sends the statement at this address and runs here."""
    defined = run_path(str(ROOT / "dags" / f"{name}.py"))
    operator = defined["rows"]
    operator.workflow_id = rig.skyvern.workflow("csv_rows")
    operator.upload, operator.upload_conn_id = {"statement": statement}, conn_id
    operator.poll_interval = 1.0
    return defined


@pytest.mark.usefixtures("_warehouse")
def test_the_rows_of_a_statement_end_in_postgresql_and_in_parquet(rig: Rig) -> None:
    rig.s3.client.put_object(Bucket=BUCKET, Key="rows/statement.csv", Body=STATEMENT.encode())
    sql, ti = example("rows_to_sql", rig, f"s3://{BUCKET}/rows/statement.csv", "s3"), FakeTaskInstance()
    rows = run_task(lambda: sql["rows"], ti)
    for _ in range(2):  # a cleared task changes nothing
        assert sql["load"].function(rows, ti.xcoms["run_id"]) == 2
    hook = BaseHook.get_connection("warehouse").get_hook()
    assert hook.get_records("SELECT item, price FROM skyvern_rows ORDER BY number") == ROWS

    to_parquet = example("rows_to_parquet", rig, "not read")
    to_parquet["write"].function(rows, ti.xcoms["run_id"], {"folder": f"s3://aws_default@{BUCKET}/warehouse"})
    table = parquet.read_table(BytesIO(rig.s3.read(BUCKET, f"warehouse/{ti.xcoms['run_id']}.parquet")))
    assert [(row["item"], row["price"]) for row in table.to_pylist()] == ROWS


def test_rows_that_do_not_fit_are_not_loaded(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "statement.csv").write_text(STATEMENT.replace("1.5", "free"))
    operator = example("rows_to_sql", rig, f"{tmp_path}/statement.csv")["rows"]
    with pytest.raises(AirflowFailException, match=r"0\.price: Input should be a valid number"):
        run_task(lambda: operator)
