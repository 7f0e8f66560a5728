"""
The operators and sensors on a real Airflow, against a real Skyvern server, read back over both REST APIs.

Everything is started at once and then looked at, since most of the time is waiting.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dev.airflow_server import DATABASE
from dev.process import wait_until
from dev.skyvern_server import ECHOED_SECRET, workflows
from tests.faults.leaks import Leaks

if TYPE_CHECKING:
    from tests.system.conftest import Rig

WAYS = ["deferred", "worker"]
MODES = ["poke", "reschedule", "deferrable"]
OVER = ("success", "failed", "skipped", "upstream_failed")
SLOW = 240.0
"""Seconds for a task to end when all the others want the two cores too."""

ENDINGS = {
    "fail_http": ("SkyvernRunFailed", "http_request block failed"),
    "terminate": ("SkyvernRunTerminated", "not today"),
}
EARLY = {"ok": "wait_5", "bad": "fail_http", "late": "long_wait"}
EXAMPLES = {
    "skyvern_run_and_use_output": "invoices",
    "skyvern_start_and_wait_separately": "ok_wait",
    "skyvern_one_run_per_item": "invoices",
    "skyvern_handle_a_failed_run": "fail_http",
}


@pytest.fixture(scope="session")
def all_started(rig: Rig) -> Rig:
    for way in WAYS:
        rig.start(f"ok_{way}", f"run_{way}", "params_http", parameters={"name": "Ann", "count": 7})
        for workflow in ENDINGS:
            rig.start(f"{workflow}_{way}", f"ends_{way}", workflow)
        rig.start(f"secret_{way}", f"run_{way}", "secret_http")
        rig.start(f"timeout_{way}", f"timeout_{way}", "long_wait")
        rig.start(f"wrong_key_{way}", f"wrong_key_{way}", "ok_wait")
    rig.start("mapped", "mapped", "params_http", vendors=[f"vendor {n}" for n in range(10)])
    rig.start("sensors", "sensors", "wait_5")
    for ending in ("hard", "soft"):
        rig.start(f"sensors_{ending}", f"sensors_{ending}", "fail_http")
        rig.start(f"sensors_timeout_{ending}", f"sensors_timeout_{ending}", "long_wait")
    rig.start("execution_timeout", "execution_timeout", "long_wait")
    for name, workflow in EARLY.items():
        rig.start(f"early_{name}", f"early_{name}", workflow)
    rig.airflow.cli("pools", "set", "--include-deferred", "skyvern", "5", "Skyvern runs at a time")
    for dag_id, workflow in EXAMPLES.items():
        rig.start(dag_id, dag_id, workflow)
    return rig


def ended(rig: Rig, dag_id: str, name: str, task_id: str = "run", map_index: int = -1) -> dict[str, Any]:
    return rig.airflow.wait_task(dag_id, rig.started[name], task_id, OVER, timeout=SLOW, map_index=map_index)


def xcom(rig: Rig, dag_id: str, name: str, task_id: str = "run", key: str = "return_value", **kwargs: Any) -> Any:
    return rig.airflow.xcom(dag_id, rig.started[name], task_id, key=key, **kwargs)


def log_of(rig: Rig, dag_id: str, name: str, task_id: str = "run") -> str:
    return rig.airflow.log(dag_id, rig.started[name], task_id)


def eventually_xcom(rig: Rig, dag_id: str, name: str, key: str, timeout: float = 60) -> Any:
    """Read an XCom of a task that is still running."""
    found: list[Any] = []

    def there() -> bool:
        with suppress(KeyError):
            found.append(xcom(rig, dag_id, name, key=key))
        return bool(found)

    wait_until(f"XCom {key} of {name}", there, timeout)
    return found[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_completed_run_gives_its_output_to_the_next_task(all_started: Rig, way: str) -> None:
    check_output(all_started, f"run_{way}", f"ok_{way}")


@pytest.mark.core
def test_the_main_job(rig: Rig) -> None:
    """A task lets go of its worker while its run goes on, and the next task has the output."""
    rig.start("main", "run_deferred", "params_http", parameters={"name": "Ann", "count": 7})
    check_output(rig, "run_deferred", "main")
    assert "deferr" in log_of(rig, "run_deferred", "main").lower()


def check_output(rig: Rig, dag_id: str, name: str) -> None:
    assert ended(rig, dag_id, name)["state"] == "success"
    run_id = xcom(rig, dag_id, name, key="run_id")
    status, run = rig.skyvern.request("GET", f"/v1/runs/{run_id}")
    assert (status, run["status"]) == (200, "completed")
    assert xcom(rig, dag_id, name) == run["output"]
    assert run["output"]["echo_output"]["body"]["got"]["name"] == "Ann"
    assert ended(rig, dag_id, name, "use")["state"] == "success"
    assert xcom(rig, dag_id, name, "use") == {"seen": run["output"]}


@pytest.mark.parametrize("way", WAYS)
def test_the_log_tells_start_link_and_end(all_started: Rig, way: str) -> None:
    rig, name, dag_id = all_started, f"ok_{way}", f"run_{way}"
    ended(rig, dag_id, name)
    run_id, app_url = (xcom(rig, dag_id, name, key=key) for key in ("run_id", "app_url"))
    log = log_of(rig, dag_id, name)
    assert f"Skyvern run {run_id} of workflow {rig.skyvern.workflow('params_http')}: started, see {app_url}" in log
    assert f"Skyvern run {run_id}: completed after" in log
    assert "HTTP Request:" not in log


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("workflow", ENDINGS)
def test_a_run_that_ends_badly_fails_the_task_with_its_reason(all_started: Rig, way: str, workflow: str) -> None:
    rig, name, dag_id = all_started, f"{workflow}_{way}", f"ends_{way}"
    error, reason = ENDINGS[workflow]
    assert ended(rig, dag_id, name)["state"] == "failed"
    log = log_of(rig, dag_id, name)
    assert error in log
    assert reason in log
    assert rig.airflow.links(dag_id, rig.started[name], "run") == {
        "Skyvern run": xcom(rig, dag_id, name, key="app_url")
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_timeout_cancels_the_run_and_fails_the_task(all_started: Rig, way: str) -> None:
    rig, name = all_started, f"timeout_{way}"
    assert ended(rig, name, name)["state"] == "failed"
    assert "SkyvernWaitTimeout" in log_of(rig, name, name)
    assert rig.run_status(xcom(rig, name, name, key="run_id")) == "canceled"


def test_execution_timeout_cancels_the_run_of_a_deferred_task(all_started: Rig) -> None:
    rig, name = all_started, "execution_timeout"
    assert ended(rig, name, name)["state"] == "failed"
    assert rig.run_status(xcom(rig, name, name, key="run_id")) == "canceled"


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_key_fails_at_once_and_says_so(all_started: Rig, way: str) -> None:
    rig, name = all_started, f"wrong_key_{way}"
    task = ended(rig, name, name)
    assert (task["state"], task["try_number"]) == ("failed", 1)
    assert "Check the API key" in log_of(rig, name, name)


def test_ten_mapped_runs_each_give_their_own_output(all_started: Rig) -> None:
    rig = all_started
    for index in range(10):
        assert ended(rig, "mapped", "mapped", "fetch", index)["state"] == "success"
    run_ids = {xcom(rig, "mapped", "mapped", "fetch", "run_id", map_index=index) for index in range(10)}
    assert len(run_ids) == 10
    assert ended(rig, "mapped", "mapped", "collect")["state"] == "success"
    assert xcom(rig, "mapped", "mapped", "collect") == [f"vendor {n}" for n in range(10)]
    links = [rig.airflow.links("mapped", rig.started["mapped"], "fetch", map_index=n) for n in (0, 9)]
    assert links[0] != links[1]


@pytest.mark.parametrize("mode", MODES)
def test_a_sensor_returns_the_output_in_every_mode(all_started: Rig, mode: str) -> None:
    rig = all_started
    assert ended(rig, "sensors", "sensors", mode)["state"] == "success"
    assert xcom(rig, "sensors", "sensors", mode)["pause_output"] == {"success": True}
    assert ended(rig, "sensors", "sensors", f"use_{mode}")["state"] == "success"
    assert list(rig.airflow.links("sensors", rig.started["sensors"], mode)) == ["Skyvern run"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("ending", "state"), [("hard", "failed"), ("soft", "skipped")])
def test_soft_fail_skips_after_a_run_that_ended_badly(all_started: Rig, mode: str, ending: str, state: str) -> None:
    name = f"sensors_{ending}"
    assert ended(all_started, name, name, f"ends_badly_{mode}")["state"] == state


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ["hard", "soft"])
def test_a_sensor_with_a_wrong_key_fails_at_once_also_with_soft_fail(
    all_started: Rig, mode: str, ending: str
) -> None:
    name = f"sensors_{ending}"
    task = ended(all_started, name, name, f"wrong_key_{mode}")
    assert (task["state"], task["try_number"]) == ("failed", 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("ending", "state"), [("hard", "failed"), ("soft", "skipped")])
def test_a_sensor_honours_its_timeout_and_never_cancels(all_started: Rig, mode: str, ending: str, state: str) -> None:
    rig, name = all_started, f"sensors_timeout_{ending}"
    task = ended(rig, name, name, mode)
    assert (task["state"], task["try_number"]) == (state, 1)
    if ending == "hard":
        assert "AirflowSensorTimeout" in log_of(rig, name, name, mode)
    assert rig.run_status(xcom(rig, name, name, "start")) == "running"


@pytest.mark.parametrize(
    ("name", "how", "state", "without_worker"),
    [
        ("ok", "resumed", "success", False),
        ("ok", "ended", "success", True),
        ("bad", "resumed", "failed", False),
        ("bad", "ended", "failed", True),
        ("bad", "soft", "skipped", True),
        ("late", "resumed", "failed", False),
        ("late", "ended", "failed", False),
        ("late", "soft", "skipped", True),
    ],
)
def test_a_sensor_starts_and_ends_without_a_worker_where_airflow_can(
    all_started: Rig, name: str, how: str, state: str, *, without_worker: bool
) -> None:
    rig, dag_id = all_started, f"early_{name}"
    task = ended(rig, dag_id, dag_id, how)
    assert (task["state"], task["try_number"]) == (state, 1)
    log = log_of(rig, dag_id, dag_id, how)
    starts_early = rig.airflow.version >= (3, 3)
    assert ("this worker starts the wait" in log) is not starts_early
    if starts_early:
        assert (task["pid"] is None) is without_worker
    if not (starts_early and without_worker):
        run_id = xcom(rig, dag_id, dag_id, "start")
        assert xcom(rig, dag_id, dag_id, how, "run_id") == run_id
        assert list(rig.airflow.links(dag_id, rig.started[dag_id], how)) == ["Skyvern run"]
    if name == "late" and not without_worker:
        assert "AirflowSensorTimeout" in log


def test_a_sensor_that_starts_in_the_triggerer_gives_its_output_to_the_next_task(all_started: Rig) -> None:
    rig = all_started
    assert ended(rig, "early_ok", "early_ok", "use_resumed")["state"] == "success"
    output = xcom(rig, "early_ok", "early_ok", "resumed")
    assert output["pause_output"] == {"success": True}
    assert xcom(rig, "early_ok", "early_ok", "use_resumed") == {"seen": output}


def test_a_mapped_sensor_starts_on_a_worker_and_says_so(all_started: Rig) -> None:
    rig = all_started
    ended(rig, "early_ok", "early_ok", "resumed")
    run_id = xcom(rig, "early_ok", "early_ok", "start")
    rig.start("early_mapped", "early_mapped", "wait_5", vendors=[run_id])
    assert ended(rig, "early_mapped", "early_mapped", "wait", 0)["state"] == "success"
    assert xcom(rig, "early_mapped", "early_mapped", "wait", map_index=0)["pause_output"] == {"success": True}


def test_an_authorization_header_that_a_block_echoes_is_nowhere_in_airflow(all_started: Rig) -> None:
    rig = all_started
    for way in WAYS:
        assert ended(rig, f"run_{way}", f"secret_{way}")["state"] == "success"
        echo = xcom(rig, f"run_{way}", f"secret_{way}")["fetch_output"]
        assert (echo["request_headers"]["Authorization"], echo["request_headers"]["Cookie"]) == ("***", "***")
        assert echo["request_url"].endswith("/json?token=***&page=2")
    run_id = xcom(rig, "run_worker", "secret_worker", key="run_id")
    assert ECHOED_SECRET in str(rig.skyvern.request("GET", f"/v1/runs/{run_id}")[1])
    leaks = Leaks(rig.airflow, {ECHOED_SECRET, run_id})
    leaks.look_into_database()
    leaks.look_into_files()
    assert any(run_id[:8] in place for place in leaks.found)  # it finds what is there
    assert not [place for place in leaks.found if ECHOED_SECRET[:8] in place]


@pytest.mark.parametrize("dag_id", EXAMPLES)
def test_every_example_dag_runs_to_its_end(all_started: Rig, dag_id: str) -> None:
    rig = all_started
    assert rig.airflow.wait_run(dag_id, rig.started[dag_id], timeout=SLOW) == "success"
    if dag_id == "skyvern_handle_a_failed_run":
        explained = xcom(rig, dag_id, dag_id, "explain")
        assert explained["status"] == "failed"
        assert "HTTP 500" in explained["reason"]


@pytest.mark.parametrize("way", WAYS)
def test_the_link_works_while_the_task_waits_and_after_the_run_was_canceled_in_skyvern(rig: Rig, way: str) -> None:
    name, dag_id = f"canceled_{way}", f"ends_{way}"
    rig.start(name, dag_id, "long_wait")
    waiting = "deferred" if way == "deferred" else "running"
    rig.airflow.wait_task(dag_id, rig.started[name], "run", waiting, timeout=SLOW)
    app_url = eventually_xcom(rig, dag_id, name, "app_url")
    run_id = xcom(rig, dag_id, name, key="run_id")
    if way == "deferred":
        assert rig.airflow.links(dag_id, rig.started[name], "run") == {"Skyvern run": app_url}
    rig.cancel(run_id)
    assert ended(rig, dag_id, name)["state"] == "failed"
    assert "SkyvernRunCanceled" in log_of(rig, dag_id, name)
    assert rig.airflow.links(dag_id, rig.started[name], "run") == {"Skyvern run": app_url}


@pytest.mark.core
def test_a_task_killed_while_it_waits_on_its_worker_cancels_its_run(rig: Rig) -> None:
    rig.start("killed", "ends_worker", "long_wait")
    rig.airflow.wait_task("ends_worker", rig.started["killed"], "run", "running", timeout=SLOW)
    run_id = eventually_xcom(rig, "ends_worker", "killed", "run_id")
    rig.airflow.mark("ends_worker", rig.started["killed"], "run", "failed")
    rig.wait_run_status(run_id, "canceled", timeout=60)
    assert ended(rig, "ends_worker", "killed")["state"] == "failed"


def deferred_run(rig: Rig, name: str, workflow: str) -> str:
    """Start a task that defers, and return the id of its Skyvern run."""
    rig.start(name, "ends_deferred", workflow)
    rig.airflow.wait_task("ends_deferred", rig.started[name], "run", "deferred", timeout=SLOW)
    return str(eventually_xcom(rig, "ends_deferred", name, "run_id"))


@pytest.mark.core
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_deferred_task_that_a_user_marks_cancels_its_run(rig: Rig, state: str) -> None:
    name = f"marked_{state}"
    run_id = deferred_run(rig, name, "long_wait")
    if not rig.airflow.is_3:  # there the trigger is the only one that notices
        rig.wait_for_trigger("ends_deferred", rig.started[name])
    rig.airflow.mark("ends_deferred", rig.started[name], "run", state)
    rig.wait_run_status(run_id, "canceled", timeout=30)


def test_a_dag_run_marked_failed_cancels_what_it_waits_for_also_without_a_triggerer(rig: Rig) -> None:
    run_id = deferred_run(rig, "marked_run", "long_wait")
    rig.airflow.processes["triggerer"].kill()
    try:
        rig.airflow.mark_run("ends_deferred", rig.started["marked_run"], "failed")
        canceled_or_continues(rig, run_id, canceled=rig.airflow.is_3)  # there the API server does it
    finally:
        rig.airflow.processes["triggerer"].start()


@pytest.mark.parametrize("how", ["dagrun_timeout", "fail_fast"])
def test_a_deferred_task_that_airflow_ends_with_its_dag_run_cancels_its_run(rig: Rig, how: str) -> None:
    """No version notifies a listener in the API server; the trigger notices it."""
    rig.start(how, how, "long_wait")
    rig.airflow.wait_task(how, rig.started[how], "run", "deferred", timeout=SLOW)
    run_id = eventually_xcom(rig, how, how, "run_id")
    rig.wait_for_trigger(how, rig.started[how])
    assert rig.airflow.wait_run(how, rig.started[how], timeout=SLOW) == "failed"
    assert ended(rig, how, how)["state"] == "skipped"
    rig.wait_run_status(run_id, "canceled", timeout=30)


def canceled_or_continues(rig: Rig, run_id: str, *, canceled: bool) -> None:
    if canceled:
        rig.wait_run_status(run_id, "canceled", timeout=10)
    else:
        rig.stays(run_id, "running", seconds=5)
        rig.cancel(run_id)


@pytest.mark.core
def test_a_clear_of_a_deferred_task_ends_its_run_and_starts_one_other(rig: Rig) -> None:
    old = deferred_run(rig, "cleared", "long_wait")
    rig.airflow.clear("ends_deferred", rig.started["cleared"], "run")
    rig.wait_run_status(old, "canceled", timeout=SLOW)
    rig.airflow.wait_task("ends_deferred", rig.started["cleared"], "run", "deferred", timeout=SLOW, try_number=2)
    new = eventually_xcom(rig, "ends_deferred", "cleared", "run_id")
    assert new != old
    assert rig.run_status(new) == "running"
    rig.cancel(new)
    assert ended(rig, "ends_deferred", "cleared")["state"] == "failed"


@pytest.mark.parametrize("way", WAYS)
def test_a_paused_run_says_where_a_person_is_awaited(rig: Rig, way: str) -> None:
    name, dag_id = f"paused_{way}", f"ends_{way}"
    rig.start(name, dag_id, "human")
    awaiting = eventually_xcom(rig, dag_id, name, "awaiting_person", timeout=SLOW)
    run_id = xcom(rig, dag_id, name, key="run_id")
    assert awaiting == {"run_id": run_id, "app_url": xcom(rig, dag_id, name, key="app_url")}
    status, body = rig.skyvern.request("POST", f"/v1/workflows/runs/{run_id}/continue")
    assert status == 200, body
    assert ended(rig, dag_id, name)["state"] == "success"
    assert "waiting for a person" in log_of(rig, dag_id, name)


def test_a_run_whose_workflow_is_deleted_is_waited_for_to_its_real_end(rig: Rig) -> None:
    workflow = rig.skyvern.create_workflow("short-lived", workflows(rig.skyvern.peer_url)["wait_30"])
    rig.started["deleted"] = rig.airflow.trigger("ends_deferred", {"workflow_id": workflow}, run_id="test_deleted")
    rig.airflow.wait_task("ends_deferred", rig.started["deleted"], "run", "deferred", timeout=SLOW)
    status, body = rig.skyvern.request("POST", f"/v1/agents/{workflow}/delete")
    assert status == 200, body
    assert ended(rig, "ends_deferred", "deleted")["state"] == "success"
    assert xcom(rig, "ends_deferred", "deleted")["pause_output"] == {"success": True}


@pytest.mark.core
def test_the_test_button_proves_the_key_and_says_what_is_wrong(rig: Rig) -> None:
    address, port = rig.skyvern.base_url.rsplit(":", 1)
    form = {"connection_id": "from_form", "conn_type": "skyvern", "host": address, "port": int(port)}
    good = rig.airflow.test_connection({**form, "password": rig.skyvern.api_key})
    assert good["status"] is True, good
    assert "The API key is valid" in good["message"]
    bad = rig.airflow.test_connection({**form, "password": "nonsense"})
    assert bad["status"] is False
    assert "Check the API key" in bad["message"]
    lost = rig.airflow.test_connection({**form, "port": 1, "password": "nonsense"})
    assert lost["status"] is False
    assert "no answer from http://127.0.0.1:1" in lost["message"]


@pytest.mark.core
def test_a_connection_stored_as_the_form_does_can_be_used_and_tested(rig: Rig) -> None:
    address, port = rig.skyvern.base_url.rsplit(":", 1)
    stored = {
        "connection_id": "stored_by_form",
        "conn_type": "skyvern",
        "host": address,
        "port": int(port),
        "password": rig.skyvern.api_key,
        "extra": '{"timeout": 20, "proxy": null, "verify": true}',
    }
    rig.airflow.create_connection(stored)
    # What the button sends: blank for what is not set, and the key masked; 3.0 would try the mask as the key.
    button = {**stored, "password": "***", "login": "", "schema": "", "description": ""}
    if rig.airflow.version < (3, 1):
        button["password"] = rig.skyvern.api_key
    tested = rig.airflow.test_connection(button)
    assert tested["status"] is True, tested


def test_every_run_was_started_once(all_started: Rig) -> None:
    rig = all_started
    for way in WAYS:
        ended(rig, f"timeout_{way}", f"timeout_{way}")
    check_counts(rig)
    assert len(rig.runs_of("terminate")) == len(WAYS)


@pytest.mark.core
def test_every_run_of_the_core_was_started_once(rig: Rig) -> None:
    check_counts(rig)


def check_counts(rig: Rig) -> None:
    cleared = "cleared" in rig.started  # its task has run twice
    assert len(rig.runs_of("long_wait")) == rig.workflows["long_wait"] + cleared > 3


def test_the_api_key_is_in_no_database_and_no_log(all_started: Rig) -> None:
    rig = all_started
    needle = rig.skyvern.api_key.encode()
    holders = [path for path in rig.airflow.home.rglob("*") if path.is_file() and needle in path.read_bytes()]
    assert holders == []
    assert rig.airflow.postgres is not None
    dump = rig.airflow.postgres.dump(DATABASE)
    assert rig.started["ok_deferred"] in dump
    assert rig.skyvern.api_key not in dump
    assert needle.hex() not in dump  # Airflow 2 keeps XComs as bytes
    assert any(Path(rig.airflow.home).glob("logs/**/*.log"))
