"""How a run ends, as a test scripts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.records import Step

GONE = "gone"
"""The step at which Skyvern does not know the run any more."""


@dataclass(frozen=True)
class Ending:
    """
    What one run does, made by the functions of this module.

    :param plan: The statuses that it goes through, one per poll; the last one stays.
    """

    plan: tuple[Step, ...]
    output: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    reason: str | None = None
    errors: Sequence[Mapping[str, Any]] = ()

    def after(self, *steps: Step) -> Ending:
        """Return the same with these steps before it."""
        return replace(self, plan=(*steps, *self.plan))


def never_ends(plan: Sequence[Step]) -> bool:
    """Return whether a run that goes through these statuses never ends by itself."""
    last = plan[-1]
    return (last if isinstance(last, str) else last["status"]) in ("running", "paused")


def completed(output: Any = None, files: Mapping[str, bytes] | None = None) -> Ending:
    """
    Let a run complete.

    :param output: Its output, as Skyvern returns it: a key per block, ``{"extract_output": …}``; or a function that
        makes it from the run's parameters. Default: no block has an output.
    :param files: The files that it has downloaded, by name. Default: none.
    """
    return Ending(("running", "completed"), {"extracted_information": []} if output is None else output, files or {})


def extracted(information: Any) -> dict[str, Any]:
    """
    Return the output of a block that extracts.

    As Skyvern has it, for the block ``read``: ``output={"read_output": extracted([…])}``.

    :param information: The extracted data; ``output_from="read"`` returns the same.
    """
    return {
        "task_id": "tsk_600000000000000000",
        "status": "completed",
        "extracted_information": information,
        "failure_reason": None,
        "errors": [],
        "downloaded_files": None,
    }


def failed(reason: str = "the test lets it fail", *, error_code: str | None = None, output: Any = None) -> Ending:
    """
    Let a run fail.

    :param reason: Its ``failure_reason``.
    :param error_code: The code that the workflow's author has given to this kind of failure. Default: none.
    :param output: The output of the blocks before the failing one. Default: nothing.
    """
    return _badly("failed", reason, error_code, output)


def terminated(
    reason: str = "the test terminates it", *, error_code: str | None = None, output: Any = None
) -> Ending:
    """Let a run be terminated by its workflow; see :func:`failed`."""
    return _badly("terminated", reason, error_code, output)


def timed_out(reason: str = "the test lets it time out") -> Ending:
    """Make a run exceed its time limit in Skyvern."""
    return _badly("timed_out", reason, None, None)


def canceled() -> Ending:
    """Let somebody else cancel a run in Skyvern."""
    return Ending(("running", "canceled"))


def _badly(status: str, reason: str, error_code: str | None, output: Any) -> Ending:
    error = {"error_code": error_code, "reasoning": reason, "confidence_float": 1.0}
    return Ending(("running", status), output, reason=reason, errors=[error] if error_code else ())


def paused(then: Ending | None = None) -> Ending:
    """
    Let a run pause at a block that asks a person.

    :param then: What it does when the person has answered in Skyvern. Default: nobody answers.
    """
    if then is None:
        return Ending(("running", "paused"))
    return then.after("running", {"status": "paused", "answered": True})


def retried(then: Ending, *, reason: str = "the first attempt failed") -> Ending:
    """Let the first attempt of a run fail, and Skyvern itself try again; see the workflow's ``retry_policy``."""
    pending = {"status": "failed", "retry_pending": True, "next_attempt_at": "2026-11-22T20:19:43.119691"}
    again = tuple({"status": step, "attempt": 2} if isinstance(step, str) else step for step in then.plan)
    return replace(then, plan=("running", pending, *again), reason=then.reason or reason)


def slow(then: Ending | None = None, *, polls: int = 20) -> Ending:
    """
    Make a run take longer.

    :param then: What it does after that. Default: it never ends; the task ends by its ``timeout``, which the kit
        shortens to a moment.
    :param polls: How often it is still running when it is polled.
    """
    return Ending(("running",)) if then is None else then.after(*["running"] * polls)


def gone() -> Ending:
    """Make Skyvern forget a run that it started: it was deleted, or the connection leads to another server now."""
    return Ending(("running", GONE))
