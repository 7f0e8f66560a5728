"""
DAGs that ``dag.test()`` walks in one process, with the fake Skyvern beside them.

What became of each is in results.json.

Run by test_dag_test.py in a process and an Airflow home of its own: ``python -m tests.support.dag_test_world``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback

START = "/v1/run/workflows"


FAKE = FakeSkyvern()
DAG_FILE = """from tests.support.dag_test_world import dags

globals().update(dags())  # each is a DAG of Airflow
"""


def main() -> int:
    """Walk each DAG; Airflow 3 wants to find it in its folder, too."""
    folder = Path(os.environ["AIRFLOW_HOME"]) / "dags"
    folder.mkdir()
    (folder / "world.py").write_text(DAG_FILE)
    with Loopback() as server:
        server.fake = FAKE
        connection = {"conn_type": "skyvern", "host": server.url, "password": API_KEY}
        os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"] = json.dumps(connection)
        import_module("airflow.utils.db").initdb()
        import_module("airflow_skyvern.triggers").SkyvernRunTrigger.first_poll_delay = 0.0
        results = {
            name: executed(dag) if name.startswith("marked_before") else walked(name, dag)
            for name, dag in dags().items()
        }
    (folder.parent / "results.json").write_text(json.dumps(results))
    return 0


@cache
def dags() -> dict[str, Any]:
    """Return the DAGs of this module, by name; made once in a process."""
    return {name: make(FAKE) for name, make in WORLDS.items()}


class Walked(BaseException):
    """Ends the walk of a DAG, where Airflow would wait forever for a task that a user has ended."""


def walked(name: str, dag: Any) -> dict[str, Any]:
    """Run a DAG, and return the states of its tasks and how many runs were started in Skyvern."""
    state, before = "failed", len(FAKE.sent("POST", START))
    with suppress(Exception, Walked):  # Airflow raises what the last task has raised, or not, by version
        dag_run = dag.test()
        state = str(getattr(dag_run.state, "value", dag_run.state))
    return {"state": state, "starts": len(FAKE.sent("POST", START)) - before, "said": SAID.get(name, [])}


def executed(dag: Any) -> dict[str, Any]:
    """Let 2.11 execute the task of a DAG as its worker does: ``dag.test()`` would not see what a user has done."""
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    dag_run = dag.create_dagrun(
        state="running", run_id="r", run_type="manual", execution_date=start, data_interval=(start, start)
    )
    ti = dag_run.get_task_instance("run")
    ti.refresh_from_task(dag.get_task("run"))
    with suppress(Exception):
        ti.run(ignore_all_deps=True)
    ti.refresh_from_db()
    return {"state": str(ti.state)}


SAID: dict[str, list[Any]] = {}
"""What tasks have noticed, by DAG: they run in this process, too."""


@contextmanager
def noted(name: str) -> Iterator[None]:
    """Note the error with which something of a DAG ends."""
    try:
        yield
    except Exception as error:
        SAID.setdefault(name, []).append(f"{type(error).__name__}: {error}")
        raise


def dag_of(name: str) -> Any:
    from airflow_skyvern.compat.sdk import DAG

    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    defaults = {"retries": 1, "retry_delay": timedelta(0)}
    return DAG(name, schedule=None, start_date=start, default_args=defaults)


def operator(fake: FakeSkyvern, task_id: str = "run", **more: Any) -> Any:
    from airflow_skyvern.operators import SkyvernRunWorkflowOperator

    workflow = fake.workflow(parameters={"vendor": "string"})
    given = {"parameters": {"vendor": "A"}, "poll_interval": 0.05, **more}
    return SkyvernRunWorkflowOperator(task_id=task_id, workflow_id=workflow, **given)


def nested(fake: FakeSkyvern) -> Any:
    """Three requests in one function."""
    from airflow_skyvern.compat.sdk import get_current_context, task

    with dag_of("nested") as dag:

        @task
        def outer() -> dict[str, Any]:
            with noted("nested"):
                context = get_current_context()
                runs = {vendor: operator(fake, vendor, parameters={"vendor": vendor}) for vendor in "ABC"}
                return {vendor: run.execute(context) for vendor, run in runs.items()}

        outer()
    return dag


def ordinary(fake: FakeSkyvern, **more: Any) -> Any:
    with dag_of("ordinary") as dag:
        operator(fake, **more)
    return dag


def deferred(fake: FakeSkyvern) -> Any:
    with dag_of("deferred") as dag:
        operator(fake, deferrable=True)
    return dag


def mapped(fake: FakeSkyvern) -> Any:
    from airflow_skyvern.operators import SkyvernRunWorkflowOperator

    workflow = fake.workflow(parameters={"vendor": "string"})
    with dag_of("mapped") as dag:
        SkyvernRunWorkflowOperator.partial(task_id="run", workflow_id=workflow, poll_interval=0.05).expand(
            parameters=[{"vendor": vendor} for vendor in "ABC"]
        )
    return dag


def subclass(fake: FakeSkyvern) -> Any:
    """A subclass that does something before and after."""
    from airflow_skyvern.operators import SkyvernRunWorkflowOperator

    class Extended(SkyvernRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            return {"extended": super().execute(context)}

    with dag_of("subclass") as dag:
        Extended(task_id="run", workflow_id=fake.workflow(), poll_interval=0.05)
    return dag


def prompted(fake: FakeSkyvern) -> Any:
    """A prompt, and a task that takes its answer."""
    from airflow_skyvern.compat.sdk import task
    from airflow_skyvern.operators import SkyvernRunPromptOperator

    block = {"task_id": "tsk_1", "status": "completed", "extracted_information": {"answer": "Two."}}
    fake.created_output = {"task_output": block}
    with dag_of("prompted") as dag:
        answer = SkyvernRunPromptOperator(
            task_id="run", prompt="How many?", url="https://{{ dag.dag_id }}.x", poll_interval=0.05, deferrable=True
        )

        @task
        def read(text: Any) -> None:
            assert text == "Two."

        read(answer.output)
    return dag


def function(fake: FakeSkyvern) -> Any:
    """A mapped function whose values look like templates, and a task that takes one entry of its output."""
    from airflow_skyvern.compat.sdk import task

    with dag_of("function") as dag:
        decorated: Any = task.skyvern
        workflow = fake.workflow(parameters={"vendor": "string"}, output={"sum": 3})

        def run(vendor: str) -> dict[str, str]:
            return {"vendor": f"{vendor} {{{{ broken"}

        @task
        def read(total: int) -> None:
            assert total == 3

        made = decorated(workflow_id=workflow, multiple_outputs=True, deferrable=True, poll_interval=0.05)(run)
        read(made.override(task_id="one")("C")["sum"])
        made.expand(vendor=["A"])
    return dag


def session(fake: FakeSkyvern) -> Any:
    """A session whose task dies after it has opened one, a run in it, and its teardown."""
    from airflow_skyvern.compat.sdk import task
    from airflow_skyvern.operators import SkyvernCloseBrowserSessionOperator, SkyvernOpenBrowserSessionOperator
    from airflow_skyvern.operators.session_tasks import link

    class DiesOnce(SkyvernOpenBrowserSessionOperator):
        def execute(self, context: Any) -> str:
            opened = super().execute(context)
            if context["ti"].try_number == 1:
                raise RuntimeError("the worker was killed")
            return opened

    with dag_of("session") as dag:
        opened = DiesOnce(task_id="open")
        made: Any = opened.output
        closed = SkyvernCloseBrowserSessionOperator(task_id="close", browser_session_id=made)
        run = operator(fake, browser_session_id=made, deferrable=True)

        @task
        def note() -> None:
            SAID.setdefault("session", []).append([len(fake.sessions), len(fake.open_sessions)])

        noted: Any = note()
        after = note.override(task_id="after")()
        run >> noted
        link(opened, closed, [run, noted.operator])
        closed >> after
    return dag


def overtaken(fake: FakeSkyvern) -> Any:
    """A try that another one replaces in Airflow's database before it starts its run."""
    from airflow_skyvern.operators import SkyvernRunWorkflowOperator

    class Overtaken(SkyvernRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            replace_in_database()
            with noted("overtaken"):
                return super().execute(context)

    with dag_of("overtaken") as dag:
        Overtaken(task_id="run", workflow_id=fake.workflow(), poll_interval=0.05)
    return dag


def replace_in_database() -> None:
    """Do what Airflow does when it gives up a try: 3.x gives the next one another id, 2.11 counts."""
    change = "id = lower(hex(randomblob(16)))" if is_airflow_3() else "try_number = try_number + 1"
    in_database(f"UPDATE task_instance SET {change} WHERE dag_id = 'overtaken'")


def in_database(statement: str) -> None:
    """Do what a user or a scheduler does meanwhile."""
    from airflow import settings
    from sqlalchemy import text

    with settings.engine.begin() as connection:  # type: ignore[union-attr]  # there is one
        connection.execute(text(statement))


def ended_by_user(name: str, statement: str, **more: Any) -> Callable[[FakeSkyvern], Any]:
    """Make a DAG whose task a user ends while it waits on its worker, upon which Airflow stops it."""

    def make(fake: FakeSkyvern) -> Any:
        from airflow_skyvern.operators import SkyvernRunWorkflowOperator

        class Ended(SkyvernRunWorkflowOperator):
            def _fetch_of(self, run_id: str) -> Callable[[], Any]:
                return lambda: self.is_ended(run_id)

            def is_ended(self, run_id: str) -> None:
                in_database(statement.format(name))
                self.on_kill()
                SAID.setdefault(name, []).append(fake.status(run_id))
                raise Walked

        with dag_of(name) as dag:
            workflow = fake.workflow(plan=("running",))
            Ended(task_id="run", workflow_id=workflow, poll_interval=0.05, **more)
        return dag

    return make


def marked_before(name: str, error: str, **fields: Any) -> Callable[[FakeSkyvern], Any]:
    """Make a DAG whose task a user marks as succeeded right before an error ends it."""

    def make(fake: FakeSkyvern) -> Any:
        from airflow_skyvern import exceptions
        from airflow_skyvern.operators import SkyvernRunWorkflowOperator

        class Marked(SkyvernRunWorkflowOperator):
            def _wait(self, *_: Any) -> None:
                in_database(SUCCEED.format(name))
                raise getattr(exceptions, error)("It ends here.", **fields)

        with dag_of(name) as dag:
            Marked(task_id="run", workflow_id=fake.workflow(), poll_interval=0.05, retries=0)
        return dag

    return make


SUCCEED = "UPDATE task_instance SET state = 'success' WHERE dag_id = '{}'"
MARK = "UPDATE task_instance SET state = 'failed' WHERE dag_id = '{}'"
CLEAR = "UPDATE task_instance SET state = 'restarting' WHERE dag_id = '{}'"
DELETE = "DELETE FROM task_instance WHERE dag_id = '{}'"

ERRORS = ("SkyvernTaskEnded", "SkyvernWaitInterrupted", "SkyvernWaitTimeout", "SkyvernConfigError")
"""Errors with which a task may end at any moment: the last one without a retry."""

WORLDS = {
    **{
        f"{word}_{retries}": ended_by_user(f"{word}_{retries}", statement, retries=retries)
        for word, statement in {"marked": MARK, "cleared": CLEAR, "deleted": DELETE}.items()
        for retries in (0, 1)
    },
    **{
        f"marked_before_{error}": marked_before(f"marked_before_{error}", error)
        for error in ERRORS
        if not is_airflow_3()
    },
    "nested": nested,
    "ordinary": ordinary,
    "deferred": deferred,
    "mapped": mapped,
    "subclass": subclass,
    "prompted": prompted,
    "function": function,
    "overtaken": overtaken,
    "session": session,
}

if __name__ == "__main__":
    WORLD = import_module("tests.support.dag_test_world")  # as its DAG file imports it
    sys.exit(WORLD.main())
