"""Object stores and lineage: where each Airflow has them."""

from __future__ import annotations

import string
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_skyvern.compat.internals import module_exists
from airflow_skyvern.compat.since_3_0 import is_airflow_3

if TYPE_CHECKING:
    from collections.abc import Callable


def object_storage_path(address: str, conn_id: str | None) -> Any:
    """
    Return Airflow's path for an object store: 3.x moved it.

    :raises ImportError: a package of the provider for this kind of store is missing.
    :raises ValueError: the provider is missing.
    """
    home = "airflow.sdk" if is_airflow_3() else "airflow.io.path"
    return import_module(home).ObjectStoragePath(address, conn_id=conn_id)


def add_input_to_lineage(hook: Any, address: str) -> None:
    """Report to Airflow's lineage that a hook has read something; see :func:`add_output_to_lineage`."""
    _add_to_lineage("add_input", hook, address)


def add_output_to_lineage(hook: Any, address: str) -> None:
    """
    Report to Airflow's lineage that a hook has written something; it is kept only if a lineage backend listens.

    What an address must look like is for the provider of its scheme to say, and a lineage that is refused must not
    fail a task.
    """
    _add_to_lineage("add_output", hook, address)


def _add_to_lineage(method: str, hook: Any, address: str) -> None:
    """Add to the collector, which moved in 3.2; 2.11 calls assets datasets."""
    home = "airflow.sdk.lineage" if module_exists("airflow.sdk.lineage") else "airflow.lineage.hook"
    collector = import_module(home).get_hook_lineage_collector()
    add: Callable[..., object] = getattr(collector, f"{method}_asset", None) or getattr(
        collector, f"{method}_dataset"
    )
    with suppress(ValueError):
        add(context=hook, uri=address)


def is_asset_alias(outlet: Any) -> bool:
    """Return whether a task's outlet is an asset alias; 2.11 has dataset aliases."""
    return type(outlet).__name__ in ("AssetAlias", "DatasetAlias")


def asset(address: str) -> Any:
    """
    Return the asset at an address; 2.11 calls it a dataset.

    What is not ASCII is percent-encoded where this Airflow takes no other addresses. None where it refuses that, too:
    what a task has paid for and stored must not fail it.
    """
    home, name = ("airflow.sdk", "Asset") if is_airflow_3() else ("airflow.datasets", "Dataset")
    make = getattr(import_module(home), name)
    for uri in (address, quote(address, safe=string.printable)):
        with suppress(ValueError):
            return make(uri)
    return None


def openlineage_dataset(namespace: str, name: str) -> Any:
    """Return OpenLineage's name for something; only OpenLineage's provider asks for it, and brings the class."""
    return import_module("airflow.providers.common.compat.openlineage.facet").Dataset(namespace=namespace, name=name)
