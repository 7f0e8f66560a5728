"""
A real Skyvern that stands still with a start in it: whoever searches then must not start a second run.

FREEZES=20 repeats it as often, each time for another while.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernStartUnknown
from airflow_skyvern.runs.key import GROUP_TAG, RunKey
from airflow_skyvern.runs.store import StartStore
from airflow_skyvern.runs.submission import Attempt, Submission
from tests.support.log_lines import LogLines

if TYPE_CHECKING:
    from dev.skyvern_server import SkyvernServer

FREEZES = int(os.environ.get("FREEZES", "2"))


class Memory(dict[str, Any]):
    """Airflow's task_state_store in miniature."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.mark.parametrize("with_store", [False, True])
@pytest.mark.parametrize("number", range(FREEZES))
def test_a_server_that_thaws_while_a_retry_searches_has_one_run(
    server: SkyvernServer, number: int, *, with_store: bool
) -> None:
    request = RunRequest.of({"workflow_id": server.workflow("long_wait")}, None)
    key = RunKey.of(
        dag_id="frozen",
        run_id=f"{number} {with_store}",
        task_id="t",
        map_index=-1,
        max_tries=1,
        request=request,
    )
    memory = Memory() if with_store else None
    settings = Settings(server.api_key, server.base_url, timeout=2.0)
    with SkyvernClient(settings, retry=RetryPolicy(attempts=1)) as client:

        def submission() -> Submission:
            return Submission(
                client.send, request, key, log=LogLines(), store=StartStore(memory), lost_start_timeout=10
            )

        os.killpg(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(SkyvernStartUnknown):
                submission().start(Attempt(seconds_left=4))
            thaw = threading.Timer(Random(number).uniform(0.1, 3), os.killpg, (server.pid, signal.SIGCONT))
            thaw.start()
            run = submission().start(Attempt(earlier_tries=1))
        finally:
            os.killpg(server.pid, signal.SIGCONT)
        time.sleep(1)  # for a start that the server may not have served yet
        found = client.send(api.list_runs(tags={GROUP_TAG: key.group}))
        assert [row.run_id for row in found] == [run.run_id]
        client.send(api.cancel_run(run.run_id))
