"""How a failed call ends: what the calling model can correct, what is permanent, and what a retry may cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_skyvern.agents.contract import ManagedAgentInvocationError, ManagedAgentRejected
from airflow_skyvern.compat.sdk import AirflowFailException, AirflowNotFoundException
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernError,
    SkyvernOutputError,
    SkyvernRequestError,
    SkyvernRunCanceled,
    SkyvernRunError,
    SkyvernRunFailed,
    SkyvernRunTerminated,
    SkyvernStepLimitReached,
    SkyvernWaitTimeout,
)

FOR_PEOPLE = " check_parameters=False turns this check off."
"""What a message says to the author of a DAG, and not to a model."""


@contextmanager
def errors_for_agents(*, takes_prompts: bool) -> Iterator[None]:
    """
    Raise what Airflow's AI provider expects of an agent.

    :param takes_prompts: Whether the calling model says in words what to do, so that it can say it otherwise.
    :raises ManagedAgentRejected: the calling model may ask for something else, or say it otherwise.
    :raises ManagedAgentInvocationError: neither the model nor a retry changes it.
    :raises SkyvernError: a retry of the task may help: the error as it is.
    """
    try:
        yield
    except (SkyvernError, AirflowFailException, AirflowNotFoundException) as error:
        found = _cause(error)
        raise _translated(found, takes_prompts=takes_prompts) from found


def _cause(error: Exception) -> Exception:
    """Return the error of a run that Airflow must not retry: here the calling agent decides."""
    cause = error.__cause__
    return cause if isinstance(error, AirflowFailException) and isinstance(cause, SkyvernRunError) else error


def _translated(error: Exception, *, takes_prompts: bool) -> Exception:
    message = str(error).replace(FOR_PEOPLE, "")
    mended, final = ManagedAgentRejected(message), ManagedAgentInvocationError(message)
    found: Exception = mended if _can_be_mended(error, takes_prompts=takes_prompts) else final
    return error if found is final and _may_pass(error) else found


def _can_be_mended(error: Exception, *, takes_prompts: bool) -> bool:
    """Return whether other arguments may help: the workflow itself has refused these, or they do not fit it."""
    if isinstance(error, SkyvernOutputError):
        return takes_prompts and not error.transient
    if isinstance(error, SkyvernConfigError | SkyvernRequestError):
        return "parameters." in str(error)
    return isinstance(error, SkyvernRunTerminated)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, SkyvernRunCanceled):
        return error.run is None  # the task was killed; else a person has canceled the run
    if isinstance(error, SkyvernRunFailed):
        return not isinstance(error, SkyvernStepLimitReached)
    return isinstance(error, SkyvernWaitTimeout) or (isinstance(error, SkyvernError) and error.transient)
