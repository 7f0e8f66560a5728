"""
The errors of this package, each for one way to handle it.

::

    SkyvernError
    ├── SkyvernConfigError              a connection or an argument is wrong; the message names the field
    │   └── SkyvernTooOld               the server is too old for what was asked; nothing was sent
    ├── SkyvernConnectionError          no answer came (refused, reset, timed out)
    ├── SkyvernAPIError                 a non-2xx response
    │   ├── SkyvernAuthError            403: Skyvern refuses the API key
    │   ├── SkyvernNotFoundError        404: Skyvern knows no such run, workflow, session or profile
    │   ├── SkyvernRequestError         400, 410, 422: Skyvern does not accept the request
    │   │   └── SkyvernSessionEnded     410: the browser session of a start is over; a retry takes the one open then
    │   ├── SkyvernCreditError          402: the organization has no credit left
    │   ├── SkyvernRateLimitError       429: too many requests
    │   ├── SkyvernServerError          5xx: the server, or a proxy before it, is in trouble
    │   └── SkyvernResponseError        an answer that Skyvern is not known to give (a proxy's, a redirect, HTML)
    │       └── SkyvernAnswerTooLarge   an answer larger than [skyvern] max_answer_bytes
    ├── SkyvernRunError                 a run ended badly; carries the run
    │   ├── SkyvernRunFailed            failed
    │   │   └── SkyvernStepLimitReached failed: it took as many steps as it may (max_steps)
    │   ├── SkyvernRunTerminated        terminated: the workflow itself decided to stop
    │   ├── SkyvernRunTimedOut          timed_out: Skyvern's own limit for the run
    │   │   └── SkyvernTimeLimitReached timed_out: it took as long as it may (max_elapsed_time_minutes)
    │   └── SkyvernRunCanceled          canceled, by a person or by us
    ├── SkyvernOutputError              a run completed, and its output is not what was agreed; carries the run
    ├── SkyvernOutputTooLarge           an output is larger than what goes into XCom; a retry takes it again
    ├── SkyvernSyncError                credentials could not be made as their connections say; names which
    ├── SkyvernStartUnknown             a start was not answered, no run was found; a retry searches again
    ├── SkyvernStartAmbiguous           a start was not answered, and no way to find out; a person must look
    ├── SkyvernWaitInterrupted          the worker was stopped; the run continues, and the next try resumes it
    │   ├── SkyvernOvertaken            another try of the task has taken over; this one does nothing more
    │   └── SkyvernTaskEnded            the task was marked, cleared or deleted; its run is canceled
    ├── SkyvernWaitTimeout              the run did not end within our own deadline
    └── SkyvernFileError                a file of a run is not where it should be; the run itself is over
        ├── SkyvernTransferError        a file could not be stored in full; a retry takes the same run
        ├── SkyvernFileConflict         another file is there under this name
        ├── SkyvernAddressRefused       a file is at an address that is not read
        └── SkyvernFilesMissing         the run downloaded other files than were expected
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from airflow_skyvern.models import Run

__all__ = [
    "SkyvernAPIError",
    "SkyvernAddressRefused",
    "SkyvernAnswerTooLarge",
    "SkyvernAuthError",
    "SkyvernConfigError",
    "SkyvernConnectionError",
    "SkyvernCreditError",
    "SkyvernError",
    "SkyvernFileConflict",
    "SkyvernFileError",
    "SkyvernFilesMissing",
    "SkyvernNotFoundError",
    "SkyvernOutputError",
    "SkyvernOutputTooLarge",
    "SkyvernOvertaken",
    "SkyvernRateLimitError",
    "SkyvernRequestError",
    "SkyvernResponseError",
    "SkyvernRunCanceled",
    "SkyvernRunError",
    "SkyvernRunFailed",
    "SkyvernRunTerminated",
    "SkyvernRunTimedOut",
    "SkyvernServerError",
    "SkyvernSessionEnded",
    "SkyvernStartAmbiguous",
    "SkyvernStartUnknown",
    "SkyvernStepLimitReached",
    "SkyvernSyncError",
    "SkyvernTaskEnded",
    "SkyvernTimeLimitReached",
    "SkyvernTooOld",
    "SkyvernTransferError",
    "SkyvernWaitInterrupted",
    "SkyvernWaitTimeout",
]

MAX_QUOTE = 500
"""How many characters of a server's words a message repeats."""


class SkyvernError(Exception):
    """
    Base of everything this package raises on purpose.

    ``transient`` says whether the same request may succeed later; a wait continues after such an error.
    """

    transient: ClassVar[bool] = False


class SkyvernConfigError(SkyvernError, ValueError):
    """A connection field or an argument is missing or wrong."""


class SkyvernTooOld(SkyvernConfigError):
    """
    The server is too old for an option or a call, and would drop it in silence; nothing was sent.

    The message says which version has it.
    """


