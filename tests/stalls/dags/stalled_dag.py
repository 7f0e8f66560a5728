"""A task whose first try is stopped, with its supervisor, right before something; see test_stalled_starts.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpcore
import httpx

from airflow_skyvern.compat.sdk import DAG, Param
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

START = "/v1/run/workflows"


def stop_before(owner: type, method: str, matches: Callable[[Any], bool], folder: Path) -> None:
    """Stop this process and its supervisor before the first call of a method with a request that matches."""
    original = getattr(owner, method)

    def stopping(self: Any, request: Any) -> Any:
        if matches(request):
            setattr(owner, method, original)
            stop(folder)
        return original(self, request)

    setattr(owner, method, stopping)


def stop_after(owner: type, method: str, matches: Callable[[Any], bool], folder: Path) -> None:
    """Stop them when the answer to such a request is there."""
    original = getattr(owner, method)

    def stopping(self: Any, request: Any) -> Any:
        answer = original(self, request)
        if matches(request):
            setattr(owner, method, original)
            stop(folder)
        return answer

    setattr(owner, method, stopping)


def stop(folder: Path) -> None:
    """Write down which processes these are, and stop them."""
    stopped = folder / f"{os.environ['STALLED_RUN']}.txt"
    stopped.with_suffix(".tmp").write_text(f"{os.getppid()} {os.getpid()}")
    stopped.with_suffix(".tmp").rename(stopped)
    os.kill(os.getppid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def is_start(request: Any) -> bool:
    """Tell the start of a run, of httpx or of httpcore."""
    path = request.url.target.decode() if hasattr(request.url, "target") else request.url.path
    return str(path).endswith(START)


class StalledOperator(SkyvernRunWorkflowOperator):
    """Runs a workflow; the first try stalls where the DAG run's parameter says."""

    def execute(self, context: Any) -> Any:
        """Arm the stall, and execute."""
        if context["ti"].try_number == 1:
            folder, stall = Path(context["params"]["folder"]), context["params"]["stall"]
            os.environ["STALLED_RUN"] = context["ti"].run_id
            if stall == "at first":
                stop(folder)
            elif stall == "before the check":
                stop_before(httpx.HTTPTransport, "handle_request", lambda request: request.method == "GET", folder)
            elif stall == "before the start":
                stop_before(httpx.HTTPTransport, "handle_request", is_start, folder)
            elif stall == "on the connection":
                stop_before(httpcore.HTTP11Connection, "handle_request", is_start, folder)
            elif stall == "after the start":
                stop_after(httpx.HTTPTransport, "handle_request", is_start, folder)
        return super().execute(context)


with DAG(
    "stalled",
    schedule=None,
    max_active_runs=20,
    params={
        "workflow_id": Param("", type="string"),
        "folder": Param("", type="string"),
        "stall": Param("", type="string"),
    },
):
    StalledOperator(
        task_id="run",
        workflow_id="{{ params.workflow_id }}",
        parameters={"note": "a value, so that it is checked"},
        poll_interval=3,
        lost_start_timeout=5,
        deferrable=True,
        retries=6,
        retry_delay=timedelta(seconds=1),
    )
