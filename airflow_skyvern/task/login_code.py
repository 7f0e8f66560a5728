"""
A code that a run waits for at a login: the request in Airflow's Required Actions that says so.

The code itself is not entered there, as Airflow would keep it: a person types it on the run's page, whose server
sends it to Skyvern and closes the request, see :mod:`airflow_skyvern.ui.login_code`. So this module never has the
code.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.runs.login_code import SETTLES, Answered, CodeStep
from airflow_skyvern.runs.question import APPROVE, REJECT
from airflow_skyvern.task.approval import SEVERAL, Answer, Request, body_of

if TYPE_CHECKING:
    from airflow_skyvern.task.task_try import TaskTry

SENT = "The code was sent"
"""The answer to the request, from the page or from a person who has sent Skyvern the code in another way."""

WANTED = (
    "The run waits at a login for a code. Type it on the page of the run in Airflow, which sends it to Skyvern at "
    "once. Do not type it here."
)


class CodeRequest(Request):
    """The part of a request for a code, without the code, that Airflow's database stores during a deferral."""

    step: dict[str, Any]


def ask_for_code(
    task_try: TaskTry,
    run_id: str,
    step: CodeStep,
    app_url: str | None,
    users: list[dict[str, str]] | None,
    *,
    asks_for_approvals: bool,
) -> CodeRequest:
    """
    Say in Airflow that a run waits for a code.

    :param users: The only users who may send it; see :func:`~airflow_skyvern.task.approval.users_of`.
    :param asks_for_approvals: Whether the same task may ask for an approval, with the same request: its text and its
        answers are those of the first question of a try.
    """
    options = [APPROVE, REJECT] if asks_for_approvals else [SENT]
    subject = f"Skyvern: {run_id}" if asks_for_approvals else "Skyvern: a code is wanted"
    body = body_of(task_try, SEVERAL if asks_for_approvals else WANTED, app_url)
    since_3_1.ask_person(task_try.id, options=options, subject=subject, body=body, users=users)
    return CodeRequest(
        run_id=run_id, block_id=step.block_id, label=step.label, options=options, app_url=app_url, step=step.stored()
    )


def answered_now(request: Mapping[str, Any], answer: Answer | None) -> dict[str, Any] | None:
    """Return the step for which a person has sent a code, as the next wait stores it; None if nobody has."""
    if answer is None or not answer.approved:
        return None
    return Answered(CodeStep.of(request["step"]), time.time() + SETTLES).stored()
