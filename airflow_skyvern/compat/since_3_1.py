"""Features that came or moved with Airflow 3.1 (some again with 3.2). When 3.0 goes, these functions get simple."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_skyvern.compat import internals, since_3_0

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID


def timetable_zone(timetable: Any) -> Any:
    """
    Return the time zone of a timetable, or None if it has none of its own.

    3.1 and newer have timetables of their own in DAG files, with ``timezone``; the others have ``_timezone``. A
    timetable that is made of several, or of one and assets, has the zone of the first.
    """
    for name in ("timezone", "_timezone"):
        if zone := getattr(timetable, name, None):
            return zone
    several = getattr(timetable, "timetables", None) or getattr(timetable, "_timetables", None) or ()
    parts = [*several, getattr(timetable, "timetable", None)]
    return next((zone for part in parts if part is not None and (zone := timetable_zone(part))), None)


def has_required_actions() -> bool:
    """Return whether a task can ask a person in Airflow; from 3.1 on."""
    return since_3_0.is_airflow_3() and find_spec("airflow.sdk.execution_time.hitl") is not None


def ask_person(
    ti_id: UUID, *, options: list[str], subject: str, body: str, users: list[dict[str, str]] | None = None
) -> None:
    """
    Show a request in Required Actions.

    There is one per try: a second one opens the first again if that was answered, with the text of the first.

    :param users: ``id`` and ``name`` of the only users who may answer. Default: everybody who may edit the request.
    """
    from airflow.sdk.execution_time.hitl import HITLUser, upsert_hitl_detail

    upsert_hitl_detail(
        ti_id=ti_id,
        options=options,
        subject=subject,
        body=body,
        defaults=None,
        multiple=False,
        params={},
        assigned_users=[HITLUser(id=user["id"], name=user["name"]) for user in users] if users else None,
    )


def answer_of_person(ti_id: UUID) -> Any:
    """
    Return a person's response to a request, or None: ``chosen_options``, ``responded_by_user``, ``responded_at``.

    One by nobody is how :func:`close_request` closes a request; another triggerer may have done so.

    Triggers only: Airflow answers no such question of a worker.

    :raises Exception: the request does not exist, as after a clear, or Airflow does not answer.
    """
    from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail

    detail = get_hitl_detail_content_detail(ti_id=ti_id)
    return detail if detail.response_received and detail.responded_by_user else None


def close_request(ti_id: UUID, answer: str) -> None:
    """
    Answer a request in nobody's name, so that no person need answer it any more; in triggers only, as above.

    :raises Exception: there is none, it is answered already, or Airflow does not answer.
    """
    from airflow.sdk.execution_time.hitl import update_hitl_detail_response

    update_hitl_detail_response(ti_id=ti_id, chosen_options=[answer], params_input={})


def hitl_entity() -> Any:
    """Return the name of a request to a person in Airflow's authorization; in the API server."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

    return DagAccessEntity.HITL_DETAIL


async def tasks_of_dag_run(dag_id: str, run_id: str) -> list[str]:
    """
    Return the task instances of a DAG run, asked from the triggerer; mapped ones as ``task_id_3``.

    :raises Exception: Airflow does not answer.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = await internals.in_thread(RuntimeTaskInstance.get_task_states, dag_id=dag_id, run_ids=[run_id])
    return list(states.get(run_id, {}))


def task_page(ti: Any) -> str:
    """Return the address of a task instance's page in Airflow, at the tab of its run if it has one."""
    address = since_3_0.airflow_ui_address()
    if not since_3_0.is_airflow_3():
        return str(ti.log_url)
    mapped = f"/mapped/{ti.map_index}" if internals.map_index_for_lookups(ti) is not None else ""
    page = "{}/dags/{}/runs/{}/tasks/{}".format(address.rstrip("/"), *_quoted_ids(ti)) + mapped
    return f"{page}/plugin/skyvern" if shows_external_views() else page


def picture_address(ti: Any, artifact_id: str) -> str:
    """Return the address of a screenshot on the page of a task instance's run; empty without a page."""
    if not shows_external_views():
        return ""
    address = since_3_0.airflow_ui_address()
    page = "{}/skyvern/ti/{}/{}/{}".format(address.rstrip("/"), *_quoted_ids(ti))
    map_index = -1 if internals.map_index_for_lookups(ti) is None else ti.map_index
    return f"{page}/{map_index}/tries/{ti.try_number}/pictures/{quote(artifact_id, safe='')}"


def _quoted_ids(ti: Any) -> list[str]:
    return [quote(part, safe="") for part in (ti.dag_id, ti.run_id, ti.task_id)]


def redactor() -> Callable[[str], Any]:
    """
    Return the function that masks all secrets registered with Airflow in a text: passwords of connections, variables.

    The masker's module moved in 3.0 and in 3.1, and each process of Airflow uses one of them.
    """
    homes = ("sdk._shared.secrets_masker", "sdk.execution_time.secrets_masker", "utils.log.secrets_masker")
    home = next(home for home in homes if internals.module_exists(f"airflow.{home}"))
    redact: Callable[[str], Any] = import_module(f"airflow.{home}")._secrets_masker().redact  # noqa: SLF001
    return redact


def mask_secret(secret: str) -> None:
    """
    Let Airflow mask a value from now on: in logs, among rendered templates, and in what :func:`redactor` gets.

    The function moved in 3.0 and in 3.1.
    """
    homes = ("sdk.log", "sdk.execution_time.secrets_masker", "utils.log.secrets_masker")
    home = next(
        home
        for home in homes
        if internals.module_exists(f"airflow.{home}") and hasattr(import_module(f"airflow.{home}"), "mask_secret")
    )
    import_module(f"airflow.{home}").mask_secret(secret)


@cache
def shows_external_views() -> bool:
    """Return whether this Airflow shows pages of plugins within its own; from 3.1 on."""
    from airflow import __version__

    return not __version__.startswith(("2.", "3.0."))


def dag_bag(path: Path) -> Any:
    """Parse a DAG file, or a folder of them: the class moved in 3.1, and lost its examples in 3.2."""
    package = "dag_processing" if find_spec("airflow.dag_processing.dagbag") else "models"
    kind = import_module(f"airflow.{package}.dagbag").DagBag
    more = {"include_examples": False} if "include_examples" in signature(kind).parameters else {}
    return kind(dag_folder=str(path), **more)


def scheduled_on(asset: Any) -> list[Any]:
    """Return which DAGs the events of an asset start: ``scheduled_dags``, on 3.0 ``consuming_dags``."""
    references: list[Any] = asset.scheduled_dags if hasattr(asset, "scheduled_dags") else asset.consuming_dags
    return references
