"""What Airflow loads of this provider into each of its processes: next to nothing, but in the API server."""

from __future__ import annotations

import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin


def in_api_server() -> bool:
    """
    Tell whether this process is Airflow's API server.

    A listener anywhere else would forbid ``end_from_trigger=True`` to every DAG of the installation: Airflow
    refuses it where the DAG processor has listeners.
    """
    return "airflow.api_fastapi.main" in sys.modules


def listeners() -> list[Any]:
    """Return what listens to Airflow in this process."""
    if not in_api_server():
        return []
    from airflow_skyvern import listener  # noqa: PLC0415  the other processes do not need it

    return [listener]


class SkyvernPlugin(AirflowPlugin):
    """The parts of the provider that live in Airflow's own processes."""

    name = "skyvern"
    listeners = listeners()
