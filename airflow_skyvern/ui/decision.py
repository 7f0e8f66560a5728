"""
The two buttons of a run that waits for a person: they answer the request that its task has made in Required Actions.

Airflow itself takes the answer: it checks it, lets the first answer count, and resumes the task. The page only adds
proof that the request comes from itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from fastapi import Body, Depends, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.ui.access import CHANGE
from airflow_skyvern.ui.lookup import TaskKey, key_of

ANSWER = [*CHANGE, Depends(requires_access_dag("PUT", since_3_1.hitl_entity()))]
"""For the route that answers a request: for users who may do so under Required Actions, and may mark the task."""


async def answer(
    user: GetUserDep,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    option: Annotated[str, Body(embed=True, max_length=200)],
) -> JSONResponse:
    """Answer the open request of a task instance; 404 if there is none, 409 if somebody was faster."""
    await run_in_threadpool(answer_request, user, key_of(dag_id, run_id, task_id, map_index), option)
    return JSONResponse({"answered": option})


@dataclass(frozen=True)
class Request:
    """
    The request of a task instance in Required Actions.

    :param options: Its answers: first the one that lets the run continue, then the one that rejects and cancels it.
    :param answer: The given answer; empty while it is open.
    :param by: The user who answered; empty if nobody did, as the run does not wait any more.
    :param approvers: The only users who may answer, names by user id; empty if everybody who may edit the request may
        answer.
    """

    options: Sequence[str]
    answer: str = ""
    by: str = ""
    at: datetime | None = None
    approvers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether nobody has answered yet."""
        return self.at is None


def request_of(key: TaskKey) -> Request | None:
    """Return the request of a task instance, if there is one."""
    with create_session() as session:
        detail = session.scalar(
            select(HITLDetail).join(TaskInstance, TaskInstance.id == HITLDetail.ti_id).where(*key.of(TaskInstance))
        )
        if detail is None:
            return None
        return Request(
            options=[str(option) for option in detail.options],
            answer=", ".join(map(str, detail.chosen_options or ())),
            by=str(detail.responded_by_user_name or detail.responded_by_user_id or ""),
            at=detail.responded_at,
            approvers={one["id"]: one["name"] for one in detail.assigned_users},
        )


def answer_request(user: Any, key: TaskKey, option: str) -> None:
    """
    Answer the open request of a task instance as a user.

    :raises HTTPException: 409 it is answered already, or offers no such answer; and any refusal of Airflow.
    """
    # Imported late, as that imports every route of Airflow's, which takes seconds where they are not loaded.
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

    request = request_of(key)
    if request is None or not request.is_open or option not in request.options:
        raise HTTPException(409, "The run does not wait for this answer any more.")
    payload = UpdateHITLDetailPayload(chosen_options=[option])
    with create_session() as session:
        update_hitl_detail(key.dag_id, key.run_id, key.task_id, payload, user, session, key.map_index)
