"""
The tasks of the fault suite; what they run and under which name comes with the DAG run.

Copies of this file named ``faults_own_…`` make a DAG of that name each, for executions that lose their DAG.

Some faults have to strike inside a task's process, at a *point*: before a request leaves it, before a retry has done
anything, when a task is resumed. The driver orders them as files, see :func:`strike`.
"""

from __future__ import annotations

import os
import re
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from airflow_skyvern.compat.sdk import DAG, BaseOperator, Param, get_current_context, task
from airflow_skyvern.operators import SkyvernRunPromptOperator, SkyvernRunWorkflowOperator, skyvern_browser_session
from airflow_skyvern.sensors import SkyvernRunSensor

try:
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
except ImportError:  # Airflow 2
    from airflow.triggers.temporal import TimeDeltaTrigger

NAME = Path(__file__).stem
DURABLE = os.environ.get("FAULTS_DURABLE", "1") == "1"
PARAMS: dict[str, Any] = {
    "x": Param("", type="string"),
    "workflows": Param([], type="array"),
    "run_id": Param("", type="string"),
    "breaks": Param(False, type="boolean"),
}
LIMITS: dict[str, Any] = {"schedule": None, "params": PARAMS, "max_active_runs": 200, "max_active_tasks": 200}
DAGRUN_SECONDS = 75
SESSION: dict[str, Any] = {"timeout": timedelta(hours=2), "retries": 3, "retry_delay": timedelta(seconds=3)}
"""A session outlives the suite, so that one that is left is seen."""

ITEMS = ("A", "B", "C")
EARLY = 5
"""Seconds after which a trigger that was told to fails."""

SETTLE = 3.0
"""Seconds in which a signal to the supervisor reaches its task."""

KINDS = {
    "start": ("POST", re.compile(r"(/v1/run/workflows$|/api/v1/workflows/[^/]+/run\?)")),
    "create": ("POST", re.compile(r"/v1/workflows(\?|$)")),
    "update": ("PUT", re.compile(r"/api/v1/workflows/")),
    "find": ("GET", re.compile(r"/v1/runs\?.*tags=")),
    "tags": ("GET", re.compile(r"/v1/run-tags")),
    "workflow": ("GET", re.compile(r"/v1/workflows/[^/]+$")),
    "get": ("GET", re.compile(r"/v1/runs/[^/?]+$")),
    "cancel": ("POST", re.compile(r"/v1/runs/[^/]+/cancel$")),
}


def execution() -> str:
    """Return whose process this is; nothing in a triggerer."""
    return os.environ.get("AIRFLOW_CTX_DAG_RUN_ID", "").removeprefix("f_")


def ordered(point: str) -> str | None:
    """Take the order for a point of this execution, if there is one; it is carried out once."""
    order = Path(os.environ["FAULTS_ORDERS"]) / f"{execution()}.{point}"
    if not execution() or not order.exists():
        return None
    what = order.read_text()
    done = order.with_suffix(f"{order.suffix}.writing")
    order.rename(done)
    done.write_text(f"{os.getppid()} {os.getpid()}")
    done.rename(f"{order}.done")  # at once with its content: the driver reads it meanwhile
    return what


