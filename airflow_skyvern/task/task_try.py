"""
This try of this task: its names, its stored data, Airflow's knowledge about it, and whether it is still current.

A process may have been stopped for minutes, and another try may have taken over meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from airflow_skyvern.compat import internals, since_3_0, since_3_3, tries
from airflow_skyvern.compat.sdk import BaseOperator
from airflow_skyvern.compat.stores import asset, is_asset_alias
from airflow_skyvern.compat.tries import Standing
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernOvertaken, SkyvernTaskEnded
from airflow_skyvern.task import xcom
from airflow_skyvern.task.deferral import note_of

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.key import RunKey
    from airflow_skyvern.runs.store import StartStore

T = TypeVar("T")

ANSWER_BUDGET = 5.0
"""Seconds for Airflow to say whether a try was overtaken that has to cancel its run."""

UNKNOWN = "unknown"
"""The state of a task whose state Airflow does not return."""

CONFIRMATION = 0.3
"""Seconds after which Airflow is asked again about a task that seems to be deleted."""


PROOF_SECONDS = 5.0
"""
For how long Airflow's answer is trusted. A retry that has taken over since then still has to be scheduled and
started, and searches for runs before it starts one.
"""

MOST_PROOFS = 5
"""How often Airflow is asked while each of its answers takes longer than that."""

NO_IDENTITY = (
    "so nothing was started: a retry could not find its run, and nobody would cancel it. Make each run a task of its "
    "own: several operators in the DAG, or one that is mapped with .expand(). SkyvernHook().run_workflow(…) starts a "
    "run from any code, without these guarantees."
)
NO_WAIT_OUTSIDE = (
    "and there it cannot wait without its worker: Airflow would resume the outer task in its place. Make it a task "
    'of its own, or use mode="poke" and deferrable=False.'
)


class TaskTry:
    """
    This try of this task.

    :param context: The context that Airflow passes to ``execute``.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ti: Any = context["ti"]
        self._published: Run | None = None
        self._current = CurrentTry(lambda: tries.standing(self._ti))

    @property
    def number(self) -> int:
        """The number of this try; a clear does not start again at 1."""
        return int(self._ti.try_number)

    @property
    def name(self) -> tuple[str, int]:
        """The DAG run and the number of this try: identifies it among those that one object may execute."""
        return self._ti.run_id, self.number

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
    def is_resumed(self) -> bool:
        """Whether this try resumes after a deferral."""
        return since_3_0.deferral_of(self._ti)[0] is not None

    @property
    def deferred_run_id(self) -> str | None:
        """The run that this try's deferral carries, if it resumes after one."""
        return note_of(since_3_0.deferral_of(self._ti)[1]).get("run_id")

    @cached_property
    def start_store(self) -> StartStore:
        """The store that outlives this try, if this Airflow has one."""
        return self.store_of()

    def store_of(self, call: str = "") -> StartStore:
        """Return the store that outlives this try, for the task's run or for one of its tool calls."""
        from airflow_skyvern.runs.store import StartStore

        return StartStore(since_3_3.task_state_store(self._context), self._run_started, call)

    @property
    def _run_started(self) -> str:
        start = self._context["dag_run"].start_date
        return start.astimezone(timezone.utc).isoformat() if start else ""

    def started_in(self, task_id: str, already: tuple[str, int] | None) -> tuple[str, int]:
        """
        Return what identifies this try as one that starts a run.

        :param already: The identity of the try in which this operator has started a run.
        :raises SkyvernConfigError: it is this try, as a subclass may call ``execute`` more than once, and a retry
            could not distinguish the two runs.
        """
        if already == self.name:
            raise SkyvernConfigError(f"Task {task_id!r} has already started a run in this try, {NO_IDENTITY}")
        return self.name

    def ensure_current(self) -> None:
        """
        Ask Airflow whether this try is still the task's current one, unless that was done just now.

        :raises SkyvernOvertaken: it is not, or Airflow does not answer.
        :raises SkyvernTaskEnded: a user has ended the task.
        """
        self._current.ensure()

    def stop_if_overtaken(self) -> None:
        """
        Raise if Airflow says that another try has taken over; without an answer, this try continues.

        :raises SkyvernOvertaken: the run is the other try's.
        """
        try:
            self._current.ensure()
        except SkyvernTaskEnded:
            return  # a started run has to be ended
        except SkyvernOvertaken:
            if self.standing_within(ANSWER_BUDGET) is Standing.OVERTAKEN:
                raise

    @property
    def earlier_tries(self) -> int:
        """How many executions may have started a run before this one; after a clear, those from before it, too."""
        return self.number - 1 + int(self.is_executed_again)

    @cached_property
    def is_executed_again(self) -> bool:
        """
        Whether Airflow executes this try again from its beginning, after that may have started a run.

        2.11 does so when it is overloaded, after the try has failed. Airflow 3 does so with a resumption of the first
        try that waits in a busy executor's queue, while the scheduler takes the task for failed and queues a retry;
        the XComs of a later try may be those of an earlier one.
        """
        published = since_3_0.keys_pushed_before(self._ti) if self.number == 1 else frozenset()
        return bool({xcom.RUN_ID, xcom.CONNECTION_AND_RUN_KEY} & published) or tries.was_executed_before(self._ti)

    def is_after_clear(self, retries: int) -> bool:
        """
        Return whether this seems to be the first try of its attempt group that Airflow executes.

        :param retries: As in :meth:`is_first_of_group`.
        """
        return self.is_first_of_group(retries) and not self.is_executed_again

    def is_first_of_group(self, retries: int) -> bool:
        """
        Return whether this is the first try of its attempt group: the first ever, or the first after a clear.

        :param retries: The task's own ``retries``: a clear adds as many to ``max_tries``.
        """
        return self.number <= int(self._ti.max_tries) - retries + 1

    def run_key(self, request: RunRequest) -> RunKey:
        """Return the key that the run of this task's attempt group carries."""
        return self.key_of(request)

    def key_of(self, request: RunRequest, call: str = "") -> RunKey:
        """
        Return the key of a run of this attempt group.

        :param call: Which tool call of an agent that the task runs, if it is one.
        """
        from airflow_skyvern.runs.key import RunKey

        stable = tries.dag_run_id(self._context)
        return RunKey.of(
            dag_id=self._ti.dag_id,
            run_id=self._ti.run_id,
            task_id=self._ti.task_id,
            map_index=-1 if self._ti.map_index is None else int(self._ti.map_index),
            max_tries=self._ti.max_tries,
            request=request,
            run_started=stable or self._dag_run_name,
            run_created=tries.dag_run_created(self._context),
            start_may_change=stable is None and not self.start_store.exists,
            airflow=since_3_0.installation(),
            call=call,
        )

    @cached_property
    def _dag_run_name(self) -> str:
        """The name that the task's first start gave its DAG run; read once, as a signal handler may need it."""
        return self.start_store.run_started(first_try=not self.earlier_tries)

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

    def publish_browser_session(self, value: Mapping[str, Any]) -> None:
        """Push which browser session this task has opened."""
        self._ti.xcom_push(key=xcom.BROWSER_SESSION, value=dict(value))

    def publish_workflow_version(self, value: Mapping[str, Any]) -> None:
        """Push which version of a workflow is run, and which file it was created from."""
        self._ti.xcom_push(key=xcom.WORKFLOW_VERSION, value=dict(value))

    def publish_pause(self, run_id: str, app_url: str | None) -> None:
        """Push where the run waits for a person, so that a notification or another task can send somebody there."""
        self._ti.xcom_push(key=xcom.AWAITING_PERSON, value={"run_id": run_id, "app_url": app_url})

    def publish_files(self, key: str, files: list[dict[str, Any]]) -> None:
        """Push a list of stored files."""
        self._ti.xcom_push(key=key, value=files)

    def publish_manifest(self, reference: Mapping[str, Any]) -> None:
        """Push the address of the manifest of the stored files."""
        self._ti.xcom_push(key=xcom.MANIFEST, value=dict(reference))

    def published_app_url(self, run_id: str) -> str | None:
        """Return the address of a run that this object has published; Airflow is not asked."""
        return self._published.app_url if self._published and self._published.run_id == run_id else None

    def publish_approval(self, note: Mapping[str, Any]) -> None:
        """Push a person's answer."""
        self._ti.xcom_push(key=xcom.APPROVAL, value=dict(note))

    def add_to_outlet_events(
        self, outlets: Iterable[Any], extra: Mapping[str, Any], addresses: Iterable[str] = ()
    ) -> list[str]:
        """
        Put something into the extra of the asset events that this task's success creates.

        :param addresses: The addresses for which an asset alias among the outlets gets an event each.
        :return: The addresses that Airflow does not accept for an asset.
        """
        events: Any = self._context.get("outlet_events")
        given, assets = list(outlets), {address: asset(address) for address in addresses}
        for outlet in given if events is not None else ():
            if hasattr(outlet, "uri"):
                events[outlet].extra.update(extra)
            elif is_asset_alias(outlet):
                for found in filter(None, assets.values()):
                    events[outlet].add(found, extra=dict(extra))
        return [address for address, found in assets.items() if found is None and any(map(is_asset_alias, given))]

    def published_run_id(self) -> str | None:
        """Return the run id that this task pushed before it was deferred."""
        run_id = self._pushed(xcom.RUN_ID)
        return run_id if isinstance(run_id, str) else None

    def published_workflow_version(self) -> Mapping[str, Any] | None:
        """Return which version of a workflow this task pushed before it was deferred."""
        note = self._pushed(xcom.WORKFLOW_VERSION)
        return note if isinstance(note, Mapping) else None

    def _pushed(self, key: str) -> Any:
        lookup = internals.map_index_for_lookups(self._ti)
        return self._ti.xcom_pull(task_ids=self._ti.task_id, key=key, map_indexes=lookup)

    @property
    def will_be_retried(self) -> bool:
        """Whether Airflow starts another try if this one fails."""
        return self.number <= int(self._ti.max_tries)

    def ended_by_user(self) -> bool:
        """
        Return whether a user has marked or cleared this running task, as far as Airflow knows.

        Airflow notifies the worker some seconds later. A task that defers in between is forgotten, and so is its run.
        """
        return self._state() in internals.ENDED_BY_USER

    def state_within(self, seconds: float) -> str | None:
        """Return the state of this task in Airflow; ``unknown`` where Airflow does not answer in time."""
        unknown: str | None = UNKNOWN
        return answer_within(seconds, self._state, unknown)

    def known_run_id(self, group: str | None) -> str | None:
        """
        Return the run that this task has published, or that Airflow's task state has for this attempt group.

        None also if Airflow does not answer.
        """
        with suppress(Exception):
            if (published := self.published_run_id()) is not None:
                return published
        with suppress(Exception):
            record = self.start_store.read(group) if group is not None else None
            return record.run_id if record is not None else None
        return None

    def standing_within(self, seconds: float) -> Standing | None:
        """Return Airflow's answer about this try within this time, if any; may be called in a signal handler."""

        def ask() -> Standing | None:
            with suppress(Exception):
                return tries.standing(self._ti)
            return None

        return answer_within(seconds, ask, None)

    def _state(self) -> str | None:
        try:
            state = since_3_0.state_of_running_task(self._ti)
            if state == internals.DELETED:
                time.sleep(CONFIRMATION)
                state = since_3_0.state_of_running_task(self._ti)
        except Exception:  # noqa: BLE001  whatever keeps Airflow from answering
            return UNKNOWN
        return state


