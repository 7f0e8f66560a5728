"""Keep the login of a browser: make a profile of a session or a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.task.arguments import is_dynamic, run_id_of
from airflow_skyvern.task.base import ChecksArguments, UsesConnection, check_untemplated
from airflow_skyvern.task.endings import errors_for_airflow
from airflow_skyvern.task.task_try import TaskTry

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_skyvern.compat.sdk import Context

STORE_PATIENCE = 120.0
"""Seconds within which Skyvern stores the state of a closed browser."""

STORE_INTERVAL = 5.0


class SkyvernCreateBrowserProfileOperator(ChecksArguments, UsesConnection):
    """
    Make a profile of the browser that has logged in, for later runs and sessions.

    This closes the session, so make it the session's last task, or place it after the block of
    :func:`~airflow_skyvern.operators.skyvern_browser_session`. A retry makes no second profile: it finds the earlier
    try's profile by name.

    XCom: ``return_value``: the profile's id, for ``browser_profile_id``, which takes the name, too.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-profiles/create-browser-profile

    :param name: The profile's name, by which runs can use it. (templated)
    :param browser_session_id: The session to make it of. If it is closed already, it must have been opened with
        ``generate_browser_profile=True``. (templated)
    :param run_id: Or the run, which must have completed, of a workflow that keeps its browser session
        (``persist_browser_session``). (templated)
    :param description: A note for people. (templated)
    :param replace: Whether it replaces an older profile of that name, which is deleted when the new one is stored.
        With False, an older one fails the task. Default: True.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises SkyvernConfigError: an argument is wrong; when the DAG is parsed if it can be known then.
    :raises AirflowFailException: no retry can help: an unknown session or run, one that keeps no profile, a wrong
        key.
    """

    template_fields: Sequence[str] = ("name", "browser_session_id", "run_id", "description", "skyvern_conn_id")
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        name: str,
        browser_session_id: str | None = None,
        run_id: str | None = None,
        description: str | None = None,
        replace: bool = True,
        skyvern_conn_id: str = "skyvern_default",
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(**kwargs)
        self.name = name
        self.browser_session_id = browser_session_id
        self.run_id = run_id
        self.description = description
        self.replace = replace
        self.skyvern_conn_id = skyvern_conn_id
        if (browser_session_id is None) == (run_id is None):
            raise SkyvernConfigError(f"Task {self.task_id!r}: give either browser_session_id or run_id.")
        if not is_dynamic(name):
            self._checked_name()

    def execute(self, context: Context) -> str:
        """Close the session, and make the profile, or find the one that an earlier try has made."""
        from airflow_skyvern.client.retry import while_transient
        from airflow_skyvern.runs.browser_profiles import save_profile

        task_try = TaskTry(context)
        with errors_for_airflow():
            name, since = self._checked_name(), self._closed_session() if self.run_id is None else self._ended_run()
            profile_id: str = while_transient(STORE_PATIENCE, interval=STORE_INTERVAL)(
                save_profile,
                self.hook.send,
                name,
                session_id=self.browser_session_id,
                run_id=self.run_id,
                since=since,
                description=self.description or None,
                replace=self.replace,
                ensure_current=task_try.ensure_current,
            )
        self.log.info("Browser profile %s: made, its name is %r", profile_id, name)
        return profile_id

    def _closed_session(self) -> datetime | None:
        """Close the session so that it keeps a profile, and return when it was created."""
        from airflow_skyvern.runs.browser_sessions import close_session

        session = self.hook.get_browser_session(self._checked_session())
        if not session.is_over:
            if not session.generate_browser_profile:
                self.hook.update_browser_session(session.browser_session_id, generate_browser_profile=True)
            close_session(self.hook.send, session.browser_session_id, self.log)
        elif not session.generate_browser_profile and session.browser_profile_id is None:
            raise SkyvernConfigError(
                f"browser_session_id: session {session.browser_session_id} is closed and has kept no profile. Make "
                "this task the last one within the block of skyvern_browser_session, or open the session with "
                "generate_browser_profile=True."
            )
        return session.created_at

    def _ended_run(self) -> datetime | None:
        run = self.hook.fetch_run(run_id_of(self.run_id))
        if not run.succeeded:
            raise SkyvernConfigError(
                f"run_id: Skyvern run {run.run_id} is {run.status}. A profile is made of a run that has completed: "
                "put this task behind the one that waits for it."
            )
        return run.created_at

    def _checked_session(self) -> str:
        session_id = self.browser_session_id or ""
        if session_id.strip() in ("", "None"):
            raise SkyvernConfigError(
                f"browser_session_id: is {self.browser_session_id!r}. The task it comes from has not opened one."
            )
        return session_id

    def _checked_name(self) -> str:
        """Return the name; one that looks like an id could not be used as a name."""
        from airflow_skyvern.runs.browser_profiles import ID_PREFIX

        name = str(self.name or "").strip()
        if not name or name.startswith(ID_PREFIX):
            raise SkyvernConfigError(
                f"Task {self.task_id!r}: name: must be a text that does not begin with {ID_PREFIX}, "
                f"not {self.name!r}."
            )
        return name
