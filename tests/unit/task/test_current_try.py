from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_skyvern.compat.tries import Standing
from airflow_skyvern.exceptions import SkyvernOvertaken, SkyvernTaskEnded
from airflow_skyvern.task.task_try import MOST_PROOFS, PROOF_SECONDS, CurrentTry


class Airflow:
    """Answers whether a try is the current one; the clocks of its machine advance while it does."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = Standing.CURRENT
        self.monotonic = self.wall = 1000.0
        self.while_asked: Callable[[], object] = lambda: None

    def standing(self) -> Standing:
        self.asked += 1
        self.while_asked()
        return self.answer

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def suspended(self, seconds: float) -> None:
        """No time passes for the monotonic clock while a machine is suspended."""
        self.wall += seconds


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def this_try(airflow: Airflow) -> CurrentTry:
    return CurrentTry(airflow.standing, clocks=(lambda: airflow.monotonic, lambda: airflow.wall))


def test_airflow_is_asked_once_for_what_is_done_at_once(airflow: Airflow, this_try: CurrentTry) -> None:
    for _ in range(3):
        this_try.ensure()
        airflow.passes(1)
    assert airflow.asked == 1


@pytest.mark.parametrize("stalled", [Airflow.passes, Airflow.suspended])
def test_it_is_asked_again_when_any_clock_has_advanced(
    airflow: Airflow, this_try: CurrentTry, stalled: Callable[[Airflow, float], None]
) -> None:
    this_try.ensure()
    stalled(airflow, PROOF_SECONDS)
    airflow.answer = Standing.OVERTAKEN
    with pytest.raises(SkyvernOvertaken, match="Another try of this task has taken over"):
        this_try.ensure()


def test_a_task_that_a_user_has_ended_is_told_from_one_that_another_try_has(
    airflow: Airflow, this_try: CurrentTry
) -> None:
    airflow.answer = Standing.ENDED
    with pytest.raises(SkyvernTaskEnded, match="marked, cleared or deleted"):
        this_try.ensure()


def test_a_try_that_stalls_while_it_asks_asks_again(airflow: Airflow, this_try: CurrentTry) -> None:
    def stall() -> None:
        if airflow.asked == 1:
            airflow.passes(600)

    airflow.while_asked = stall
    this_try.ensure()
    assert airflow.asked == 2


def test_an_airflow_that_answers_too_slowly_proves_nothing(airflow: Airflow, this_try: CurrentTry) -> None:
    airflow.while_asked = lambda: airflow.passes(PROOF_SECONDS)
    with pytest.raises(SkyvernOvertaken, match="too slowly"):
        this_try.ensure()
    assert airflow.asked == MOST_PROOFS


def test_no_answer_is_no_proof(airflow: Airflow, this_try: CurrentTry) -> None:
    def away() -> None:
        raise ConnectionError("the API server is away")

    airflow.while_asked = away
    with pytest.raises(SkyvernOvertaken, match=r"did not say .* ConnectionError: the API server"):
        this_try.ensure()


def test_a_retry_follows_for_the_try_that_was_not_proved() -> None:
    assert SkyvernOvertaken.transient
