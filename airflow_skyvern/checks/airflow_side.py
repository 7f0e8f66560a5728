"""What is so in this Airflow: facts into findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_skyvern.checks.finding import Finding
from airflow_skyvern.compat.internals import is_loopback
from airflow_skyvern.durations import in_words
from airflow_skyvern.provider_info import CONNECTION_TYPE
from airflow_skyvern.results.store_kinds import KINDS, StoreKind

if TYPE_CHECKING:
    from airflow_skyvern.compat.health import Heartbeat

PACKAGE = "airflow-provider-skyvern"

EVERYWHERE = "Install it where scheduler, workers, triggerer, DAG processor and API server run, and restart them"

STORE_OF = {
    "aws": "S3",
    "google_cloud_platform": "Google Cloud Storage",
    "wasb": "Azure Blob Storage, Data Lake Gen2",
    "adls": "Azure Blob Storage, Data Lake Gen2",
    "azure_data_lake": "Azure Blob Storage, Data Lake Gen2",
    "sftp": "SFTP",
}
"""Which kind of store a type of connection is for."""

KIND_OF = {conn_type: kind for conn_type, name in STORE_OF.items() for kind in KINDS if kind.name == name}

CAME_WITH = {
    "3.0": ("events and webhooks of finished runs",),
    "3.1": ("the run page", "approvals in Airflow"),
    "3.3": ("waiting from the start in the triggerer", "retry policies", "runs remembered across tries"),
}
"""Features of an Airflow version that this package uses."""


def provider(version: str | None, conn_types: Sequence[str]) -> Finding:
    """Say whether Airflow has discovered the provider, and its type of connection."""
    if version is None:
        return Finding("provider", "problem", f"Airflow has not discovered {PACKAGE}.", f"{EVERYWHERE}.")
    if CONNECTION_TYPE["connection-type"] not in conn_types:
        return Finding(
            "provider",
            "problem",
            f"{PACKAGE} {version} is there, but its type of connection is not.",
            "Run airflow providers list for the error; reinstall the package.",
        )
    return Finding("provider", "ok", f"{PACKAGE} {version}.")


def plugin(*, loaded: bool, errors: Mapping[str, str]) -> Finding:
    """Say whether the plugin is loaded: the run page, cancels of marked tasks, webhooks and macros are in it."""
    if loaded:
        return Finding("plugin", "ok", "The plugin skyvern is loaded.")
    why = next((f" ({error})" for source, error in errors.items() if "skyvern" in f"{source} {error}".lower()), "")
    return Finding(
        "plugin",
        "problem",
        f"The plugin skyvern is not loaded{why}: no run page, no macros, and no cancel of tasks that are marked.",
        f"{EVERYWHERE}; airflow plugins shows what is loaded.",
    )


def triggerer(seen: Sequence[Heartbeat], now: datetime) -> Finding:
    """
    Say whether a triggerer is alive.

    :param seen: Those that there are, the newest first.
    """
    alive = [one for one in seen if one.alive]
    if alive:
        names = ", ".join(sorted({one.hostname for one in alive}))
        return Finding("triggerer", "ok", f"{len(alive)} alive: {names}.")
    last = f"; the last heartbeat was {in_words((now - seen[0].latest).total_seconds())} ago" if seen else ""
    return Finding(
        "triggerer",
        "problem",
        f"No triggerer is alive{last}: deferred tasks stay deferred.",
        "Start one: airflow triggerer. Or use no deferrable=True.",
    )


def no_database(check: str, error: Exception) -> Finding:
    """Say that something is in Airflow's database, which is out of reach here."""
    return Finding(check, "unknown", str(error), "Run this where the scheduler runs.")


def base_url(configured: str, setting: str, installation: str) -> Finding:
    """
    Say whether this Airflow has an address of its own.

    :param configured: The address; empty if none is set.
    :param setting: Where it is set.
    :param installation: The name that distinguishes its runs from other installations' runs, if it has one.
    """
    if configured and not is_loopback(configured):
        return Finding("base_url", "ok", f"{setting} is {configured}.")
    state = f"{setting} is {configured}, which is each reader's own machine" if configured else f"No {setting} is set"
    if installation:
        return Finding(
            "base_url",
            "warning",
            f"{state}: links in alerts reach no other machine.",
            f"Set {setting} to the address that people use.",
        )
    return Finding(
        "base_url",
        "problem",
        f"{state}: links in alerts reach no other machine, cleared tasks do not cancel every run of theirs, and no "
        "orphans can be found.",
        f"Set {setting} to the address that people use, on every component; or at least [skyvern] installation.",
    )


def store(conn_id: str, conn_type: str, *, has_provider: bool) -> Finding:
    """
    Say whether this machine has what a connection to a store needs.

    :param has_provider: Whether Airflow's provider for it is installed.
    """
    kind = KIND_OF[conn_type]
    if has_provider and kind.can_create_only():
        return Finding("stores", "ok", f"{conn_id} ({conn_type}): files can be stored in {kind.name}.")
    missing = kind.client if has_provider else provider_of(kind)
    since = f" {kind.client_since} or newer" if has_provider and kind.client_since != "0" else ""
    return Finding(
        "stores",
        "warning" if has_provider else "problem",
        f"{conn_id} ({conn_type}): {missing}{since} is not installed here, so no files can be stored in {kind.name}.",
        f"Install {kind.install} where the workers run.",
    )


def no_stores() -> Finding:
    """Say that no connection leads to a store."""
    return Finding("stores", "ok", "No connection to an object store; files can be stored in folders.")


def provider_of(kind: StoreKind) -> str:
    """Return the distribution of Airflow's provider for a kind of store."""
    return kind.install.split()[0].partition("[")[0]


def abilities(version: str) -> Finding:
    """Say what this Airflow can do with Skyvern, and what it cannot."""
    here = _numbers(version)
    can = [what for since, several in CAME_WITH.items() if here >= _numbers(since) for what in several]
    cannot = [what for since, several in CAME_WITH.items() if here < _numbers(since) for what in several]
    sentences = [
        f"Airflow {version}.",
        f"Available: {', '.join(can)}." if can else "",
        f"Not available: {', '.join(cannot)}." if cannot else "",
    ]
    return Finding("airflow", "ok", " ".join(filter(None, sentences)))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
