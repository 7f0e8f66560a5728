"""
A run in a browser: a real Airflow, and a real Skyvern that drives a real Chromium on a web site on loopback.

``make test SUITE=browser`` takes some minutes. Without Chromium it fails, and says how to install it.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.browser.chromium import require_chromium
from dev.browser.site import DEMO_PASSWORD, pdf
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.faults.leaks import Leaks

ROOT = Path(__file__).parents[2]
DAGS = [ROOT / "dags" / "keep_downloaded_files.py", Path(__file__).parent / "dags" / "browser_dags.py"]
EXAMPLE = "skyvern_keep_downloaded_files"
BLOCKS = ("sign_in", "read_invoices", "get_pdf")
SLOW = 180.0
STRANGER = {"conn_type": "generic", "login": "stranger", "password": DEMO_PASSWORD}
"""Whom the portal does not know, with the password of somebody whom it knows."""

SIGNED_ADDRESSES = {"current_kid": "k1", "keys": {"k1": {"secret": "key-for-the-addresses-of-artifacts"}}}
"""With it Skyvern signs addresses as in the cloud, and puts all artifacts of a step into one archive."""


@dataclass
class Rig:
    """Both servers, and the folder for what the runs leave."""

    airflow: AirflowServer
    skyvern: SkyvernServer
    folder: Path

    def run(self, dag_id: str, workflow: str, task_id: str = "run") -> Ran:
        """Run a DAG until it has ended; browser runs go one at a time."""
        folder = self.folder / workflow
        conf = {"workflow_id": self.skyvern.workflow(workflow), "folder": str(folder)}
        dag_run = self.airflow.trigger(dag_id, conf, timeout=120)
        state = self.airflow.wait_run(dag_id, dag_run, timeout=SLOW)
        return Ran(self.airflow, dag_id, dag_run, task_id, state, folder)


@dataclass
class Ran:
    """A DAG run that has ended."""

    airflow: AirflowServer
    dag_id: str
    dag_run: str
    task_id: str
    state: str
    folder: Path

    def xcom(self, key: str = "return_value", task_id: str | None = None) -> Any:
        return self.airflow.xcom(self.dag_id, self.dag_run, task_id or self.task_id, key)

    @property
    def log(self) -> str:
        return self.airflow.log(self.dag_id, self.dag_run, self.task_id)

    def check_evidence(self, *, recording: str) -> list[Path]:
        """Check that each file is what its name says, and that all of them are listed; return the screenshots."""
        listed = {Path(found["path"]): found for found in self.xcom("evidence")}
        run_id = self.xcom("run_id")
        assert all(path.name.startswith(f"{run_id}-") and path.parent == self.folder for path in listed)
        assert all(path.stat().st_size == found["size"] for path, found in listed.items())
        kinds = Counter(kind_of(path) for path in listed)
        assert {path.suffix: kind_of(path) for path in listed} == {recording: recording, ".png": ".png"}
        assert kinds[recording] == 1
        return sorted(path for path in listed if path.suffix == ".png")


def kind_of(path: Path) -> str:
    """Tell what a file is from its first bytes."""
    start = path.read_bytes()[:8]
    marks = {b"\x89PNG": ".png", b"\x1a\x45\xdf\xa3": ".webm", b"PK\x03\x04": ".zip", b"%PDF": ".pdf"}
    return ".mp4" if start[4:] == b"ftyp" else marks.get(start[:4], "unknown")


def mail_connection(skyvern: SkyvernServer) -> dict[str, Any]:
    """The connection to the sink for mail."""
    extra = {"disable_ssl": True, "disable_tls": True}
    return {"conn_type": "smtp", "host": "127.0.0.1", "port": skyvern.peer.smtp_port, "extra": extra}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    require_chromium()
    home = tmp_path_factory.mktemp("browser")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV, browser=True) as skyvern:
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
            "AIRFLOW_CONN_PORTAL": json.dumps(STRANGER),
            "AIRFLOW_CONN_MAIL": json.dumps(mail_connection(skyvern)),
        }
        with AirflowServer(home / "airflow", DAGS, env, postgres=postgres) as airflow:
            yield Rig(airflow, skyvern, home / "kept")


@pytest.fixture(scope="module")
def completed(rig: Rig) -> Ran:
    return rig.run(EXAMPLE, "month_end", "fetch")


@pytest.fixture(scope="module")
def refused(rig: Rig) -> Ran:
    return rig.run("portal", "wrong_password")


def test_the_pdf_that_the_browser_downloads_ends_in_a_folder(completed: Ran) -> None:
    assert completed.state == "success", completed.log
    [file] = completed.xcom("files")
    path = completed.folder / "INV-1003.pdf"
    assert path.read_bytes() == pdf("Invoice INV-1003")
    assert file["path"] == str(path)
    assert file["checksum"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert completed.xcom("return_value", "report") == {"open": 4480.49, "pdf": str(path)}


def test_what_the_browser_read_is_the_value_of_the_task(completed: Ran) -> None:
    rows = completed.xcom()["invoices"]
    assert [row["invoice"] for row in rows] == ["INV-1001", "INV-1002", "INV-1003"]
    assert rows[2] == {
        "invoice": "INV-1003",
        "customer": "Blue Door Hotel",
        "status": "Overdue",
        "amount": 3999.99,
    }


def test_the_log_tells_block_by_block_what_the_browser_has_done(completed: Ran) -> None:
    blocks = re.findall(r"block (\d of \d: \w+, completed in) \d+", completed.log)
    assert blocks == [f"{n} of 3: {name}, completed in" for n, name in enumerate(BLOCKS, 1)], completed.log


def test_a_completed_run_leaves_its_recording_as_mp4_and_its_screenshots(completed: Ran) -> None:
    assert len(completed.check_evidence(recording=".mp4")) >= 4
    assert not [path for path in completed.folder.iterdir() if path.name.startswith(".skyvern")]


def test_a_run_that_the_portal_refuses_fails_with_its_reason_and_leaves_its_evidence(refused: Ran) -> None:
    assert refused.state == "failed"
    assert "BAD_LOGIN" in refused.log
    assert "The portal refused the user name or the password." in refused.log
    assert refused.check_evidence(recording=".mp4")


def test_a_mail_tells_of_the_failed_run_by_both_forms_of_a_template(rig: Rig, refused: Ran) -> None:
    wait_until("a mail", lambda: bool(rig.skyvern.peer.mails), 30)
    [mail] = rig.skyvern.peer.mails
    parsed = email.message_from_string(mail, policy=email.policy.default)
    body = parsed.get_body(("html",))
    assert body is not None
    assert str(parsed["subject"]).startswith(f"{refused.xcom('run_id')} terminated in block sign_in: ")
    assert "The portal refused the user name or the password." in body.get_content()


def test_the_password_of_the_portal_and_the_key_are_in_no_database_and_no_log(
    rig: Rig, completed: Ran, refused: Ran
) -> None:
    run_id = refused.xcom("run_id")
    status, run = rig.skyvern.request("GET", f"/v1/runs/{run_id}")
    assert (status, run["run_request"]["parameters"]["password"]) == (200, DEMO_PASSWORD)  # it went through Airflow
    leaks = Leaks(rig.airflow, {rig.skyvern.api_key, DEMO_PASSWORD, run_id})
    leaks.look_into_database()
    leaks.look_into_files()
    assert {place.rpartition(": ")[2] for place in leaks.found} == {f"{run_id[:8]}..."}  # it finds what is there


def test_an_archive_in_the_place_of_screenshots_is_kept_once_and_as_what_it_is(rig: Rig, refused: Ran) -> None:
    rig.skyvern.process.env["ARTIFACT_CONTENT_HMAC_KEYRING"] = json.dumps(SIGNED_ADDRESSES)
    rig.skyvern.restart()
    ran = rig.run("one_file", "download_pdf")
    assert ran.state == "success", ran.log
    [file] = ran.xcom("files")
    assert Path(file["path"]).read_bytes() == pdf("Invoice INV-1002", 20 * 1024)
    evidence = [Path(found["path"]) for found in ran.xcom("evidence")]
    assert evidence
    assert [path.suffix for path in evidence] == [kind_of(path) for path in evidence]
    assert ".zip" in {path.suffix for path in evidence}
    assert len({path.read_bytes() for path in evidence}) == len(evidence)
