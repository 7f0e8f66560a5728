"""
Which team of Airflow a connection is read for (``[core] multi_team``, since Airflow 3.2).

A task can read the connections of its own team and connections without a team. Airflow's own processes can read only
connections without a team, unless they name the team that they ask for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_skyvern.compat.sdk import Connection

ENVIRONMENT_PREFIX = "AIRFLOW_CONN_"

RULE = "With teams ([core] multi_team), a connection of a team is read for DAGs of that team only."
"""Advice where a connection was not found."""


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

    team = team_of_connection(conn_id) if dag_id is None else team_of_dag(dag_id)
    found: Connection = Model.get_connection_from_secrets(conn_id, team_name=team)
    return found


def team_of_connection(conn_id: str, session: Session | None = None) -> str | None:
    """Return the team of a connection in the database or in the environment; None if it belongs to no team."""
    if not has_teams():
        return None
    from airflow.models.connection import Connection as Model

    given = {} if session is None else {"session": session}  # without it, Airflow would close the caller's session
    stored: dict[str, str | None] = Model.get_conn_id_to_team_name_mapping([conn_id], **given)
    return stored[conn_id] if conn_id in stored else _team_in_environment(conn_id, given)


def _team_in_environment(conn_id: str, given: Mapping[str, Any]) -> str | None:
    """Return the only team that the environment has a connection for, in ``AIRFLOW_CONN__<TEAM>___<ID>``."""
    from airflow.models.team import Team

    if f"{ENVIRONMENT_PREFIX}{conn_id.upper()}" in os.environ:
        return None
    names: set[str] = Team.get_all_team_names(**given)
    suffix = f"___{conn_id.upper()}"
    named = [name for name in names if f"{ENVIRONMENT_PREFIX}_{name.upper()}{suffix}" in os.environ]
    return named[0] if len(named) == 1 else None


def id_in_environment(variable: str) -> str:
    """Return the id of the connection that an environment variable defines, for a team or for all."""
    name = variable.removeprefix(ENVIRONMENT_PREFIX)
    if has_teams() and name.startswith("_"):
        name = name.rpartition("___")[2]
    return name.lower()


def team_of_dag(dag_id: str) -> str | None:
    """Return the team of a DAG; None if it belongs to no team."""
    from airflow.models.dag import DagModel

    team: str | None = DagModel.get_team_name(dag_id)
    return team


def may_read(conn_id: str, dag_id: str) -> bool:
    """Return whether the tasks of a DAG may read a connection."""
    team = team_of_connection(conn_id)
    return team is None or team == team_of_dag(dag_id)


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


def advice_for_triggerer(conn_id: str) -> str:
    """Return what helps where a triggerer has not found a connection."""
    return (
        "Airflow's triggerers cannot read a connection that belongs to a team ([core] multi_team): define it as "
        f"{ENVIRONMENT_PREFIX}{conn_id.upper()} in the environment of that team's triggerer too, or take it out of "
        "the team."
    )


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Add advice to the error about a connection that was not found; without teams, nothing."""
    from airflow_skyvern.compat.sdk import AirflowNotFoundException

    try:
        yield
    except AirflowNotFoundException as error:
        if not has_teams():
            raise
        raise AirflowNotFoundException(f"{str(error).rstrip('.')}. {advice}") from None