class SkyvernConnectionError(SkyvernError):
    """
    No answer came.

    :param never_sent: True when the request provably never reached the server, so that repeating it
        cannot do anything twice.
    :param hung_up: True when the connection was closed before an answer came: often because it was kept open
        for longer than the server likes.
    """

    transient: ClassVar[bool] = True

    def __init__(self, message: str, *, never_sent: bool = False, hung_up: bool = False) -> None:
        super().__init__(message)
        self.never_sent = never_sent
        self.hung_up = hung_up


class SkyvernAPIError(SkyvernError):
    """
    The server sent a non-2xx response.

    :param status_code: The HTTP status.
    :param detail: What the server said, without any echo of the request.
    :param retry_after: Seconds the server asked to wait, if it did.
    :param nothing_done: Whether it is Skyvern's own word that the request did nothing.
    :param transient: Whether the same request may succeed later, if that differs from the class.
    """

    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 0,
        detail: str = "",
        retry_after: float | None = None,
        nothing_done: bool = False,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.detail = detail
        self.retry_after = retry_after
        self.nothing_done = nothing_done
        if transient is not None:
            self.transient = transient  # type: ignore[misc]  # of the class for all other answers


class SkyvernAuthError(SkyvernAPIError):
    """The API key is missing, wrong, or not allowed to do this (403)."""

    advice = (
        "Check the API key (the password field of the Airflow connection) and that it belongs to the "
        "organization that owns this workflow; keys are listed in Skyvern under Settings, API keys."
    )


class SkyvernNotFoundError(SkyvernAPIError):
    """The requested object does not exist in the API key's organization (404); the answer is Skyvern's own."""

    advice = (
        "Check the id, and that it belongs to the organization of this API key; workflow ids start with wpid_, "
        "not with w_."
    )

    @property
    def workflow_gone(self) -> bool:
        """
        Whether the workflow is missing, and not the requested run.

        The server says so for a run whose workflow was deleted; for a run that never existed it says "Task run not
        found".
        """
        return self.detail.startswith("Workflow not found. ")

    def as_transient(self) -> SkyvernNotFoundError:
        """Return the error of something that was deleted a moment ago, and that a later try makes again."""
        message = f"{self} It was deleted a moment ago; a retry makes it again."
        return type(self)(message, status_code=self.status_code, detail=self.detail, transient=True)


class SkyvernRequestError(SkyvernAPIError):
    """Skyvern does not accept the request (400, 410 and 422); nothing was started."""

    advice = "Correct the request; nothing was done."


class SkyvernSessionEnded(SkyvernRequestError):
    """
    The browser session of a start is over (410): it was closed, or its timeout has come. Nothing was started.

    A retry takes the session that is open then: one that was opened again has another id.
    """

    transient: ClassVar[bool] = True


class SkyvernCreditError(SkyvernAPIError):
    """
    The organization has no credit left (402).

    Only Skyvern Cloud sends this, in an unknown wording. So a start searches for its run before this error ends the
    try, and it never ends a wait.
    """

    transient: ClassVar[bool] = True
    advice = "Add credit in Skyvern under Billing."


class SkyvernRateLimitError(SkyvernAPIError):
    """Too many requests (429)."""

    transient: ClassVar[bool] = True
    advice = "Fewer parallel tasks help: put them into an Airflow pool."


class SkyvernServerError(SkyvernAPIError):
    """The server, or a proxy before it, is in trouble (5xx)."""

    transient: ClassVar[bool] = True


class SkyvernResponseError(SkyvernAPIError):
    """
    An answer that Skyvern is not known to give: a redirect, HTML, half a body, another service, a proxy's 403 or 404.

    It proves nothing about a run: what was requested may have been done or not.
    """

    transient: ClassVar[bool] = True
    advice = "Check that the base URL (the host field of the Airflow connection) leads to a Skyvern API."


class SkyvernAnswerTooLarge(SkyvernResponseError):
    """An answer that is larger than the setting ``max_answer_bytes``, and would be so again."""

    transient: ClassVar[bool] = False
    advice = (
        "If the workers have several times as much memory, raise max_answer_bytes in section [skyvern] of Airflow's "
        "configuration; else let the workflow return less."
    )


