"""The parameters of a run, before and after they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_skyvern.exceptions import SkyvernRequestError

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.runs.wait import Log


def check_parameters(hook: SkyvernHook, request: RunRequest, log: Log) -> None:
    """
    Check the parameters against the workflow's definition, within some seconds.

    :raises SkyvernConfigError: they do not fit.
    :raises SkyvernNotFoundError: there is no such workflow.
    """
    from airflow_skyvern.client.retry import RetryPolicy
    from airflow_skyvern.client.sender import SkyvernClient
    from airflow_skyvern.runs.parameter_check import PATIENCE, check_before_start

    settings = hook.get_conn().settings
    with SkyvernClient(settings.within(PATIENCE), retry=RetryPolicy(attempts=1)) as client:
        check_before_start(client.send, request, settings, log)


@contextmanager
def refused_parameter_named(request: RunRequest) -> Iterator[None]:
    """Add the name of the parameter to a refusal of Skyvern that gives only its type and its value."""
    from airflow_skyvern.client.workflow_parameters import name_refused

    try:
        yield
    except SkyvernRequestError as error:
        raise name_refused(error, request.parameters or {}) from error
