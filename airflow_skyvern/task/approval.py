"""A person's approval in Airflow's Required Actions: the request of this try of this task, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.question import Question
    from airflow_skyvern.runs.wait import Log
    from airflow_skyvern.task.task_try import TaskTry

ON_REJECT = ("fail", "skip", "return")

SEVERAL = "This run may ask several times: its page says what for now."
"""The text of a request that serves for several questions: Airflow keeps the first text for the whole try."""

Approvers = Sequence[str | Mapping[str, str]] | Mapping[str, str] | str | None
"""Who may answer: ids of Airflow users, or ``id`` and ``name`` of each."""


class Request(TypedDict):
    """The part of a request that is stored in Airflow's database while the task is deferred."""

    run_id: str
    block_id: str | None
    label: str
    options: list[str]
    app_url: str | None


class Note(TypedDict):
    """The XCom ``approval``."""

    run_id: str
    block: str
    approved: bool
    answer: str
    answered_by: str | None
    answered_in: str
    answered_at: str


@dataclass(frozen=True)
class Answer:
    """A person's answer in Airflow."""

    approved: bool
    option: str
    by: str | None
    at: str


def check_requests(
    task_id: str, approval: Any, code: Any, on_reject: Any, approvers: Any = None, *, waits_deferred: bool
) -> None:
    """
    Check the arguments that ask a person in Airflow, for an approval or a code.

    :raises SkyvernConfigError: says what is wrong.
    """
    if on_reject not in ON_REJECT:
        raise SkyvernConfigError(f"Task {task_id!r}: on_reject must be one of {', '.join(ON_REJECT)}.")
    users_of(task_id, approvers)
    given = {"approval": approval, "code": code}
    if approvers is not None and not any(value is not None for value in given.values()):
        raise SkyvernConfigError(f"Task {task_id!r}: approvers needs approval='airflow' or code='airflow'.")
    for name, value in given.items():
        if value is not None:
            _check_request(task_id, name, value, waits_deferred=waits_deferred)


def _check_request(task_id: str, name: str, value: Any, *, waits_deferred: bool) -> None:
    if value != "airflow":
        shown = "something else" if name == "code" else repr(value)  # which may be a code
        raise SkyvernConfigError(f"Task {task_id!r}: {name} must be None or 'airflow', not {shown}.")
    if not since_3_1.has_required_actions():
        raise SkyvernConfigError(
            f"Task {task_id!r}: {name}='airflow' needs Airflow 3.1, which brought Required Actions."
        )
    if not waits_deferred:
        raise SkyvernConfigError(
            f"Task {task_id!r}: {name}='airflow' needs deferrable=True and wait_for_completion=True."
        )


def users_of(task_id: str, approvers: Any) -> list[dict[str, str]] | None:
    """
    Return the only users who may answer, in Airflow's form; None if everybody who may edit the request may answer.

    :raises SkyvernConfigError: not a list of user ids; an empty one would let everybody answer.
    """
    if approvers is None:
        return None
    listed = [approvers] if isinstance(approvers, str | Mapping) else approvers
    if not isinstance(listed, list | tuple | set | frozenset) or not listed:
        raise SkyvernConfigError(
            f"Task {task_id!r}: approvers must be a list of ids of Airflow users, such as ['alice'], "
            f"not {approvers!r}; leave it out to let everybody answer who may edit the request."
        )
    return [_user(task_id, one) for one in listed]


def _user(task_id: str, user: Any) -> dict[str, str]:
    if isinstance(user, Mapping) and set(user) <= {"id", "name"} and "id" in user:
        named = {"id": user["id"], "name": user.get("name", user["id"])}
    else:
        named = {"id": user, "name": user}
    if not all(isinstance(value, str) and value.strip() for value in named.values()):
        raise SkyvernConfigError(
            f"Task {task_id!r}: approvers has {user!r}; give a user as its id ('alice'), "
            "or as {'id': '7', 'name': 'Alice'}."
        )
    return named


def answer_of(event: Any, request: Request) -> Answer | None:
    """Return a person's answer from our trigger's event or Airflow 3.3's; None for another event."""
    chosen = event.get("chosen_options") if isinstance(event, Mapping) else None
    if not chosen or chosen[0] not in request["options"]:
        return None
    user, when = event.get("responded_by_user"), event.get("responded_at")
    by = str(user.get("name") or user.get("id")) if isinstance(user, Mapping) else None
    at = when.isoformat() if isinstance(when, datetime) else str(when or datetime.now(timezone.utc).isoformat())
    return Answer(approved=chosen[0] == request["options"][0], option=chosen[0], by=by, at=at)


def is_resumed(event: Any) -> bool:
    """Return whether the trigger has ended because the run does not wait for a person any more."""
    return isinstance(event, Mapping) and event.get("reason") == "resumed"


def body_of(task_try: TaskTry, text: str, app_url: str | None) -> str:
    """Return the text of a request, with links to the run."""
    links = {"Run in Airflow": since_3_1.task_page(task_try.ti), "Run in Skyvern": app_url}
    shown = " · ".join(f"[{name}]({address})" for name, address in links.items() if address)
    return "\n\n".join(part for part in (text, shown) if part)


