"""The project's own example DAGs, each with the kit: what its page promises."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.testing import completed, extracted, failed, terminated

if TYPE_CHECKING:
    from airflow_skyvern.testing import Ending, Skyvern
    from tests.kit.conftest import DagOf

EXAMPLES = Path(__file__).parents[2] / "dags"
ROWS = [{"item": "Paper", "price": 2.5}, {"item": "Ink", "price": 4.0}]
OUTPUT = {"rows_output": extracted(ROWS)}


def value(run: Any, task_id: str) -> Any:
    """Return what a task has returned."""
    (instance,) = run.get_task_instances() and [ti for ti in run.get_task_instances() if ti.task_id == task_id]
    return instance.xcom_pull(task_ids=task_id)


def states(run: Any) -> dict[str, set[str]]:
    """Return the states of a DAG run's task instances, by task."""
    found: dict[str, set[str]] = {}
    for instance in run.get_task_instances():
        found.setdefault(instance.task_id, set()).add(str(getattr(instance.state, "value", instance.state)))
    return found


class Warehouse:
    """In the place of a hook for PostgreSQL."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def get_hook(self) -> Warehouse:
        return self

    def run(self, sql: str, parameters: Any = None) -> None:
        if sql.startswith("DELETE"):
            self.rows = [row for row in self.rows if row[:2] != parameters]

    def insert_rows(self, table: str, rows: Any, columns: Any, **options: Any) -> None:
        self.rows.extend(rows)


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """What the connection ``warehouse`` leads to."""
    made, hook = Warehouse(), import_module("airflow.hooks.base").BaseHook
    original = hook.get_connection
    found = staticmethod(lambda name: made if name == "warehouse" else original(name))
    monkeypatch.setattr(hook, "get_connection", found)
    return made


def test_run_and_use_output(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT, parameters={"vendor": "string", "month": "string"})
    run = dag_of(EXAMPLES / "run_and_use_output.py").test(run_conf={"vendor": "Globex"})
    assert run.state == "success"
    assert skyvern.started("wpid_123")[0].parameters == {"vendor": "Globex", "month": "2026-10"}
    assert value(run, "report") == ["rows_output"]


def test_start_and_wait_separately(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT)
    run = dag_of(EXAMPLES / "start_and_wait_separately.py").test()
    assert states(run) == {"start": {"success"}, "wait": {"success"}, "work_meanwhile": {"success"}}
    assert value(run, "wait") == OUTPUT


def test_one_run_per_item(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT, parameters={"vendor": "string", "month": "string"})
    run = dag_of(EXAMPLES / "one_run_per_item.py").test(run_conf={"vendors": ["ACME", "Oak"]})
    assert run.state == "success"
    assert {started.parameters["vendor"] for started in skyvern.started()} == {"ACME", "Oak"}


def test_rows_to_sql(skyvern: Skyvern, dag_of: DagOf, warehouse: Warehouse, tmp_path: Path) -> None:
    (statement := tmp_path / "2026-10.csv").write_bytes(b"item;price")
    skyvern.workflow("wpid_123", output=OUTPUT, parameters={"statement": "file_url"})
    run = dag_of(EXAMPLES / "rows_to_sql.py").test(run_conf={"statement": str(statement)})
    assert run.state == "success"
    (started,) = skyvern.started()
    assert warehouse.rows == [(started.run_id, 0, "Paper", 2.5), (started.run_id, 1, "Ink", 4.0)]
    assert list(skyvern.fake.uploads.values()) == [("2026-10.csv", b"item;price")]


def test_rows_to_sql_loads_nothing_that_is_no_row(
    skyvern: Skyvern, dag_of: DagOf, warehouse: Warehouse, tmp_path: Path
) -> None:
    (statement := tmp_path / "2026-10.csv").write_bytes(b"item;price")
    skyvern.workflow("wpid_123", output={"rows_output": extracted([{"item": "Paper"}])})
    assert dag_of(EXAMPLES / "rows_to_sql.py").test(run_conf={"statement": str(statement)}).state == "failed"
    assert warehouse.rows == []


def test_rows_to_parquet(skyvern: Skyvern, dag_of: DagOf, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    skyvern.workflow("wpid_123", output=OUTPUT)
    run = dag_of(EXAMPLES / "rows_to_parquet.py").test(run_conf={"folder": f"file://{tmp_path}"})
    assert run.state == "success"
    (started,) = skyvern.started()
    assert parquet.read_table(tmp_path / f"{started.run_id}.parquet").to_pylist() == ROWS


def test_keep_downloaded_files(skyvern: Skyvern, dag_of: DagOf, tmp_path: Path) -> None:
    output = {"read_invoices_output": extracted({"total_open": 6.5})}
    skyvern.workflow("wpid_123", output=output, files={"download.pdf": b"%PDF"})
    run = dag_of(EXAMPLES / "keep_downloaded_files.py").test(run_conf={"folder": str(tmp_path / "invoices")})
    assert run.state == "success"
    assert value(run, "report") == {"open": 6.5, "pdf": str(tmp_path / "invoices" / "INV-1003.pdf")}


def test_files_and_rows(skyvern: Skyvern, dag_of: DagOf, tmp_path: Path) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT, files={"download.pdf": b"%PDF"})
    conf = {"folder": str(tmp_path / "statements"), "vendors": ["ACME", "Oak"]}
    run = dag_of(EXAMPLES / "files_and_rows.py").test(run_conf=conf)
    assert value(run, "summary") == {"files": 2, "rows": 4, "total": 13.0}


def test_monthly_statements(skyvern: Skyvern, dag_of: DagOf, warehouse: Warehouse, tmp_path: Path) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT, files={"download.pdf": b"%PDF"})
    conf = {"folder": str(tmp_path / "statements"), "vendors": ["ACME", "Oak"]}
    run = dag_of(EXAMPLES / "monthly_statements.py").test(run_conf=conf)
    assert run.state == "success"
    (month,) = {started.parameters["month"] for started in skyvern.started()}
    assert {(row[0], row[1]) for row in warehouse.rows} == {(month, "ACME"), (month, "Oak")}
    assert sorted(file.name for file in (tmp_path / "statements" / month).iterdir()) == ["ACME.pdf", "Oak.pdf"]


def test_monthly_statements_loads_the_others_when_one_vendor_fails(
    skyvern: Skyvern, dag_of: DagOf, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(parameters: dict[str, Any]) -> Ending:
        return failed("wrong password") if parameters["vendor"] == "Oak" else completed(OUTPUT, {"d.pdf": b"%PDF"})

    sent: list[Any] = []
    notifier = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
    monkeypatch.setattr(f"{notifier}.notify", lambda self, context: sent.append(self.subject))
    skyvern.workflow("wpid_123", ending)
    conf = {"folder": str(tmp_path / "statements"), "vendors": ["ACME", "Oak"]}
    run = dag_of(EXAMPLES / "monthly_statements.py").test(run_conf=conf)
    assert run.state == "failed"
    assert {row[1] for row in warehouse.rows} == {"ACME"}
    assert states(run)["fetch"] == {"success", "failed"}
    assert sent


def test_handle_a_failed_run(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", failed("wrong password", error_code="LOGIN_FAILED"))
    run = dag_of(EXAMPLES / "handle_a_failed_run.py").test()
    assert value(run, "explain") == {
        "status": "failed",
        "reason": "wrong password",
        "codes": ["LOGIN_FAILED"],
        "see": f"http://localhost:8080/runs/{skyvern.started()[0].run_id}",
    }


def test_prompt_to_rows(skyvern: Skyvern, dag_of: DagOf) -> None:
    invoices = [
        {"invoice": "4711", "customer": "ACME", "amount": 12.5},
        {"invoice": "2", "customer": "B", "amount": 1},
    ]
    skyvern.prompts(output=invoices)
    run = dag_of(EXAMPLES / "prompt_to_rows.py").test()
    assert value(run, "total") == 13.5
    (started,) = skyvern.started()
    assert started.parameters["url"] == "https://portal.example.com/invoices"


def test_data_of_a_prompt_that_does_not_fit_fails_the_task(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.prompts(lambda parameters: completed([{"invoice": parameters["prompt"]}]))
    run = dag_of(EXAMPLES / "prompt_to_rows.py").test()
    assert states(run)["invoices"] == {"failed"}


def test_workflow_in_git(skyvern: Skyvern, dag_of: DagOf) -> None:
    rows = [{"invoice": "4711", "amount": 12.5}, {"invoice": "4712", "amount": 1}]
    skyvern.workflow_file("open_invoices.yaml", output={"read_invoices_output": extracted(rows)})
    run = dag_of(EXAMPLES / "workflow_in_git.py").test(run_conf={"month": "2026-09"})
    assert value(run, "total") == 13.5
    (started,) = skyvern.started()
    assert started.parameters == {"month": "2026-09", "portal": "https://portal.example.com/invoices"}
    (made,) = [one for one in skyvern.fake.workflows.values() if one.workflow_id == started.workflow_id]
    assert (made.title, made.version, made.tags["airflow_file"]) == ("Open invoices", 1, "open_invoices.yaml")


def test_log_in_by_name(skyvern: Skyvern, dag_of: DagOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "https://airflow.example.com")
    monkeypatch.setenv(
        "AIRFLOW_CONN_PORTAL", '{"conn_type": "http", "login": "me", "password": "zebra-passphrase-7"}'
    )
    skyvern.workflow("wpid_123", parameters={"login": "credential_id"}, output=OUTPUT)
    theirs = skyvern.credential("of others")
    run = dag_of(EXAMPLES / "log_in_by_name.py").test()
    assert run.state == "success"
    ((_, kept), (made, portal)) = skyvern.fake.credentials.items()
    assert (kept.credential_id, portal.name) == (theirs, "portal")
    assert portal.content == {"username": "me", "password": "zebra-passphrase-7"}
    assert value(run, "logins")["created"] == [{"connection": "portal", "name": "portal", "credential_id": made}]
    assert skyvern.started()[0].parameters == {"login": made}


def test_function_per_vendor(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output={"invoices": 3})
    run = dag_of(EXAMPLES / "function_per_vendor.py").test()
    assert run.state == "success"
    assert {started.parameters["vendor"] for started in skyvern.started()} == {"ACME", "Globex", "Initech"}


@pytest.mark.parametrize("name", ["watch_finished_runs.py", "one_dag_run_per_webhook.py"])
def test_an_example_that_finished_runs_start(skyvern: Skyvern, dag_of: DagOf, name: str) -> None:
    run = dag_of(EXAMPLES / name).test()
    assert run.state == "success"
    assert skyvern.requests == []


def test_each_example_is_tested_here() -> None:
    here = Path(__file__).read_text() + (Path(__file__).parents[1] / "agents" / "test_example.py").read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in here] == []


def test_several_runs_in_one_session(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output={})
    skyvern.prompts(output={"answer": "seven"})
    run = dag_of(EXAMPLES / "several_runs_in_one_session.py").test()
    assert run.state == "success"
    assert skyvern.fake.open_sessions == []
    ((profile, made),) = skyvern.fake.profiles.items()
    assert (made.name, value(run, "keep_login")) == ("portal", profile)
    [session] = skyvern.fake.sessions
    assert {started.request["browser_session_id"] for started in skyvern.fake.started} == {session}
    assert not any(started.occupied_by for started in skyvern.fake.started)


def test_log_in_monthly(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output={})
    for _ in range(2):
        assert dag_of(EXAMPLES / "log_in_monthly.py").test().state == "success"
    assert [known.name for known in skyvern.fake.profiles.values()] == ["portal"]
    assert skyvern.fake.open_sessions == []


def test_ask_for_a_code_of_a_portal_that_wants_none(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_123", output={})
    run = dag_of(EXAMPLES / "ask_for_a_code.py").test()
    assert run.state == "success"
    assert [known.name for known in skyvern.fake.profiles.values()] == ["portal"]
    assert skyvern.fake.totp_codes == []


@pytest.mark.parametrize("output", [{"answer": "seven"}, {}])
def test_stay_logged_in_with_the_login_of_the_month(skyvern: Skyvern, dag_of: DagOf, output: Any) -> None:
    profile = skyvern.fake.profile("portal")
    skyvern.workflow("wpid_123", output={})
    skyvern.prompts(output=output)
    run = dag_of(EXAMPLES / "stay_logged_in.py").test()
    assert run.state == "success"
    [started] = skyvern.fake.started
    assert started.request["browser_profile_id"] == profile
    assert states(run)["read_again"] == states(run)["open_browser_session"] == {"skipped"}


@pytest.mark.parametrize("first", ["logged out", "no profile yet"])
def test_stay_logged_in_logs_in_again_by_itself(skyvern: Skyvern, dag_of: DagOf, first: str) -> None:
    skyvern.workflow("wpid_123", output={})
    endings = [terminated("the page asks to sign in", error_code="LOGGED_OUT"), completed({"answer": "seven"})]
    if first == "logged out":
        skyvern.fake.profile("portal")
    skyvern.prompts(*endings[first != "logged out" :])
    run = dag_of(EXAMPLES / "stay_logged_in.py").test()
    assert run.state == "success"
    assert states(run)["read"] == {"failed"}
    assert value(run, "read_again") == "seven"
    [profile] = skyvern.fake.profiles
    assert skyvern.fake.started[-1].request["browser_profile_id"] == profile
    assert skyvern.fake.open_sessions == []


def test_stay_logged_in_fails_when_another_login_does_not_help(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.fake.profile("portal")
    skyvern.workflow("wpid_123", output={})
    skyvern.prompts(failed("the portal is down"))
    run = dag_of(EXAMPLES / "stay_logged_in.py").test()
    assert run.state == "failed"
    assert skyvern.fake.sessions == {}