class SkyvernRunError(SkyvernError):
    """
    A run ended badly.

    :param run: The run as it ended: ``failure_reason``, ``errors``, ``output``, ``app_url``.
    """

    def __init__(self, message: str, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class SkyvernRunFailed(SkyvernRunError):
    """The run ended as ``failed``."""


class SkyvernStepLimitReached(SkyvernRunFailed):
    """The run ended as ``failed``, as it had taken all steps that it may: ``max_steps``, or the workflow's limit."""


class SkyvernRunTerminated(SkyvernRunError):
    """The run ended as ``terminated``: the workflow decided that it cannot or must not continue."""


class SkyvernRunTimedOut(SkyvernRunError):
    """The run ended as ``timed_out``: it took longer than Skyvern allows it."""


class SkyvernTimeLimitReached(SkyvernRunTimedOut):
    """The run ended as ``timed_out`` at ``max_elapsed_time_minutes``, of its task, its workflow or the server."""


class SkyvernRunCanceled(SkyvernRunError):
    """The run ended as ``canceled``."""


class SkyvernOutputError(SkyvernError):
    """
    A run completed, but its output does not match ``output_schema`` or ``output_from``.

    :param run: The run, with its output.
    :param transient: Whether the next try starts another run (``rerun_on_invalid_output``).
    """

    def __init__(self, message: str, run: Run | None = None, *, transient: bool = False) -> None:
        super().__init__(message)
        self.run = run
        self.transient = transient  # type: ignore[misc]  # of the class for all other errors


class SkyvernOutputTooLarge(SkyvernError):
    """An output is larger than ``[skyvern] max_xcom_bytes``; a retry takes the output of the same run again."""

    transient: ClassVar[bool] = True


class SkyvernSyncError(SkyvernError):
    """
    A connection cannot be read, or credentials could not be made as their connections say; the others were.

    :param transient: Whether the next try may succeed.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient  # type: ignore[misc]  # of the class for all other errors


class SkyvernStartUnknown(SkyvernError):
    """A start was not answered, and its run was not found yet; a later try searches again before it starts one."""

    transient: ClassVar[bool] = True


class SkyvernStartAmbiguous(SkyvernError):
    """A run may have been started, and the task cannot find out; a person has to check in Skyvern."""


class SkyvernWaitInterrupted(SkyvernError):
    """The worker was stopped, not by a user; the run continues, and the next try of the task resumes it."""

    transient: ClassVar[bool] = True


class SkyvernOvertaken(SkyvernWaitInterrupted):
    """
    Another try of the task has taken over, or Airflow did not say that this one is still the current one.

    The next action of this try was not carried out, and nothing is canceled: the run belongs to the other try.
    """


class SkyvernTaskEnded(SkyvernWaitInterrupted):
    """
    A user has marked, cleared or deleted the task, and Airflow has not stopped this try yet.

    The next action of this try was not carried out. The task's run is canceled, unless ``cancel_on_kill`` is False.
    """


class SkyvernWaitTimeout(SkyvernError):
    """
    The run did not end within the deadline of the task.

    :param run: The run as it was last fetched, if it could be fetched.
    """

    def __init__(self, message: str, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class SkyvernFileError(SkyvernError):
    """A file of a run could not be stored, or is missing. The run itself is over, and stays what it is."""


class SkyvernTransferError(SkyvernFileError):
    """A file could not be stored in full, and nothing of it is left; a retry takes the same run."""

    transient: ClassVar[bool] = True


class SkyvernFileConflict(SkyvernFileError):
    """Another file already has the name that this file would get."""


class SkyvernAddressRefused(SkyvernFileError):
    """A file of a run is at an address that is not read: a path of the server, or a host of a private network."""


class SkyvernFilesMissing(SkyvernFileError):
    """The run completed, and downloaded other files than were expected."""


BAD_ENDINGS: dict[str, type[SkyvernRunError]] = {
    # the final statuses of a run other than completed
    "failed": SkyvernRunFailed,
    "terminated": SkyvernRunTerminated,
    "timed_out": SkyvernRunTimedOut,
    "canceled": SkyvernRunCanceled,
}


LIMITS_REACHED: dict[str, tuple[type[SkyvernRunError], str]] = {
    "max_steps": (
        SkyvernStepLimitReached,
        "It reached its limit of steps: raise max_steps, or give it less to do.",
    ),
    "max_elapsed_time_minutes": (
        SkyvernTimeLimitReached,
        "It reached its limit of time: raise max_elapsed_time_minutes, or give it less to do.",
    ),
}
"""The errors of runs that a limit has ended, and what to do."""


def error_of_ending(run: Run, block: str | None = None, limit: str | None = None, login: str = "") -> SkyvernRunError:
    """
    Make the error for a run that ended badly: how, where, why, and where to look.

    :param block: The label of the block at which it failed, if it is known.
    :param limit: The limit that ended it, if it is known from another source than the run.
    :param login: What failed during the login, in a few words, if the run failed there.
    """
    message = f"Skyvern run {run.run_id} ended as {run.status}" + (f" in block {block}" if block else "")
    reason = "; ".join(part for part in (run.failure_reason, _codes(run)) if part)
    if reason:
        from airflow_skyvern.secret_values import masked_text

        message += f": {shorten(masked_text(reason))}"
    if login:
        message = sentence(message, f"{login[0].upper()}{login[1:]}.")
    error, advice = BAD_ENDINGS.get(run.status, SkyvernRunError), ""
    if (reached := run.limit_reached or limit) is not None:
        error, advice = LIMITS_REACHED[reached]
    where = f"See {run.app_url}" if run.app_url else ""
    return error(sentence(sentence(message, advice), where), run)


def shorten(text: str, limit: int = MAX_QUOTE) -> str:
    """Fold white space and cut what is too long for a message."""
    folded = " ".join(text.split())
    return folded if len(folded) <= limit else f"{folded[: limit - 1]}…"


def _codes(run: Run) -> str:
    return f"error codes {', '.join(run.error_codes)}" if run.error_codes else ""


def sentence(message: str, addition: str) -> str:
    """Append another sentence, if there is one."""
    if not addition:
        return message
    return f"{message if message.endswith(('.', '…')) else message + '.'} {addition}"
