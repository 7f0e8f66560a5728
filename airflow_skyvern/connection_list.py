"""Which connections there are: in Airflow's database, in the environment, and those whose webhooks are taken."""

from __future__ import annotations

import json
import os
from contextlib import suppress

from airflow_skyvern.compat import internals, teams


def connections_of(*conn_types: str) -> dict[str, str]:
    """
    Return the connections of some types: their types by their ids.

    A secrets backend cannot be asked for a list.

    :raises SkyvernConfigError: Airflow's database cannot be read.
    """
    from airflow.models.connection import Connection
    from sqlalchemy import select

    with internals.database_session() as session:
        wanted = select(Connection.conn_id, Connection.conn_type).where(Connection.conn_type.in_(conn_types))
        rows = session.execute(wanted).all()
    return {**{str(conn_id): str(kind) for conn_id, kind in rows}, **connections_in_environment(*conn_types)}


def connections_in_environment(*conn_types: str) -> dict[str, str]:
    """Return those that the environment has, for all or for a team."""
    kinds = {
        teams.id_in_environment(name): _type_in(value)
        for name, value in os.environ.items()
        if name.startswith(teams.ENVIRONMENT_PREFIX)
    }
    return {conn_id: kind for conn_id, kind in kinds.items() if kind in conn_types}


def webhook_connections() -> frozenset[str]:
    """Return the connections that ``[skyvern] webhook_connections`` names."""
    from airflow_skyvern.compat.sdk import conf

    names = str(conf.get("skyvern", "webhook_connections", fallback="") or "")
    return frozenset(name.strip() for name in names.split(",") if name.strip())


def _type_in(value: str) -> str:
    """Read the type of a connection that is written as a URI or as JSON."""
    if value.startswith("{"):
        with suppress(ValueError):
            return str(json.loads(value).get("conn_type", ""))
    return value.partition(":")[0].replace("-", "_")