def strike(point: str) -> None:
    """
    Do to this process what was ordered for this point.

    ``stop``: it and its supervisor stand still until the driver wakes them. ``task`` and ``supervisor``: that process
    is asked to end; ``group``: both.
    """
    what = ordered(point)
    if what == "stop":
        os.kill(os.getppid(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what is not None:
        if what in ("supervisor", "group"):
            os.kill(os.getppid(), signal.SIGTERM)
        if what in ("task", "group"):
            os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            time.sleep(0.05)


def kind_of(request: httpx.Request) -> str | None:
    """Return the kind of a request, by the names of the fault proxy."""
    target = request.url.raw_path.decode()
    return next(
        (kind for kind, (method, path) in KINDS.items() if request.method == method and path.match(target)), None
    )


def send_after_striking(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
    """Send a request of a task: with its execution's name for the proxy, and after what was ordered for its kind."""
    if "x-api-key" in request.headers and execution():
        request.headers["x-execution"] = execution()
        if kind := kind_of(request):
            strike(f"send.{kind}")
    return SEND(client, request, **options)


def carry_after_striking(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
    """Send a request of a task, after what was ordered for when all of the client's own checks are done."""
    if execution() and (kind := kind_of(request)):
        strike(f"transport.{kind}")
    return CARRY(transport, request)


if not hasattr(httpx, "unstruck"):  # this file is loaded under several names
    httpx.unstruck = httpx.Client.send, httpx.HTTPTransport.handle_request
    httpx.Client.send, httpx.HTTPTransport.handle_request = send_after_striking, carry_after_striking
SEND, CARRY = httpx.unstruck


def is_resumed(ti: Any) -> bool:
    """Return whether a task comes back from its deferral."""
    return bool(getattr(getattr(ti, "_ti_context_from_server", None) or ti, "next_method", None))


class Torments(BaseOperator if TYPE_CHECKING else object):  # else its metaclass would put an __init__ in the way
    """Points before each retry and each resumption of an operator, and a trigger that may be ordered to fail."""

    def pre_execute(self, context: Any) -> None:
        super().pre_execute(context)
        if context["ti"].try_number > 1 and not is_resumed(context["ti"]):
            strike("retry")

    def defer(self, *, trigger: Any, **options: Any) -> Any:
        if ordered("trigger") is not None:
            trigger = TimeDeltaTrigger(timedelta(seconds=EARLY))
        super().defer(trigger=trigger, **options)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        event = (next_kwargs or {}).get("event")
        if next_kwargs and event is not None and not isinstance(event, dict):  # the other trigger's
            run_id = context["ti"].xcom_pull(task_ids=self.task_id, key="run_id")
            message = "the suite made the trigger fail"
            next_kwargs["event"] = {"run_id": run_id, "reason": "error", "status": "running", "message": message}
        strike("resume")
        return super().resume_execution(next_method, next_kwargs, context)


class Tormented(Torments, SkyvernRunWorkflowOperator):
    """Runs a workflow, stored or of a file."""


class TormentedPrompt(Torments, SkyvernRunPromptOperator):
    """Runs a prompt."""


# The first try's workflow, file or page, then the next ones': the last stands for all that follow.
OF_THIS_TRY = "{{ (params.workflows[ti.try_number - 1:] or params.workflows[-1:])[0] }}"


def prompt_of(**options: Any) -> Torments:
    """Make the task of a prompt; each engine is another shape."""
    engine = None if options["deferrable"] else "skyvern-1.0"
    more = {"prompt": "Open the page of {item}.", "url": OF_THIS_TRY, "output_schema": {"type": "object"}}
    return run_of(TormentedPrompt, **more, engine=engine, **options)


def run_of(operator: type[Torments] = Tormented, **options: Any) -> Torments:
    """Make the task that most executions have."""
    given = {
        "task_id": "run",
        "parameters": {"item": "{{ params.x if not params.breaks or ti.try_number == 1 else 1 // 0 }}"},
        # By which the suite, not the operator, knows whose run it is.
        "run_options": {"run_metadata": {"x": "{{ params.x }}", "group": "{{ ti.max_tries }}"}},
        "durable": DURABLE,
        "lost_start_timeout": float(os.environ["FAULTS_LOST_START_TIMEOUT"]),
        "timeout": float(os.environ["FAULTS_TIMEOUT"]),
        "poll_interval": 2,
        "retries": 4,
        "retry_delay": timedelta(seconds=3),
    }
    if operator is Tormented and "workflow_file" not in options:
        given["workflow_id"] = OF_THIS_TRY
    return operator(**{**given, **options})


def result_of(item: str) -> Any:
    """Run the workflow for one item, as people do within a task of their own."""
    context = get_current_context()
    params = context["params"]
    metadata = {"x": params["x"], "group": str(context["ti"].max_tries), "item": item}
    operator = SkyvernRunWorkflowOperator(
        task_id=f"inner_{item}",
        workflow_id=params["workflows"][0],
        parameters={"item": item},
        run_options={"run_metadata": metadata},
        durable=DURABLE,
        deferrable=False,
        lost_start_timeout=float(os.environ["FAULTS_LOST_START_TIMEOUT"]),
        poll_interval=2,
    )
    return operator.execute(context)


def all_items(*, fails_once: bool) -> dict[str, Any]:
    """Return the result of each item; the first try may fail after all of them."""
    results = {item: result_of(item) for item in ITEMS}
    if fails_once and get_current_context()["ti"].try_number == 1:
        raise RuntimeError("the suite fails this try")
    return results


if NAME.startswith("faults_own_"):
    with DAG(NAME, **LIMITS):
        run_of(deferrable=True, retries=1)
else:
    for way, deferrable in (("deferred", True), ("worker", False)):
        with DAG(f"faults_{way}", **LIMITS):
            run_of(deferrable=deferrable)

        with DAG(f"faults_{way}_file", **LIMITS):
            run_of(workflow_file=OF_THIS_TRY, deferrable=deferrable)

        with DAG(f"faults_{way}_prompt", **LIMITS):
            prompt_of(deferrable=deferrable)

    with DAG("faults_queue", **LIMITS):
        run_of(deferrable=True, queue="skyvern")

    with DAG("faults_reschedule", **LIMITS):
        SkyvernRunSensor(
            task_id="run",
            run_id="{{ params.run_id }}",
            mode="reschedule",
            deferrable=False,
            poke_interval=6,
            timeout=300,
            retries=4,
            retry_delay=timedelta(seconds=3),
        )

    with DAG("faults_timeout", dagrun_timeout=timedelta(seconds=DAGRUN_SECONDS), **LIMITS):
        run_of(deferrable=True, retry_delay=timedelta(minutes=10))

    for name, limit in (("faults_session", None), ("faults_session_timeout", timedelta(seconds=DAGRUN_SECONDS))):
        with DAG(name, dagrun_timeout=limit, **LIMITS), skyvern_browser_session(**SESSION) as session:
            run_of(deferrable=True, browser_session_id=session)

    with DAG("faults_login", **LIMITS):
        run_of(deferrable=True, parameters={"item": "{{ params.x }}", "login": "portal {{ params.x }}"})

    for name, retries in (("faults_nested", 1), ("faults_nested_0", 0)):
        with DAG(name, **LIMITS):
            task(task_id="run", retries=retries, retry_delay=timedelta(seconds=3))(all_items)(fails_once=retries > 0)