class Approvals:
    """
    The request of this try, which is at most one at a time.

    :param sleep: How to pause; ends early when the task is killed.
    :param users: The only users who may answer; see :func:`users_of`. Default: everybody who may edit the request.
    :param asks_for_codes: Whether the same task may ask for a code, with the same request.
    """

    def __init__(
        self,
        hook: SkyvernHook,
        task_try: TaskTry,
        run_id: str,
        log: Log,
        sleep: Callable[[float], None],
        users: list[dict[str, str]] | None = None,
        *,
        asks_for_codes: bool = False,
    ) -> None:
        self._hook, self._try, self._run_id, self._log, self._sleep = hook, task_try, run_id, log, sleep
        self._users, self._asks_for_codes = users, asks_for_codes

    def ask(self, workflow_id: str) -> Request | None:
        """Show the run's question in Airflow; return None if it does not wait for a person any more."""
        from airflow_skyvern.runs.question import APPROVE, REJECT, asking, question_of

        question = asking(self._sleep)(question_of, self._hook.send, self._run_id)
        if question is None:
            return None
        once = self._asks_once(workflow_id)
        options = [question.approve, question.reject] if once else [APPROVE, REJECT]
        subject = f"Skyvern: {(once and (question.subject or question.label)) or self._run_id}"
        body = self._body(question, once=once)
        since_3_1.ask_person(self._try.id, options=options, subject=subject, body=body, users=self._users)
        self._log.info("Skyvern run %s: asks in Airflow's Required Actions: %s", self._run_id, " / ".join(options))
        return Request(
            run_id=self._run_id,
            block_id=question.block_id,
            label=question.label,
            options=options,
            app_url=question.app_url,
        )

    def approve(self, request: Request, answer: Answer) -> None:
        """Let the run continue, unless it has moved on already."""
        from airflow_skyvern.client.session import checked
        from airflow_skyvern.runs.question import approve

        send = checked(self._hook.send, self._try.ensure_current)
        if approve(send, self._run_id, request["block_id"], self._sleep):
            self._note(request, answer)
        else:
            self._note_too_late(request, answer)

    def reject(
        self, request: Request, answer: Answer, before_cancel: Callable[[], object] = lambda: None
    ) -> tuple[Run, Note] | None:
        """Cancel the run and return its new state, and the note; None if it has moved on already."""
        from airflow_skyvern.runs.question import asking, still_asks

        if not asking(self._sleep)(still_asks, self._hook.send, self._run_id, request["block_id"]):
            self._note_too_late(request, answer)
            return None
        return self.cancel(request, answer, before_cancel)

    def cancel(
        self, request: Request, answer: Answer, before_cancel: Callable[[], object] = lambda: None
    ) -> tuple[Run, Note]:
        """Cancel the run, and return its new state, and the note."""
        from airflow_skyvern.client.session import checked
        from airflow_skyvern.runs.cancel import cancel_and_fetch

        before_cancel()
        send = checked(self._hook.send, self._try.stop_if_overtaken)
        run = cancel_and_fetch(send, self._run_id, sleep=self._sleep)
        return run, self._note(request, answer)

    def note_answer_in_skyvern(self, request: Request, event: Any) -> None:
        """Note that the run continues, or has completed, without an answer from Airflow."""
        if not (is_resumed(event) or (isinstance(event, Mapping) and event.get("status") == "completed")):
            return
        self._note_in_skyvern(request)

    def _note_in_skyvern(self, request: Request) -> None:
        now = datetime.now(timezone.utc).isoformat()
        self._publish(request, Answer(approved=True, option="", by=None, at=now), "skyvern")
        self._log.info("Skyvern run %s: a person has answered in Skyvern", self._run_id)

    def _note(self, request: Request, answer: Answer) -> Note:
        self._log.info(
            "Skyvern run %s: %s by %s in Airflow (%s)",
            self._run_id,
            "approved" if answer.approved else "rejected",
            answer.by or "an unknown user",
            answer.option,
        )
        return self._publish(request, answer, "airflow")

    def _publish(self, request: Request, answer: Answer, where: str) -> Note:
        note = Note(
            run_id=self._run_id,
            block=request["label"],
            approved=answer.approved,
            answer=answer.option,
            answered_by=answer.by,
            answered_in=where,
            answered_at=answer.at,
        )
        self._try.publish_approval(note)
        return note

    def _note_too_late(self, request: Request, answer: Answer) -> None:
        """Note who was faster: a person in Skyvern, unless the run has ended badly meanwhile."""
        from airflow_skyvern.client.session import fetch_run
        from airflow_skyvern.runs.question import asking

        self._log.warning(
            "Skyvern run %s: the answer of %s (%s) came too late: the run does not wait for it any more",
            self._run_id,
            answer.by or "an unknown user",
            answer.option,
        )
        run = asking(self._sleep)(fetch_run, self._hook.send, self._run_id)
        if run.succeeded or not run.is_final:
            self._note_in_skyvern(request)

    def _asks_once(self, workflow_id: str) -> bool:
        """Return whether the run asks once only: Airflow keeps the text of the first request for all of a try."""
        from airflow_skyvern.runs.question import asks_once

        if self._asks_for_codes:
            return False
        try:
            return asks_once(self._hook.get_workflow(workflow_id))
        except SkyvernError as error:
            self._log.info("Skyvern run %s: how often it asks is not known. %s", self._run_id, error)
            return False

    def _body(self, question: Question, *, once: bool) -> str:
        from airflow_skyvern.runs.question import escaped

        text = escaped(question.instructions) if once else SEVERAL
        return body_of(self._try, text or "The run waits for a person.", question.app_url)
