"""This try of this task: its names, what it stores, and what Airflow knows of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow_skyvern import compat
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.key import RunKey
    from airflow_skyvern.runs.store import StartStore


UNKNOWN = "unknown"
"""The state of a task whose state Airflow does not return."""


class TaskTry:
    """
    This try of this task.

    :param context: What Airflow gives to ``execute``.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ti: Any = context["ti"]
        self._published: Run | None = None

    @property
    def number(self) -> int:
        """The number of this try; a clear does not start again at 1."""
        return int(self._ti.try_number)

    @property
    def ti(self) -> Any:
        """The task instance, as Airflow gave it."""
        return self._ti

    @property
    def id(self) -> UUID:
        """The id of this try; Airflow 3 gives each try its own."""
        return UUID(str(self._ti.id))

    @property
    def started_at(self) -> float | None:
        """When this try has started, in seconds since the epoch."""
        start = self._ti.start_date
        return start.timestamp() if start else None

    @property
    def start_store(self) -> StartStore:
        """What outlives this try, where this Airflow has something that does."""
        from airflow_skyvern.runs.store import StartStore

        return StartStore(compat.task_state_store(self._context))

    def is_first_of_group(self, retries: int) -> bool:
        """
        Return whether this is the first try of its attempt group: the first ever, or the first after a clear.

        :param retries: The task's own ``retries``: a clear adds as many to ``max_tries``.
        """
        return self.number <= int(self._ti.max_tries) - retries + 1

    def run_key(self, request: RunRequest) -> RunKey:
        """Return the key that the run of this task's attempt group carries."""
        from airflow_skyvern.runs.key import RunKey

        start = self._context["dag_run"].start_date
        return RunKey.of(
            dag_id=self._ti.dag_id,
            run_id=self._ti.run_id,
            task_id=self._ti.task_id,
            map_index=-1 if self._ti.map_index is None else int(self._ti.map_index),
            max_tries=self._ti.max_tries,
            request=request,
            run_started=start.astimezone(timezone.utc).isoformat() if start else "",
            airflow=compat.installation(),
        )

    def publish_run(self, run: Run) -> None:
        """Push the run's id and address, so that the link and other tasks have them from now on."""
        self._published = run
        self._ti.xcom_push(key=xcom.RUN_ID, value=run.run_id)
        if run.app_url:
            self._ti.xcom_push(key=xcom.APP_URL, value=run.app_url)

    def publish_connection_and_run_key(self, skyvern_conn_id: str, group: str | None) -> None:
        """
        Push how Airflow's other processes find the task's run when it ends without us; before anything is started.

        :param group: The tag of the attempt group; None where no tags are sent.
        """
        value = {"skyvern_conn_id": skyvern_conn_id, "group": group}
        self._ti.xcom_push(key=xcom.CONNECTION_AND_RUN_KEY, value=value)

    def publish_pause(self, run_id: str, app_url: str | None) -> None:
        """Push where the run waits for a person, so that a notification or another task can send one there."""
        self._ti.xcom_push(key=xcom.AWAITING_PERSON, value={"run_id": run_id, "app_url": app_url})

    def publish_files(self, key: str, files: list[dict[str, Any]]) -> None:
        """Push a list of stored files."""
        self._ti.xcom_push(key=key, value=files)

    def published_app_url(self, run_id: str) -> str | None:
        """Return the address of a run that this object has published; Airflow is not asked."""
        return self._published.app_url if self._published and self._published.run_id == run_id else None

    def publish_approval(self, note: Mapping[str, Any]) -> None:
        """Push what a person has answered."""
        self._ti.xcom_push(key=xcom.APPROVAL, value=dict(note))

    def add_to_outlet_events(self, outlets: Iterable[Any], extra: Mapping[str, Any]) -> None:
        """Put something into the extra of the asset events that this task's success makes."""
        events: Any = self._context.get("outlet_events")
        for outlet in outlets:
            if events is not None and hasattr(outlet, "uri"):
                events[outlet].extra.update(extra)

    def published_run_id(self) -> str | None:
        """Return the run id that this task pushed before it was deferred."""
        run_id = self._ti.xcom_pull(
            task_ids=self._ti.task_id, key=xcom.RUN_ID, map_indexes=compat.map_index_for_lookups(self._ti)
        )
        return run_id if isinstance(run_id, str) else None

    @property
    def will_be_retried(self) -> bool:
        """Whether Airflow starts another try if this one fails."""
        return self.number <= int(self._ti.max_tries)

    def ended_by_user(self) -> bool:
        """
        Return whether a user has marked or cleared this running task, as far as Airflow knows.

        Airflow notifies the worker some seconds later. A task that defers in between is forgotten, and so is its run.
        """
        return self._state() in compat.ENDED_BY_USER

    def state_within(self, seconds: float) -> str | None:
        """
        Return the state of this task in Airflow; ``unknown`` where Airflow does not answer in time.

        May be called in a signal handler: the interrupted code may hold the lock of the connection to Airflow, so a
        thread asks, and is abandoned when it gets no answer.
        """
        answers: list[str | None] = []
        thread = threading.Thread(target=lambda: answers.append(self._state()), daemon=True)
        thread.start()
        thread.join(seconds)
        return answers[0] if answers else UNKNOWN

    def _state(self) -> str | None:
        try:
            return compat.state_of_running_task(self._ti)
        except Exception:  # noqa: BLE001  whatever keeps Airflow from answering
            return UNKNOWN
