"""
Credentials made from Airflow's connections by a real Airflow in a real Skyvern, and used by their names.

No secret of them is in Airflow's database (but for its encrypted connections), or in any log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.leaks import Leaks
from tests.sessions.conftest import PATIENCE

if TYPE_CHECKING:
    from tests.sessions.conftest import Rig

FIRST, SECOND, BANK, THEIRS = "zebra-passphrase-7", "giraffe-passphrase-8", "heron-passphrase-9", "owl-passphrase-10"
CREDENTIAL = {"parameter_type": "workflow", "key": "login", "workflow_parameter_type": "credential_id"}
WAIT = {"block_type": "wait", "label": "pause", "wait_sec": 1}


def connection(conn_id: str, password: str = "") -> dict[str, Any]:
    return {"connection_id": conn_id, "conn_type": "generic", "login": "me", "password": password}


class Nights:
    """Syncs of the same list, night by night."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.count = 0

    def sync(self, *connections: str, ends: str = "success") -> dict[str, list[str]]:
        """Return which connections were created, rotated, left and deleted."""
        self.count += 1
        name = f"night_{self.count}"
        self.rig.airflow.trigger("syncs", {"connections": list(connections)}, run_id=name, timeout=PATIENCE)
        assert self.rig.airflow.wait_run("syncs", name, timeout=PATIENCE) == ends
        if ends == "failed":
            return {}
        done = self.rig.airflow.xcom("syncs", name, "sync")
        return {action: [one["connection"] for one in found] for action, found in done.items() if found}

    def ids(self) -> dict[str, str]:
        """Return the ids of Skyvern's credentials by their names."""
        status, rows = self.rig.skyvern.request("GET", "/v1/credentials")
        assert status == 200, rows
        return {row["name"]: row["credential_id"] for row in rows}


def test_a_sync_follows_the_connections_and_leaves_no_secret_in_airflow(rig: Rig) -> None:
    nights, airflow = Nights(rig), rig.airflow
    theirs = {"name": "theirs", "credential_type": "secret", "credential": {"secret_value": THEIRS}}
    assert rig.skyvern.request("POST", "/v1/credentials", theirs)[0] < 300
    airflow.create_connection(connection("portal", FIRST))
    airflow.create_connection(connection("bank", BANK))
    airflow.create_connection(connection("unfinished"))
    airflow.create_connection(connection("theirs", BANK))

    assert nights.sync("portal", "bank") == {"created": ["portal", "bank"]}
    first = nights.ids()
    assert nights.sync("portal", "bank") == {"unchanged": ["portal", "bank"]}
    airflow.change_connection(connection("portal", SECOND))
    assert nights.sync("portal", "bank") == {"rotated": ["portal"], "unchanged": ["bank"]}
    nights.sync("portal", "bank", "unfinished", "theirs", ends="failed")  # no password; somebody else's name
    assert nights.ids() == first
    assert nights.sync("portal") == {"unchanged": ["portal"], "deleted": ["bank"]}
    assert nights.ids() == {name: found for name, found in first.items() if name != "bank"}

    assert login_of(rig, "by_name") == first["portal"]
    twin = {**theirs, "name": "portal"}
    assert rig.skyvern.request("POST", "/v1/credentials", twin)[0] < 300
    assert login_of(rig, "by_two") is None
    log = airflow.log("logs_in", "by_two", "run")
    assert "2 credentials of the name 'portal'" in log
    assert first["portal"] in log

    leaks = Leaks(airflow, {FIRST, SECOND, BANK, THEIRS})
    leaks.look_into_database()
    leaks.look_into_files()
    print(f"{len(leaks.keys)} secrets looked for in the database and in all logs: found in {len(leaks.found)} places")
    assert leaks.found == set()


def login_of(rig: Rig, name: str) -> Any:
    """Return the credential that a run of the DAG has been started with; None if none was started."""
    definition = {"workflow_definition": {"parameters": [CREDENTIAL], "blocks": [WAIT]}}
    workflow = rig.skyvern.create_workflow(name, definition)
    rig.airflow.trigger("logs_in", {"workflow_id": workflow}, run_id=name, timeout=PATIENCE)
    ended = rig.airflow.wait_run("logs_in", name, timeout=PATIENCE)
    runs = rig.skyvern.runs_of(workflow)
    assert ended == ("success" if runs else "failed")
    if not runs:
        return None
    _, run = rig.skyvern.request("GET", f"/v1/runs/{runs[0]['workflow_run_id']}")
    return run["run_request"]["parameters"]["login"]
