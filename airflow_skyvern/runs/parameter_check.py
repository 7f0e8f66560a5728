"""
Checks the parameters of a run before its first start, and names them in Skyvern's refusals.

The check never prevents a start that Skyvern might accept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api
from airflow_skyvern.client.workflow_parameters import check_block, check_parameters, name_refused
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError, SkyvernNotFoundError, SkyvernRequestError

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Workflow
    from airflow_skyvern.runs.wait import Log

KEEP = 300.0
"""Seconds for which a workflow's definition is kept; before anything is refused, it is fetched again."""

MOST_KEPT = 64
"""The number of workflows whose definitions a process keeps."""

PATIENCE = 10.0
"""Seconds for the request, which is sent once: without an answer in that time, the check is left out."""


class Definitions:
    """
    The definitions of workflows that this process has fetched lately.

    A worker of Airflow runs each task in a process of its own; but ``dag.test()`` and tests run many in one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, Workflow]] = {}

    def get(self, key: Hashable) -> Workflow | None:
        """Return a definition that was fetched lately."""
        fetched_at, workflow = self._kept.get(key, (-KEEP, None))
        return workflow if self._clock() - fetched_at < KEEP else None

    def keep(self, key: Hashable, workflow: Workflow) -> Workflow:
        """Keep a definition; it replaces the oldest if there are too many."""
        self._kept.pop(key, None)
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (self._clock(), workflow)
        return workflow

    def clear(self) -> None:
        """Forget all definitions."""
        self._kept.clear()


DEFINITIONS = Definitions()


def check_before_start(
    send: Send,
    request: RunRequest,
    server: Hashable,
    log: Log,
    definitions: Definitions = DEFINITIONS,
    *,
    block: str | None = None,
) -> Workflow | None:
    """
    Check the parameters of a run against the definition of its workflow, and return that; None if it is not known.

    Without parameters nothing can be misspelled, and Skyvern itself names missing ones, before a run exists.

    :param block: The label of the block whose output the task returns.

    :param server: Identifies the server and the organization.
    :raises SkyvernConfigError: names every parameter that does not fit, or the block; nothing was sent.
    :raises SkyvernNotFoundError: the workflow does not exist.
    """
    if not request.parameters and block is None:
        return None
    key = (server, request.workflow_id)
    known = definitions.get(key)
    if known is not None and _fits(known, request.parameters, block):
        return known
    workflow = _fetched(send, request.workflow_id, log)
    if workflow is not None:
        _check(definitions.keep(key, workflow), request.parameters, block)
    return workflow


def _check(workflow: Workflow, parameters: Mapping[str, Any] | None, block: str | None) -> None:
    if parameters:
        check_parameters(workflow, parameters)
    if block is not None:
        check_block(workflow, block)


def _fits(workflow: Workflow, parameters: Mapping[str, Any] | None, block: str | None) -> bool:
    try:
        _check(workflow, parameters, block)
    except SkyvernConfigError:
        return False  # it may have been changed since
    return True


def _fetched(send: Send, workflow_id: str, log: Log) -> Workflow | None:
    """Fetch a definition; on any error except a missing workflow, the check is left out."""
    try:
        workflow: Workflow = send(replace(api.get_workflow(workflow_id), within=PATIENCE))
    except SkyvernError as error:
        if isinstance(error, SkyvernNotFoundError) and error.workflow_gone:
            raise
        log.warning("The parameters are not checked before the start. %s", error)
        return None
    if not _is_readable(workflow):
        log.warning("The parameters are not checked before the start: workflow %s has a new form", workflow_id)
        return None
    return workflow


def _is_readable(workflow: Workflow) -> bool:
    try:
        return "parameters" in workflow.workflow_definition and workflow.parameters is not None
    except (TypeError, ValueError):
        return False


@contextmanager
def refused_parameter_named(request: RunRequest, is_unread: Callable[[], bool]) -> Iterator[None]:
    """
    Add the name of the parameter to a refusal of Skyvern that gives only its type and its value.

    :param is_unread: Whether the definition could not be read before the start, asked when it was refused.
    """
    try:
        yield
    except SkyvernRequestError as error:
        raise name_refused(error, request.parameters or {}, unread=is_unread()) from error
