"""
Which team of Airflow a connection is read for (``[core] multi_team``, since Airflow 3.2).

A task can read the connections of its own team and connections without a team. Airflow's own processes can read only
connections without a team, unless they name the team that they ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_skyvern.compat.sdk import Connection


def has_teams() -> bool:
    """Return whether this Airflow has teams."""
    from airflow_skyvern.compat.sdk import conf

    return bool(conf.getboolean("core", "multi_team", fallback=False))


def read_connection(conn_id: str, dag_id: str | None = None) -> Connection:
    """
    Read a connection in the API server, the scheduler, or on the command line.

    :param dag_id: Read it as a task of this DAG may. Default: regardless of its team.
    :raises AirflowNotFoundException: there is none, or it is another team's.
    """
    if not has_teams():
        from airflow_skyvern.compat.sdk import BaseHook

        everybodys: Connection = BaseHook.get_connection(conn_id)
        return everybodys
    from airflow.models.connection import Connection as Model
    from airflow.models.dag import DagModel

    team = Model.get_team_name(conn_id) if dag_id is None else DagModel.get_team_name(dag_id)
    found: Connection = Model.get_connection_from_secrets(conn_id, team_name=team)
    return found


def team_of_connection(conn_id: str, session: Session) -> str | None:
    """Return the team of a connection; None if it belongs to no team."""
    if not has_teams():
        return None
    from airflow.models.connection import Connection as Model

    team: str | None = Model.get_team_name(conn_id, session=session)
    return team


def dags_of_team(team: str, dag_ids: Iterable[str], session: Session) -> set[str]:
    """Return which of these DAGs belong to a team, and so may read its connections."""
    from airflow.models.dag import DagModel

    teams: dict[str, str | None] = DagModel.get_dag_id_to_team_name_mapping(list(dag_ids), session=session)
    return {dag_id for dag_id, name in teams.items() if name == team}


def only_for(team: str | None) -> dict[str, Any]:
    """Return the arguments with which an asset event starts DAGs of this team only; without a team, nothing."""
    if team is None:
        return {}
    return {
        "source_is_api": True,
        "api_user_teams": {team},
        "api_allow_consumer_teams": [],
        "api_allow_global_consumers": False,
    }


def hint() -> str:
    """Return advice about a connection that a triggerer has not found; empty without teams."""
    if not has_teams():
        return ""
    return (
        " A triggerer of Airflow reads no connection that belongs to a team ([core] multi_team): define it in the "
        "environment of that team's triggerer too, or let it belong to no team."
    )
