"""
Which endings of a run are worth another try. Needs Airflow 3.3, which has retry policies.

::

    SkyvernRunWorkflowOperator(..., retries=3, retry_policy=skyvern_retry_policy())
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from airflow_skyvern.exceptions import BAD_ENDINGS, LIMITS_REACHED
from airflow_skyvern.task.arguments import endings_of, refuse_late_values

DEFAULT_RETRY_ON = ("failed", "timed_out")


def skyvern_retry_policy(
    retry_on: Collection[str] | str = DEFAULT_RETRY_ON,
    retry_delay: timedelta | None = None,
    *,
    retry_at_limit: bool = False,
) -> ExceptionRetryPolicy:
    """
    Retry only after endings that a new run may avoid.

    By default a run that ``failed`` or ``timed_out`` is retried, as often as the task's ``retries`` allow; a run
    that was ``terminated`` (its workflow decided so) or ``canceled`` (a person decided so) is not. Neither is one
    that reached its limit of steps or time (``max_steps``, ``max_elapsed_time_minutes``), regardless of ``retry_on``:
    the next run would have the same limit, and cost as much. Errors that are not the status of a run keep Airflow's
    rules: permanent errors fail at once, others are retried.

    :param retry_on: Endings to retry, one or several: of ``failed``, ``terminated``, ``timed_out``, ``canceled``.
    :param retry_delay: Pause before such a retry. Default: the task's ``retry_delay``.
    :param retry_at_limit: Whether runs that reached a limit are retried too, if ``retry_on`` names their status.
        Default: False.
    :raises SkyvernConfigError: ``retry_on`` names something else.
    """
    refuse_late_values(retry_on=retry_on, retry_delay=retry_delay, retry_at_limit=retry_at_limit)
    retried = endings_of("retry_on", retry_on)
    rules = [] if retry_at_limit else [_no_retry_at(limit) for limit in LIMITS_REACHED]
    rules += [
        RetryRule(
            exception=f"{error.__module__}.{error.__qualname__}",
            action=RetryAction.RETRY if ending in retried else RetryAction.FAIL,
            retry_delay=retry_delay if ending in retried else None,
            reason=f"the Skyvern run ended as {ending}",
        )
        for ending, error in BAD_ENDINGS.items()
    ]
    return ExceptionRetryPolicy(rules=rules)


def _no_retry_at(limit: str) -> RetryRule:
    error, _ = LIMITS_REACHED[limit]
    path = f"{error.__module__}.{error.__qualname__}"
    return RetryRule(exception=path, action=RetryAction.FAIL, reason=f"the Skyvern run reached {limit}")
