"""Give Skyvern a code for a login that has arrived in another system, by mail or SMS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals, since_3_1
from airflow_skyvern.durations import seconds_of
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.task.arguments import is_dynamic
from airflow_skyvern.task.base import ChecksArguments, UsesConnection, check_untemplated
from airflow_skyvern.task.endings import errors_for_airflow
from airflow_skyvern.task.rendering import is_guarded

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context

HIDDEN = "***"


class Hidden:
    """A value that Airflow shows and stores as ``***`` wherever it shows and stores the arguments of a task."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Say nothing of it."""
        return HIDDEN

    def serialize(self) -> str:
        """Say nothing of it; Airflow 3 asks for this."""
        return HIDDEN


class SkyvernSendTotpCodeOperator(ChecksArguments, UsesConnection):
    """
    Give Skyvern a code for a login in two steps, which another system has received by mail or SMS.

    A run waits for it up to 15 minutes if its login block, or the credential, has a ``totp_identifier`` in Skyvern; a
    ``totp_identifier`` in the run's request has no effect. Send the code while the run waits, or a little before.

    The code is in no log, rendered template or XCom of this task. Whether other tasks store it depends on its source:
    a function as ``code`` leaves nothing in Airflow; an XCom of another task stays in Airflow's database.

    XCom: ``return_value``: Skyvern's id of the code, ``totp_…``.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/send-totp-code

    :param totp_identifier: The mail address or phone number that the login waits for, as Skyvern has it. (templated)
    :param code: The code, or the message that contains it, from which Skyvern's model extracts it: a function that is
        called in the task, with the context variables that it names, and returns it; or a template, or the value of
        another task. A code in the DAG file itself is refused. (templated)
    :param run_id: The only run that may use it: ``wr_…``. Default: any that waits for this identifier. (templated)
    :param expires_in: Seconds, or a timedelta, after which Skyvern does not use it any more. With one that is near, a
        wrong code is not typed in twice. Default: ten minutes, as Skyvern has it.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises SkyvernConnectionError: no answer came; a retry sends the code again, which does no harm.
    :raises AirflowFailException: no retry can help: no code, an unknown run, a wrong API key.
    """

    template_fields: Sequence[str] = ("totp_identifier", "code", "run_id", "skyvern_conn_id")
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        totp_identifier: str,
        code: Callable[..., str] | str,
        run_id: str | None = None,
        expires_in: timedelta | float | None = None,
        skyvern_conn_id: str = "skyvern_default",
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(**kwargs)
        self.totp_identifier = totp_identifier
        self._find_code = code if _is_function(code) else None
        self.code: Any = None if self._find_code else code
        self.run_id = run_id
        self.expires_in = None if expires_in is None else seconds_of("expires_in", expires_in)
        self.skyvern_conn_id = skyvern_conn_id
        if isinstance(code, str) and not is_dynamic(code) and not internals.is_made_by_expand(self):
            raise SkyvernConfigError(
                f"Task {self.task_id!r}: code: is a text of the DAG file, the same in each run, and would stand in "
                "Airflow's database. Give a function that returns it, a template, or the value of another task."
            )

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value; the code is hidden where Airflow shows and stores rendered arguments."""
        is_whole = jinja_env is None or not is_guarded(jinja_env)  # and not a part of it
        is_code = is_whole and content is not None and content is self.code
        rendered = super().render_template(content, context, jinja_env, seen_oids)
        return Hidden(rendered) if is_code and not isinstance(rendered, Hidden) else rendered

    def execute(self, context: Context) -> str:
        """Send the code."""
        with errors_for_airflow():
            content = self._content(context)
            until = self.expires_in and datetime.now(timezone.utc) + timedelta(seconds=self.expires_in)
            sent = self.hook.send_totp_code(self.totp_identifier, content, self.run_id or None, until or None)
        self.log.info("Sent the code for %s to Skyvern: %s", self.totp_identifier, sent.totp_code_id)
        return sent.totp_code_id

    def _content(self, context: Context) -> str:
        found = self._called(context) if self._find_code else self.code
        found = found.value if isinstance(found, Hidden) else found
        if not isinstance(found, str) or found.strip() in ("", "None"):
            raise SkyvernConfigError(
                f"code: there is none, but {type(found).__name__}. A function must return a text; a value of another "
                "task must have been pushed, and be one."
            )
        from airflow_skyvern.client.credential_check import as_typed

        content = as_typed(found)
        since_3_1.mask_secret(content)
        return content

    def _called(self, context: Context) -> Any:
        from airflow_skyvern.compat.sdk import determine_kwargs

        function: Any = self._find_code
        return function(**determine_kwargs(function, (), context))


def _is_function(code: Any) -> bool:
    return callable(code) and not is_dynamic(code)
