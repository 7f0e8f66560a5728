"""
Decides who may see a page and who may act on it: Airflow's own authorization, for exactly the DAG in the path.

Airflow's dependency takes a path without a DAG, and the DAG ``~``, for "any DAG", and does not check that the DAG
exists; the routes here always have ``dag_id`` in their path, and :mod:`airflow_skyvern.ui.lookup` knows what exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request

from airflow_skyvern.compat import since_3_0, since_3_1

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

PAGE_HEADER = "x-skyvern-page"
"""The header that the page's script sends with a changing request; another site's page cannot send it."""

ENTITIES = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)
"""The parts of a DAG that a page shows: its task instances, and the runs that their XComs name."""


def not_any_dag(dag_id: str) -> None:
    """Reject "~", which Airflow reads as any DAG."""
    if dag_id == "~":
        raise HTTPException(404, "This DAG does not exist.")


def from_our_page(request: Request) -> None:
    """
    Reject a request that another site's page made with the user's cookie; Airflow does not reject it.

    The cookie is also sent from another port of the same host. But only a page of this origin can add a custom
    header, and browsers report a request's origin: in ``Sec-Fetch-Site``, or over plain HTTP in ``Origin``.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    own = {headers.get("host"), urlsplit(since_3_0.airflow_base_url()).netloc} - {"", None}
    same = site == "same-origin" if site else bool(origin) and urlsplit(origin or "").netloc in own
    if not (same and headers.get(PAGE_HEADER)):
        raise HTTPException(403, "This request does not come from the page in Airflow.")


READ = [Depends(not_any_dag), *(Depends(requires_access_dag("GET", entity)) for entity in ENTITIES)]
"""For a route that shows something of the DAG ``dag_id``."""

CHANGE = [Depends(from_our_page), *READ, Depends(requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE))]
"""For a route that acts on a task instance of the DAG ``dag_id``: users who may mark it may do so."""


def readable(user: Any, dag_ids: Iterable[str]) -> set[str]:
    """Return which of these DAGs the user may see on a page."""
    return {dag_id for dag_id in set(dag_ids) if all(_may(user, dag_id, "GET", entity) for entity in ENTITIES)}


def may_answer(user: Any, dag_id: str) -> bool:
    """Return whether the user may answer the requests of a DAG's tasks, so that a page shows buttons."""
    entities = (DagAccessEntity.TASK_INSTANCE, since_3_1.hitl_entity())
    return all(_may(user, dag_id, "PUT", entity) for entity in entities)


def is_one_of(user: Any, user_ids: Collection[str]) -> bool:
    """Return whether this user may answer, by the rule that Airflow applies to the answer."""
    return bool(get_auth_manager().is_authorized_hitl_task(assigned_users=set(user_ids), user=user))


def may_read_logs(user: Any, dag_id: str) -> bool:
    """Return whether the user may read the logs of a DAG's tasks, and so the reason of a failure."""
    return _may(user, dag_id, "GET", DagAccessEntity.TASK_LOGS)


def _may(user: Any, dag_id: str, method: Any, entity: DagAccessEntity) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    allowed = get_auth_manager().is_authorized_dag
    return bool(allowed(method=method, access_entity=entity, details=details, user=user))


def connection_name(user: Any, conn_id: str) -> str:
    """Return the name of a connection for those who may read it; nothing for others."""
    details = ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id))
    allowed = get_auth_manager().is_authorized_connection(method="GET", details=details, user=user)
    return conn_id if allowed else ""
