"""
The triggers that are compared, each with its operator's arguments, and their Airflow connections.

A contender's module is imported only in the process that runs it, by name: a peer that is not installed, or cannot
be imported, fails the measurement.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.jobs import FIRST_ID

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

OURS = "skyvern"
CONN_ID = "bench"
HOURS = 6 * 3600.0
LOG_BLOCKS = os.environ.get("BLOCKS") == "1"
"""Whether our waits log the blocks of their runs."""

KEY = "made-up-key-of-the-benchmark"


@dataclass(frozen=True)
class Contender:
    """
    A trigger that waits for a job of some service.

    :param distribution: What is installed from PyPI.
    :param trigger: The class, with its module.
    :param kwargs: From a job's id and an interval to the trigger's arguments.
    :param connection: From ``host:port`` to an Airflow connection.
    :param succeeded: Whether an event's payload says that the job has ended well.
    :param prepare: Called with ``host:port`` in the process that runs the triggers.
    """

    name: str
    label: str
    distribution: str
    trigger: str
    kwargs: Callable[[int, float], Mapping[str, Any]]
    connection: Callable[[str], Mapping[str, Any]]
    succeeded: Callable[[Any], bool]
    prepare: Callable[[str], None] = field(default=lambda _: None)

    @property
    def version(self) -> str:
        """The installed version; PackageNotFoundError if there is none."""
        return version(self.distribution)

    def load(self) -> type[BaseTrigger]:
        """Import the trigger's class."""
        module, _, name = self.trigger.rpartition(".")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]  # a name that mypy cannot follow

    def make(self, number: int, interval: float) -> BaseTrigger:
        """Make the trigger for the job with a number."""
        return self.load()(**self.kwargs(FIRST_ID + number, interval))

    def environment(self, address: str) -> dict[str, str]:
        """Return the Airflow connection as an environment variable."""
        return {f"AIRFLOW_CONN_{CONN_ID.upper()}": json.dumps(self.connection(address))}


def _fivetran_kwargs(job: int, interval: float) -> Mapping[str, Any]:
    pendulum = import_module("pendulum")
    return {
        "task_id": "wait",
        "connector_id": f"connector_{job}",
        "fivetran_conn_id": CONN_ID,
        "poke_interval": interval,
        "previous_completed_at": pendulum.datetime(2026, 11, 22),
    }


def _prepare_fivetran(address: str) -> None:
    """Point the hook to loopback: its host is a constant, which no connection can change."""
    import_module("fivetran_provider_async.hooks").FivetranHook.api_host = address


def _status_is_success(payload: Any) -> bool:
    return bool(payload["status"] == "success")


CONTENDERS = (
    Contender(
        name=OURS,
        label="Skyvern (this package)",
        distribution="airflow-provider-skyvern",
        trigger="airflow_skyvern.triggers.SkyvernRunTrigger",
        kwargs=lambda job, interval: {
            "run_id": f"wr_{job}",
            "skyvern_conn_id": CONN_ID,
            "poll_interval": interval,
            "deadline": time.time() + HOURS,
            **({"log_blocks": True} if LOG_BLOCKS else {}),
        },
        connection=lambda address: {"conn_type": "skyvern", "host": f"https://{address}", "password": KEY},
        succeeded=lambda payload: (payload["reason"], payload["status"]) == ("ended", "completed"),
    ),
    Contender(
        name="databricks",
        label="Databricks",
        distribution="apache-airflow-providers-databricks",
        trigger="airflow.providers.databricks.triggers.databricks.DatabricksExecutionTrigger",
        kwargs=lambda job, interval: {
            "run_id": job,
            "databricks_conn_id": CONN_ID,
            "polling_period_seconds": interval,
            "run_page_url": f"https://127.0.0.1/#job/1/run/{job}",
        },
        connection=lambda address: {
            "conn_type": "databricks",
            "host": f"https://{address.partition(':')[0]}",
            "port": int(address.partition(":")[2]),
            "password": KEY,
        },
        succeeded=lambda payload: json.loads(payload["run_state"])["result_state"] == "SUCCESS",
    ),
    Contender(
        name="dbt-cloud",
        label="dbt Cloud",
        distribution="apache-airflow-providers-dbt-cloud",
        trigger="airflow.providers.dbt.cloud.triggers.dbt.DbtCloudRunJobTrigger",
        kwargs=lambda job, interval: {
            "conn_id": CONN_ID,
            "run_id": job,
            "end_time": time.time() + HOURS,
            "poll_interval": interval,
            "account_id": 1,
        },
        connection=lambda address: {"conn_type": "dbt_cloud", "host": address, "login": "1", "password": KEY},
        succeeded=_status_is_success,
    ),
    Contender(
        name="airbyte",
        label="Airbyte",
        distribution="apache-airflow-providers-airbyte",
        trigger="airflow.providers.airbyte.triggers.airbyte.AirbyteSyncTrigger",
        kwargs=lambda job, interval: {
            "conn_id": CONN_ID,
            "job_id": job,
            "end_time": time.time() + HOURS,
            "poll_interval": interval,
        },
        connection=lambda address: {
            "conn_type": "airbyte",
            "host": f"https://{address}/v1/",
            "login": "made-up-id",
            "password": KEY,
        },
        succeeded=_status_is_success,
    ),
    Contender(
        name="fivetran",
        label="Fivetran",
        distribution="airflow-provider-fivetran-async",
        trigger="fivetran_provider_async.triggers.FivetranTrigger",
        kwargs=_fivetran_kwargs,
        connection=lambda _: {"conn_type": "Fivetran", "login": "made-up-id", "password": KEY},
        succeeded=_status_is_success,
        prepare=_prepare_fivetran,
    ),
)


def contender(name: str) -> Contender:
    """Return the contender with a name."""
    return next(found for found in CONTENDERS if found.name == name)


def versions(found: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of Airflow and of some contenders."""
    return {
        "apache-airflow": version("apache-airflow"),
        **{contender(name).distribution: contender(name).version for name in found},
    }


def chosen_by(names: str | None, among: Sequence[Contender] = CONTENDERS) -> list[Contender]:
    """Return the contenders that PEERS= names, ours always among them; "none" is ours alone."""
    if names == "none":
        return [contender(OURS)]
    known = [one.name for one in among]
    wanted = [OURS, *filter(None, names.split(","))] if names else known
    if unknown := set(wanted) - set(known):
        raise SystemExit(f"PEERS={names}: no {', '.join(sorted(unknown))}; there are {', '.join(known[1:])}")
    return [one for one in among if one.name in wanted]