def answer_within(seconds: float, question: Callable[[], T], otherwise: T) -> T:
    """
    Return the result of a function that asks Airflow, or a default if it takes too long.

    May be called in a signal handler: a handler that has interrupted a question to Airflow asks nothing. A thread
    asks, and is abandoned when it gets no answer.
    """
    if since_3_0.interrupts_question():
        return otherwise
    answers: list[T] = []
    thread = threading.Thread(target=lambda: answers.append(question()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else otherwise


def check_is_the_task(operator: Any, context: Context, otherwise: str) -> None:
    """
    Check that Airflow executes this operator, and not a task that executes it in turn.

    Airflow retries, kills, defers and links only the outer task, and only the outer task has ids: with several
    requests, a retry could not know which run belongs to which, and nothing would cancel the runs.

    :param otherwise: The consequence, and what to do instead.
    :raises SkyvernConfigError: it is executed within another task.
    """
    task = getattr(context["ti"], "task", None) or context.get("task")
    if isinstance(task, BaseOperator) and task is not operator:
        raise SkyvernConfigError(
            f"{type(operator).__name__} {operator.task_id!r} was executed inside task {task.task_id!r}, {otherwise}"
        )


class CurrentTry:
    """
    This try, as long as no other one has taken over.

    A stopped process notices nothing, and on a suspended machine the monotonic clock stops. So the longest time that
    any clock has measured since Airflow was asked counts.

    :param standing: Asks Airflow.
    :param clocks: The clocks that measure the age of an answer.
    """

    def __init__(
        self, standing: Callable[[], Standing], *, clocks: Sequence[Callable[[], float]] = (time.monotonic, time.time)
    ) -> None:
        self._standing = standing
        self._clocks = clocks
        self._asked_at: list[float] | None = None

    def ensure(self) -> None:
        """
        Ask Airflow, unless it has answered just now.

        :raises SkyvernOvertaken: another try has taken over, or Airflow does not answer.
        :raises SkyvernTaskEnded: no try may do anything more.
        """
        for _ in range(MOST_PROOFS):
            if self._is_proved():
                return
            self._ask()
        if not self._is_proved():
            raise SkyvernOvertaken(
                "Airflow answers too slowly to know that this try is still the current one; the next try continues."
            )

    def _is_proved(self) -> bool:
        if self._asked_at is None:
            return False
        return all(now - asked < PROOF_SECONDS for now, asked in zip(self._now(), self._asked_at, strict=True))

    def _ask(self) -> None:
        asked_at = self._now()
        try:
            standing = self._standing()
        except Exception as error:
            raise SkyvernOvertaken(
                "Airflow did not say whether this try is still the current one, so it does nothing more; the next "
                f"try continues. {type(error).__name__}: {error}"
            ) from error
        if standing is Standing.ENDED:
            raise SkyvernTaskEnded("This task was marked, cleared or deleted in Airflow, so it does nothing more.")
        if standing is Standing.OVERTAKEN:
            raise SkyvernOvertaken("Another try of this task has taken over, so this one does nothing more.")
        self._asked_at = asked_at

    def _now(self) -> list[float]:
        return [clock() for clock in self._clocks]
