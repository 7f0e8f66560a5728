"""What a trigger hands to the worker when a wait is over: the only thing that crosses Airflow's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

from airflow_skyvern.exceptions import SkyvernError

Reason = Literal["ended", "deadline", "paused", "resumed", "answered", "error"]


class RunEvent(TypedDict):
    """
    Why a wait is over; the resumed task asks Skyvern for everything else.

    ``ended``: the run is over. ``deadline``: it is not, and the time is up. ``paused``: it waits for a person,
    at the address in ``message``. ``resumed``: it does not wait for one any more. ``answered``: a person has answered
    in Airflow. ``error``: looking at it failed in a way that looking again cannot cure, as
    ``message`` says.
    """

    run_id: str
    reason: Reason
    status: str | None
    message: str | None


class AnswerEvent(RunEvent):
    """A person's answer in Airflow, by the names that Airflow 3.3 uses where it resumes the task itself."""

    chosen_options: list[str]
    responded_by_user: dict[str, str] | None
    responded_at: str | None


def event_of(value: Any) -> RunEvent:
    """
    Validate the event of a trigger.

    :raises SkyvernError: the event is missing or malformed, which must never pass for a success.
    """
    if (
        isinstance(value, Mapping)
        and isinstance(value.get("run_id"), str)
        and value.get("reason") in get_args(Reason)
    ):
        return RunEvent(
            run_id=value["run_id"],
            reason=value["reason"],
            status=value.get("status"),
            message=value.get("message"),
        )
    raise SkyvernError(f"The task was resumed without a valid event of SkyvernRunTrigger: {value!r}")
