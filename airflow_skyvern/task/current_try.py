"""Whether this try of a task is still the one that Airflow counts on: a process may have been stopped for minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from airflow_skyvern.compat.tries import Standing
from airflow_skyvern.exceptions import SkyvernOvertaken, SkyvernTaskEnded

PROOF_SECONDS = 5.0
"""
For how long Airflow's word is taken. A retry that has taken over since then has yet to be scheduled and started, and
searches for runs before it starts one.
"""

MOST_PROOFS = 5
"""How often Airflow is asked while each of its answers takes longer than that."""


class CurrentTry:
    """
    This try, as long as no other one has taken over.

    A process that is stopped notices nothing, and on a suspended machine the monotonic clock stands still. So what
    counts is the longest time that any clock has seen since Airflow was asked.

    :param standing: Asks Airflow.
    :param clocks: What the age of an answer is measured by.
    """

    def __init__(
        self, standing: Callable[[], Standing], *, clocks: Sequence[Callable[[], float]] = (time.monotonic, time.time)
    ) -> None:
        self._standing = standing
        self._clocks = clocks
        self._asked_at: list[float] | None = None

    def ensure(self) -> None:
        """
        Ask Airflow, unless it has answered just now.

        :raises SkyvernOvertaken: another try has taken over, or Airflow does not answer.
        :raises SkyvernTaskEnded: no try is to do anything more.
        """
        for _ in range(MOST_PROOFS):
            if self._is_proved():
                return
            self._ask()
        if not self._is_proved():
            raise SkyvernOvertaken(
                "Airflow answers too slowly to know that this try is still the current one; the next try continues."
            )

    def _is_proved(self) -> bool:
        if self._asked_at is None:
            return False
        return all(now - asked < PROOF_SECONDS for now, asked in zip(self._now(), self._asked_at, strict=True))

    def _ask(self) -> None:
        asked_at = self._now()
        try:
            standing = self._standing()
        except Exception as error:
            raise SkyvernOvertaken(
                "Airflow did not say whether this try is still the current one, so it does nothing more; the next "
                f"try continues. {type(error).__name__}: {error}"
            ) from error
        if standing is Standing.ENDED:
            raise SkyvernTaskEnded("This task was marked, cleared or deleted in Airflow, so it does nothing more.")
        if standing is Standing.OVERTAKEN:
            raise SkyvernOvertaken("Another try of this task has taken over, so this one does nothing more.")
        self._asked_at = asked_at

    def _now(self) -> list[float]:
        return [clock() for clock in self._clocks]
