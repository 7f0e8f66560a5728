"""Browser sessions in a DAG: opened by one task and closed by another, however the tasks between them end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_skyvern.compat import since_3_0, since_3_3
from airflow_skyvern.durations import seconds_of
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError, SkyvernWaitInterrupted
from airflow_skyvern.operators.session_tasks import link, tasks_of
from airflow_skyvern.task.arguments import is_dynamic
from airflow_skyvern.task.base import ChecksArguments, UsesConnection, check_untemplated
from airflow_skyvern.task.endings import errors_for_airflow
from airflow_skyvern.task.task_try import TaskTry, check_is_the_task

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.models import BrowserSession

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""Short, because nothing else ends a session whose opening was not answered: it cannot be found."""

SHORTEST_TIMEOUT, LONGEST_TIMEOUT = timedelta(minutes=5), timedelta(hours=24)
"""What Skyvern allows."""

KEPT = "skyvern_browser_session"
"""The name by which a task keeps the session that it has opened, for its later tries."""

NOT_NESTED = "so nothing was done. Make it a task of its own."


class SkyvernOpenBrowserSessionOperator(ChecksArguments, UsesConnection):
    """
    Open a browser that the runs of several tasks use, one after the other.

    Usually made by :func:`~airflow_skyvern.operators.skyvern_browser_session`, which closes it, too. A new try, after
    a clear or for a retry, closes the previous try's session.

    XCom: ``return_value``: the session's id, for ``browser_session_id``; ``browser_session``: a mapping with that id
    and ``app_url``, the session's page in Skyvern.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions/create-browser-session

    :param timeout: Seconds, or a timedelta, after which Skyvern itself closes the session, regardless of this DAG
        run: up to two minutes later, and not while a run uses it. Counted in whole minutes; 5 minutes to 24 hours.
        Default: 30 minutes.
    :param browser_profile_id: Saved browser profile to begin with: its id, ``bp_…``, or its name. (templated)
    :param url: The page to open. (templated)
    :param proxy_location: Where the browser appears to be, as for a run. (templated)
    :param browser_type: Skyvern's name of the browser, such as ``chrome``. (templated)
    :param generate_browser_profile: Whether the session keeps the data for a profile when it is closed.
        :class:`~airflow_skyvern.operators.SkyvernCreateBrowserProfileOperator` takes care of that itself while the
        session is open. Default: False.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises SkyvernConfigError: an argument is wrong; when the DAG is parsed if it can be known then.
    :raises SkyvernConnectionError: the opening was not answered. A session may be open then until its timeout;
        a retry opens another one.
    :raises AirflowFailException: no retry can help: wrong key, unknown profile, refused request.
    """

    template_fields: Sequence[str] = (
        "browser_profile_id",
        "url",
        "proxy_location",
        "browser_type",
        "skyvern_conn_id",
    )
    ui_color = "#e8eefc"
    _opened: str | None = None
    _killed = False
    kill_timeout: ClassVar[float] = 3.5
    """Seconds for closing the session of a killed task."""

    def __init__(
        self,
        *,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        browser_profile_id: str | None = None,
        url: str | None = None,
        proxy_location: str | Mapping[str, str] | None = None,
        browser_type: str | None = None,
        generate_browser_profile: bool = False,
        skyvern_conn_id: str = "skyvern_default",
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(**kwargs)
        self.timeout = _checked_timeout(self.task_id, timeout)
        self.browser_profile_id = browser_profile_id
        self.url = url
        self.proxy_location = proxy_location
        self.browser_type = browser_type
        self.generate_browser_profile = generate_browser_profile
        self.skyvern_conn_id = skyvern_conn_id
        if isinstance(proxy_location, str) and not is_dynamic(proxy_location):
            _check_location(self.task_id, proxy_location)

    def execute(self, context: Context) -> str:
        """Close the session of an earlier try, and open one."""
        task_try = TaskTry(context)
        with errors_for_airflow():
            check_is_the_task(self, context, NOT_NESTED)
            task_try.ensure_current()
            self._close_earlier(context)
            opened = self._open(task_try)
            self._opened = opened.browser_session_id
            with self._closed_on_error(opened.browser_session_id):
                task_try.ensure_current()
                self._keep(context, task_try, opened)
                self._stop_if_killed()
            return opened.browser_session_id

    def on_kill(self) -> None:
        """Close the session that this try has opened; while the opening is in progress, wait for its answer first."""
        self._killed = True
        if self._opened is None or (client := self.hook.emergency_client(self.kill_timeout)) is None:
            return
        from airflow_skyvern.client.browser_api import close_browser_session

        with client:
            try:
                client.send(close_browser_session(self._opened))
            except SkyvernError as error:
                self.log.warning("Browser session %s: its close was not confirmed. %s", self._opened, error)

    @cached_property
    def _minutes(self) -> int:
        return math.ceil(self.timeout / 60)

    def _open(self, task_try: TaskTry) -> BrowserSession:
        from airflow_skyvern.client.browser_api import create_browser_session
        from airflow_skyvern.client.retry import may_have_started
        from airflow_skyvern.client.session import checked
        from airflow_skyvern.runs.browser_profiles import profile_id_of

        profile = self.browser_profile_id or None
        call = create_browser_session(
            self._minutes,
            profile_id_of(self.hook.send, profile) if profile else None,
            self.proxy_location or None,
            self.url or None,
            self.browser_type or None,
            generate_browser_profile=self.generate_browser_profile,
        )
        self._stop_if_killed()
        try:
            opened: BrowserSession = checked(self.hook.send, task_try.ensure_current)(call)
        except SkyvernError as error:
            if may_have_started(error):
                self.log.error(
                    "The opening of a browser session was not answered. If Skyvern has opened one, nothing can find "
                    "it; it closes by itself after its timeout of %d minutes.",
                    self._minutes,
                )
            raise
        self.log.info(
            "Browser session %s: open for %d minutes at most, see %s",
            opened.browser_session_id,
            self._minutes,
            opened.app_url or "Skyvern",
        )
        return opened

    def _keep(self, context: Context, task_try: TaskTry, opened: BrowserSession) -> None:
        """Note the session: for later tries of this task, for the scheduler, and for people."""
        closes = self._closing_tasks
        note = {
            "browser_session_id": opened.browser_session_id,
            "app_url": opened.app_url,
            "skyvern_conn_id": self.skyvern_conn_id,
            "installation": since_3_0.installation(),
            "ends_with_dag_run": bool(closes),
        }
        task_try.publish_browser_session(note)
        since_3_3.keep_for_task(context, KEPT, note, next(iter(closes), None))

    def _close_earlier(self, context: Context) -> None:
        """Close the session of an earlier try: after a clear, no other task will."""
        from airflow_skyvern.hooks import SkyvernHook
        from airflow_skyvern.runs.browser_sessions import close_session

        note = since_3_3.kept_by_task(context, KEPT, next(iter(self._closing_tasks), None))
        if not isinstance(note, Mapping) or note.get("installation") != since_3_0.installation():
            return
        session_id = str(note.get("browser_session_id"))
        self.log.info("Browser session %s: of an earlier try of this task", session_id)
        with closing(SkyvernHook(str(note.get("skyvern_conn_id")))) as hook:
            close_session(hook.send, session_id, self.log)

    @property
    def _closing_tasks(self) -> list[str]:
        return tasks_of(self, SkyvernCloseBrowserSessionOperator)

    @contextmanager
    def _closed_on_error(self, session_id: str) -> Iterator[None]:
        """Close the session when this task fails after it has opened it: its teardown is not run then."""
        from airflow_skyvern.runs.browser_sessions import close_session

        try:
            yield
        except BaseException:
            try:
                close_session(self.hook.send, session_id, self.log)
            except SkyvernError as error:
                self.log.error("Browser session %s may be open for %d minutes. %s", session_id, self._minutes, error)
            raise

    def _stop_if_killed(self) -> None:
        if self._killed:
            raise SkyvernWaitInterrupted(
                "The task was stopped, and its browser session closed; a retry opens another."
            )


class SkyvernCloseBrowserSessionOperator(ChecksArguments):
    """
    Close a browser session.

    Closing may take a minute, and is retried for three minutes while Skyvern cannot be reached. It is not an error if
    the session is already closed or no longer exists, or if none was opened because the task that opens it was
    marked.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions/close-browser-session

    :param browser_session_id: The session: ``pbs_…``. (templated)
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises SkyvernError: the session may still be open; Skyvern closes it after its timeout.
    """

    template_fields: Sequence[str] = ("browser_session_id", "skyvern_conn_id")
    ui_color = "#e8eefc"

    def __init__(
        self, *, browser_session_id: str | None, skyvern_conn_id: str = "skyvern_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.browser_session_id = browser_session_id
        self.skyvern_conn_id = skyvern_conn_id

    def execute(self, context: Context) -> None:
        """Close the session."""
        from airflow_skyvern.hooks import SkyvernHook
        from airflow_skyvern.runs.browser_sessions import close_session

        if not self.browser_session_id:
            self.log.info("No browser session was opened, so there is nothing to close")
            return
        with errors_for_airflow(), closing(SkyvernHook(self.skyvern_conn_id)) as hook:
            check_is_the_task(self, context, NOT_NESTED)
            close_session(hook.send, self.browser_session_id, self.log)


@contextmanager
def skyvern_browser_session(
    timeout: timedelta | float = DEFAULT_TIMEOUT,
    profile: str | None = None,
    *,
    name: str = "browser_session",
    url: str | None = None,
    proxy_location: str | Mapping[str, str] | None = None,
    browser_type: str | None = None,
    generate_browser_profile: bool = False,
    skyvern_conn_id: str = "skyvern_default",
    **task_options: Any,
) -> Iterator[Any]:
    """
    Open a browser session before the tasks in the block, and close it after them, however they end.

    ::

        with skyvern_browser_session(timeout=timedelta(minutes=20), profile="portal") as session:
            log_in = SkyvernRunWorkflowOperator(task_id="log_in", browser_session_id=session, ...)
            read = SkyvernRunWorkflowOperator(task_id="read", browser_session_id=session, ...)
            log_in >> read

    The two tasks are setup and teardown of every task in the block: clearing a task in the block opens a session
    again. A session has one run at a time, so its tasks must run one after the other: two tasks without an order are
    refused when the DAG is parsed, and a mapped task runs one instance at a time. Where the order cannot be known, a
    task waits for the session.

    Skyvern itself closes every session at its timeout. Nothing more is guaranteed: a session whose opening was not
    answered stays open until then.

    :param timeout: Seconds, or a timedelta, after which Skyvern closes the session by itself: long enough for all
        runs, but short, because a session that nobody knows of stays open that long. 5 minutes to 24 hours. Default:
        30 minutes.
    :param profile: Saved browser profile to begin with: its id or its name. (templated)
    :param name: The tasks are called ``open_<name>`` and ``close_<name>``. Default: ``browser_session``.
    :param url: The page to open. (templated)
    :param proxy_location: Where the browser appears to be, as for a run. (templated)
    :param browser_type: Skyvern's name of the browser, such as ``chrome``. (templated)
    :param generate_browser_profile: Whether the session keeps the data for a profile. Default: False.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :param task_options: Arguments of any Airflow task, for both: ``retries``, ``pool``, ``queue``.
    :return: The session's id, as an XCom, for ``browser_session_id``.
    :raises SkyvernConfigError: an argument is wrong, or two tasks of the session can run at once.
    """
    opened = SkyvernOpenBrowserSessionOperator(
        task_id=f"open_{name}",
        timeout=timeout,
        browser_profile_id=profile,
        url=url,
        proxy_location=proxy_location,
        browser_type=browser_type,
        generate_browser_profile=generate_browser_profile,
        skyvern_conn_id=skyvern_conn_id,
        **task_options,
    )
    dag = opened.get_dag()
    if dag is None:
        raise SkyvernConfigError("skyvern_browser_session: use it within a DAG: with DAG(…): with … as session:")
    session: Any = opened.output
    closed = SkyvernCloseBrowserSessionOperator(
        task_id=f"close_{name}", browser_session_id=session, skyvern_conn_id=skyvern_conn_id, **task_options
    )
    before = set(dag.task_ids)
    yield session
    link(opened, closed, [task for task in dag.tasks if task.task_id not in before])


def _checked_timeout(task_id: str, timeout: Any) -> float:
    least, most = SHORTEST_TIMEOUT.total_seconds(), LONGEST_TIMEOUT.total_seconds()
    try:
        return seconds_of("timeout", timeout, least=least, most=most)
    except SkyvernConfigError as error:
        minutes = isinstance(timeout, int) and not isinstance(timeout, bool) and 0 < timeout < least
        hint = f" Seconds are meant: for {timeout} minutes, give timedelta(minutes={timeout})." if minutes else ""
        raise SkyvernConfigError(f"Task {task_id!r}: {error}{hint}") from None


def _check_location(task_id: str, location: str) -> None:
    from airflow_skyvern.client.run_request import checked_name

    try:
        checked_name(location)
    except ValueError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: proxy_location: {error}") from None
