"""From a schedule to a DAG file: what is in it, that Airflow reads it, and that nobody's changes are lost."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pendulum
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_skyvern.compat.since_3_0 import dag_import
from airflow_skyvern.compat.since_3_1 import dag_bag
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.models import Schedule
from airflow_skyvern.schedules.airflow_db import AirflowDatabase
from airflow_skyvern.schedules.dag_file import (
    DagFile,
    Export,
    Options,
    dag_id_for,
    export,
    literal,
    read_file,
    tag_of,
)
from airflow_skyvern.schedules.dag_folder import DagFolder
from airflow_skyvern.secret_values import looks_secret

START = datetime(2026, 11, 24, 1, 30, tzinfo=timezone.utc)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
AWKWARD = {
    "vendor": "ACME",
    "password": "hunter2",
    "nested": {"limits": [1, 2.5, None, True], "apiToken": "t0ps3cret", "empty": {}, "none": []},
    "quotes": "both ' and \"",
    "double": 'say "hello"',
    "template": "{{ dag }} {% if %}",
    "raw": "{% endraw %} ' {{ x }}",
    "path": "C:\\new\nline \x00 ü €",
    "name": "files.json",
    "long": "x" * 200,
}


def schedule(**fields: Any) -> Schedule:
    given = {
        "workflow_schedule_id": "wfs_1",
        "workflow_permanent_id": "wpid_1",
        "cron_expression": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "enabled": True,
        "name": "Fetch invoices",
        "created_at": START - timedelta(days=30),
        "modified_at": START - timedelta(days=30),
    }
    return Schedule.model_validate({**given, **fields})


def exported(options: Options | None = None, dag_id: str = "skyvern_fetch_invoices", **fields: Any) -> Export:
    return export(schedule(**fields), "Invoices", START, options or Options(), dag_id)


def dags_of(text: str, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "made.py").write_text(text)
    bag = dag_bag(tmp_path / "made.py")
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_the_dag_has_all_that_the_schedule_says(tmp_path: Path) -> None:
    made = exported(
        Options(owner="finance", connection="prod", max_active_runs=3, retries=1),
        parameters={"vendor": "ACME"},
        description="Every night",
    )
    (dag,) = dags_of(made.block.file_text, tmp_path).values()
    assert dag.dag_id == "skyvern_fetch_invoices"
    assert (dag.catchup, dag.max_active_runs, dag.start_date) == (False, 3, START)
    assert set(dag.tags) == {"skyvern", "skyvern:wfs_1"}
    assert dag.description == "Every night"
    assert dag.doc_md.strip().startswith("Runs workflow 'Invoices' (wpid_1) of Skyvern, as its schedule wfs_1 does:")
    assert "`30 2 * * *` in Europe/Berlin" in dag.doc_md
    timetable = dag.timetable.serialize()
    assert (timetable["expression"], timetable["timezone"]) == ("30 2 * * *", "Europe/Berlin")
    guard, run = dag.get_task("skip_if_skyvern_runs_it"), dag.get_task("run")
    assert run.upstream_task_ids == {"skip_if_skyvern_runs_it"}
    assert (guard.workflow_id, guard.schedule_id, guard.skyvern_conn_id) == ("wpid_1", "wfs_1", "prod")
    assert (run.workflow_id, run.parameters, run.deferrable) == ("wpid_1", {"vendor": "ACME"}, True)
    assert (run.owner, run.retries, run.skyvern_conn_id) == ("finance", 1, "prod")


@pytest.mark.parametrize(
    ("start", "zone", "text"),
    [
        (START, "Europe/Berlin", 'pendulum.datetime(2026, 11, 24, 2, 30, tz="Europe/Berlin")'),
        (START, "UTC", 'pendulum.datetime(2026, 11, 24, 1, 30, tz="UTC")'),
        (
            datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc),
            "Europe/Berlin",
            'pendulum.datetime(2026, 10, 25, 2, 30, tz="Europe/Berlin", fold=0)',
        ),
        (
            datetime(2026, 10, 25, 1, 30, tzinfo=timezone.utc),
            "Europe/Berlin",
            'pendulum.datetime(2026, 10, 25, 2, 30, tz="Europe/Berlin", fold=1)',
        ),
    ],
)
def test_the_start_is_written_in_the_zone_of_the_schedule_and_is_the_same_moment(
    start: datetime, zone: str, text: str
) -> None:
    made = export(schedule(timezone=zone), "Invoices", start, Options(), "skyvern_fetch_invoices")
    assert f"    start_date={text},\n" in made.block.text
    assert eval(text, {"pendulum": pendulum}).timestamp() == start.timestamp()


def test_a_file_that_airflow_2_exported_is_read_after_an_upgrade(tmp_path: Path) -> None:
    text = exported().block.file_text
    assert text.count(dag_import()) == 1
    dags = dags_of(text.replace(dag_import(), "from airflow import DAG"), tmp_path)
    assert list(dags) == ["skyvern_fetch_invoices"]


def test_secrets_are_read_from_variables_and_stand_in_no_file() -> None:
    made = exported(parameters=AWKWARD)
    assert made.variables == ("skyvern_fetch_invoices_password", "skyvern_fetch_invoices_nested_apiToken")
    text = made.block.file_text
    assert "hunter2" not in text
    assert "t0ps3cret" not in text
    assert '"password": "{{ var.value.skyvern_fetch_invoices_password }}"' in text
    assert "Secrets are read from Airflow Variables: skyvern_fetch_invoices_password" in text


def test_parameters_reach_the_task_as_skyvern_had_them(tmp_path: Path) -> None:
    made = exported(parameters=AWKWARD)
    (dag,) = dags_of(made.block.file_text, tmp_path).values()
    run = dag.get_task("run")
    secrets = {
        "skyvern_fetch_invoices_password": "hunter2",
        "skyvern_fetch_invoices_nested_apiToken": "t0ps3cret",
    }
    assert run.render_template(run.parameters, {"var": {"value": secrets}}) == AWKWARD


def formatted(text: str, tmp_path: Path) -> str:
    (tmp_path / "formatted.py").write_text(text)
    ruff = Path(sys.executable).parent / "ruff"
    subprocess.run([ruff, "format", "--isolated", "--quiet", "formatted.py"], check=True, cwd=tmp_path)
    return (tmp_path / "formatted.py").read_text()


@pytest.mark.parametrize(
    "made",
    [
        exported(),
        exported(
            Options(owner="it's me", connection="prod"), parameters=AWKWARD, description="a 'b' \"c\" \\d " * 20
        ),
        exported(dag_id="skyvern_b", workflow_schedule_id="wfs_2", parameters={"a": 1}, name=None),
    ],
    ids=["plain", "awkward", "without a name"],
)
def test_a_file_is_formatted_as_a_person_would(made: Export, tmp_path: Path) -> None:
    text = made.block.file_text
    assert formatted(text, tmp_path) == text
    assert len(dags_of(text, tmp_path)) == 1


@given(JSON)
def test_every_value_is_written_so_that_python_reads_the_same(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value


@pytest.mark.slow
@given(st.text(), st.dictionaries(st.text(max_size=8), JSON, max_size=3), st.text())
def test_whatever_a_schedule_says_its_file_is_python_and_can_be_read_back(
    name: str, parameters: dict[str, Any], description: str
) -> None:
    made = exported(name=name, parameters=parameters, description=description)
    text = made.block.file_text
    compile(text, "made.py", "exec")
    assert read_file(text) == DagFile((made.block,))


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("password", "x", True),
        ("loginPassword", "x", True),
        ("api_key", "x", True),
        ("apiKey", "x", True),
        ("client_secret", "x", True),
        ("accessToken", "x", True),
        ("pin", 1234, True),
        ("note", "Bearer abcdef", True),
        ("note", "sk-abcdefghijklmnop", True),
        ("url", "https://user:pw@example.com", True),
        ("note", "eyJhbGciOi.eyJzdWIi.x", True),
        ("password1", "x", True),
        ("passwords", "x", True),
        ("password_confirm", "x", True),
        ("passwordConfirm", "x", True),
        ("pw", "x", True),
        ("x-api-key", "x", True),
        ("cvv2", "x", True),
        ("sessionid", "x", True),
        ("session_id", "x", True),
        ("passenger", "x", False),
        ("session", "x", False),
        ("credential", "cred_123", False),
        ("password", "", False),
        ("password", None, False),
        ("use_password", False, False),
        ("vendor", "ACME", False),
        ("shipping", "x", False),
        ("keyboard", "x", False),
        ("author", "x", False),
        ("url", "https://example.com/a:b@c", False),
    ],
)
def test_secrets_are_known_by_name_or_value(name: str, value: Any, secret: bool) -> None:
    assert looks_secret(name, value) is secret


def test_whatever_is_below_a_key_that_names_a_secret_is_one() -> None:
    credentials = {"user": "me", "keys": ["k1", {"any": "k2"}], "id": "cred_123", "active": True}
    made = exported(parameters={"credentials": credentials})
    assert made.variables == tuple(
        f"skyvern_fetch_invoices_credentials_{name}" for name in ("user", "keys_1", "keys_2_any")
    )
    assert all(text not in made.block.file_text for text in ('"me"', "k1", "k2"))


def rendered(value: str) -> Any:
    made = exported(parameters={"note": value})
    namespace: dict[str, Any] = {}
    exec(made.block.file_text, namespace)
    run = namespace["run"]
    return run.render_template(run.parameters, {})["note"]


@pytest.mark.parametrize(
    "value",
    [
        "one\n",
        "two\n\n",
        "a\r\nb",
        "a\rb\n",
        "{{ x }}\n",
        "{{ x }}\r\n",
        "{% raw %}\n{{ x }}",
        "\n{{ x }}",
        "  {% endraw %} \r\n",
        "{{ 'a' }} \x00 \u2028",
        "\ud800 {{",
        "files.json",
        "run.sql",
        "script.sh",
    ],
)
def test_a_value_goes_through_airflows_rendering_unchanged(value: str) -> None:
    assert rendered(value) == value


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.text(st.sampled_from("{}%#-+ \r\n\\'\"aendrw") | st.characters(), max_size=30))
def test_any_value_goes_through_airflows_rendering_unchanged(value: str) -> None:
    assume(not looks_secret("note", value))
    assert rendered(value) == value


@pytest.mark.parametrize("schedule_id", ["wfs_1\nimport os", "../wfs_1", 'wfs_1"', "wfs_1'", "wfs 1", "", "wfs_1\n"])
def test_an_id_that_could_break_out_of_the_file_is_refused(schedule_id: str) -> None:
    with pytest.raises(SkyvernConfigError, match="is not the id of a schedule"):
        exported(workflow_schedule_id=schedule_id)
    with pytest.raises(SkyvernConfigError, match="is not the id of a schedule"):
        dag_id_for(schedule(workflow_schedule_id=schedule_id, name=None), "", [])


def test_a_schedule_without_cron_is_refused() -> None:
    with pytest.raises(SkyvernConfigError, match="wfs_1 fires every 2:00:00: only schedules with a cron"):
        exported(cron_expression=None, interval_seconds=7200)


@pytest.mark.parametrize(
    ("name", "title", "taken", "dag_id"),
    [
        ("Fetch invoices!", "x", [], "skyvern_fetch_invoices"),
        (None, "Größe & co", [], "skyvern_gr_e_co"),
        (None, "発票", [], "skyvern_wfs_1"),
        ("a", "x", ["skyvern_a"], "skyvern_a_wfs_1"),
    ],
)
def test_a_dag_is_called_as_its_schedule(name: str | None, title: str, taken: list[str], dag_id: str) -> None:
    assert dag_id_for(schedule(name=name), title, taken) == dag_id


def test_a_file_that_somebody_put_together_is_known_as_changed_and_its_dags_are_found() -> None:
    first, second = exported().block, exported(dag_id="skyvern_b", workflow_schedule_id="wfs_2").block
    body = f"{first.file_text.partition(chr(10))[2]}\n\n{second.text}"
    text = f"# airflow-skyvern schedules sha256={hashlib.sha256(body.encode()).hexdigest()}\n{body}"
    assert read_file(text) == DagFile((first, second), changed=True)


def test_a_file_that_was_changed_is_known_as_such() -> None:
    text = exported().block.file_text
    changed = read_file(text.replace("max_active_runs=1", "max_active_runs=2"))
    assert changed is not None
    assert changed.changed
    assert [block.schedule_id for block in changed.blocks] == ["wfs_1"]
    without_mark = read_file(text.split("\n", 1)[1])
    assert without_mark is not None
    assert without_mark.changed
    assert read_file("print('something else')") is None


def test_a_schedule_is_found_in_whatever_file_it_stands(tmp_path: Path) -> None:
    folder = DagFolder(tmp_path)
    assert folder.find_slot("wfs_1", "skyvern_a").path == tmp_path / "skyvern_a.py"
    (tmp_path / "team").mkdir()
    folder.write(tmp_path / "team" / "all.py", exported().block.file_text)
    slot = folder.find_slot("wfs_1", "skyvern_a")
    assert (slot.path, slot.block) == (tmp_path / "team" / "all.py", exported().block)
    assert slot.untouched
    assert folder.dag_ids == {"skyvern_fetch_invoices"}
    assert folder.holds(slot.path, exported().block.file_text)


def test_a_file_of_somebody_else_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "skyvern_a.py").write_text("mine = True\n")
    assert not DagFolder(tmp_path).find_slot("wfs_1", "skyvern_a").untouched


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder, path = DagFolder(tmp_path), tmp_path / "skyvern_a.py"
    folder.write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        folder.write(path, "half \ud800")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["skyvern_a.py"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SkyvernConfigError, match=r"The folder .*nowhere does not exist"):
        DagFolder(tmp_path / "nowhere")


def test_airflow_says_what_is_wrong_with_a_file() -> None:
    text = exported().block.file_text
    side = AirflowDatabase()
    assert side.find_problem(text, "wfs_1") is None
    assert side.find_problem(text, "wfs_2") == f"none of its DAGs has the tag {tag_of('wfs_2')}"
    assert "no_such_module" in str(side.find_problem(f"import no_such_module\n{text}", "wfs_1"))
