from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_skyvern.client.retry import REFUSAL_PATIENCE
from airflow_skyvern.exceptions import (
    SkyvernAnswerTooLarge,
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernResponseError,
    SkyvernServerError,
)
from airflow_skyvern.models import Run
from airflow_skyvern.runs.wait import LONGEST_BACKOFF, Wait, wait_for_end
from tests.support.log_lines import LogLines

DEADLINE = 10_000.0


class Clock:
    """Time that advances only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> LogLines:
    return LogLines()


@pytest.fixture
def wait(clock: Clock, lines: LogLines) -> Wait[Run]:
    return Wait("wr_1", poll_interval=10, deadline=DEADLINE, log=lines, clock=clock)


def run(status: str, **fields: Any) -> Run:
    return Run(run_id="wr_1", status=status, **fields)


def looks(*results: Run | SkyvernError) -> Callable[[], Run]:
    left = list(results)

    def look() -> Run:
        result = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(result, SkyvernError):
            raise result
        return result

    return look


def test_a_wait_returns_the_run_as_it_ended(wait: Wait[Run], clock: Clock) -> None:
    ended = wait_for_end(wait, looks(run("queued"), run("running"), run("completed", output=1)), clock.sleep)
    assert ended is not None
    assert ended.output == 1
    assert len(clock.naps) == 2


def test_a_run_that_is_over_already_is_not_waited_for(wait: Wait[Run], clock: Clock) -> None:
    wait_for_end(wait, looks(run("failed")), clock.sleep)
    assert clock.naps == []


def test_a_wait_goes_on_while_a_retry_is_pending(wait: Wait[Run], clock: Clock, lines: LogLines) -> None:
    pending = run("failed", attempt=1, retry_pending=True, next_attempt_at="2026-11-22T20:19:43")
    ended = wait_for_end(wait, looks(pending, run("running", attempt=2), run("completed", attempt=2)), clock.sleep)
    assert ended is not None
    assert ended.attempt == 2
    assert lines.lines == [
        "Skyvern run wr_1: attempt 1 failed; Skyvern retries it at 20:19:43 UTC",
        "Skyvern run wr_1: running (attempt 2)",
        "Skyvern run wr_1: completed",
    ]


def test_a_wait_ends_at_the_deadline_after_one_last_look(wait: Wait[Run], clock: Clock) -> None:
    assert wait_for_end(wait, looks(run("running")), clock.sleep) is None
    assert clock.now == pytest.approx(DEADLINE)
    assert wait.run is not None
    assert wait.run.status == "running"


class TestTheLimitOfTime:
    def limited(self, clock: Clock, lines: LogLines) -> Wait[Run]:
        return Wait("wr_1", poll_interval=10, deadline=DEADLINE, log=lines, clock=clock, minutes_allowed=10)

    def warned(self, lines: LogLines) -> int:
        return sum("has used 80 % of max_elapsed_time_minutes=10" in line for line in lines.lines)

    def would_log(self, wait: Wait[Run]) -> bool:
        return not wait.is_quiet(0.0)

    def test_it_is_warned_of_once_when_most_of_it_is_used(self, clock: Clock, lines: LogLines) -> None:
        wait = self.limited(clock, lines)
        wait.update(run("running", started_at="1970-01-01T00:00:00"))
        clock.now = 479
        wait.unchanged()
        assert self.warned(lines) == 0
        clock.now = 480
        assert self.would_log(wait)  # or a row of the list that is as the last one would be passed over
        wait.unchanged()
        assert self.warned(lines) == 1
        assert not self.would_log(wait)
        clock.now = 590
        wait.update(run("paused", started_at="1970-01-01T00:00:00"))
        wait.unchanged()
        assert self.warned(lines) == 1

    def test_it_does_not_run_while_the_run_is_queued(self, clock: Clock, lines: LogLines) -> None:
        wait = self.limited(clock, lines)
        clock.now = 3000
        wait.update(run("queued", created_at="1970-01-01T00:00:00"))
        assert self.warned(lines) == 0
        wait.update(run("running", created_at="1970-01-01T00:00:00", started_at="1970-01-01T00:50:00"))
        assert self.warned(lines) == 0
        clock.now = 3480
        wait.unchanged()
        assert self.warned(lines) == 1

    def test_a_run_that_has_ended_is_not_warned_of(self, clock: Clock, lines: LogLines) -> None:
        wait = self.limited(clock, lines)
        clock.now = 3000
        wait.update(run("completed", started_at="1970-01-01T00:00:00"))
        assert self.warned(lines) == 0


def test_a_deadline_that_is_past_still_gives_one_look(clock: Clock, lines: LogLines) -> None:
    wait: Wait[Run] = Wait("wr_1", poll_interval=10, deadline=-1, log=lines, clock=clock)
    assert wait_for_end(wait, looks(run("completed")), clock.sleep) is not None
    wait = Wait("wr_1", poll_interval=10, deadline=-1, log=lines, clock=clock)
    assert wait_for_end(wait, looks(run("running")), clock.sleep) is None
    assert clock.naps == []


def test_pauses_are_the_interval_with_a_little_jitter(wait: Wait[Run]) -> None:
    wait.update(run("running"))
    pauses = [wait.next_delay() for _ in range(100)]
    assert all(10 <= pause <= 10.2 for pause in pauses)
    assert len(set(pauses)) > 1


TRANSIENT = [
    SkyvernConnectionError("no"),
    SkyvernServerError("no"),
    SkyvernRateLimitError("no"),
    SkyvernResponseError("no"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_errors_that_may_pass_do_not_end_a_wait(wait: Wait[Run], clock: Clock, error: SkyvernError) -> None:
    assert wait_for_end(wait, looks(*[error] * 20, run("completed")), clock.sleep) is not None


def test_pauses_grow_after_failures_and_shrink_after_an_answer(wait: Wait[Run]) -> None:
    for low in (20, 40, LONGEST_BACKOFF, LONGEST_BACKOFF):
        wait.poll_failed(SkyvernServerError("no"))
        assert low <= wait.next_delay() <= low * 1.1
    wait.update(run("running"))
    assert 10 <= wait.next_delay() <= 11


def test_an_interval_longer_than_the_longest_backoff_is_kept(clock: Clock, lines: LogLines) -> None:
    wait: Wait[Run] = Wait("wr_1", poll_interval=300, deadline=DEADLINE, log=lines, clock=clock)
    wait.poll_failed(SkyvernServerError("no"))
    assert 300 <= wait.next_delay() <= 330


def test_the_server_is_left_alone_as_long_as_it_asked(wait: Wait[Run]) -> None:
    wait.poll_failed(SkyvernRateLimitError("no", retry_after=500))
    assert 500 <= wait.next_delay() <= 550
    wait.poll_failed(SkyvernServerError("no"))
    assert wait.next_delay() < 500


def test_no_pause_goes_beyond_the_deadline(wait: Wait[Run], clock: Clock) -> None:
    clock.now = DEADLINE - 3
    wait.poll_failed(SkyvernRateLimitError("no", retry_after=500))
    assert wait.next_delay() == pytest.approx(3)


def test_a_wait_that_only_fails_ends_at_the_deadline(wait: Wait[Run], clock: Clock) -> None:
    assert wait_for_end(wait, looks(SkyvernServerError("no")), clock.sleep) is None
    assert wait.run is None
    assert clock.now == pytest.approx(DEADLINE)


def test_a_refusal_ends_the_wait_for_an_unknown_run_at_once(wait: Wait[Run], clock: Clock) -> None:
    with pytest.raises(SkyvernNotFoundError):
        wait_for_end(wait, looks(SkyvernNotFoundError("unknown")), clock.sleep)
    assert clock.naps == []


@pytest.mark.parametrize("refusal", [SkyvernNotFoundError("gone"), SkyvernRequestError("no"), SkyvernAPIError("?")])
def test_a_refusal_ends_the_wait_for_a_known_run_when_it_is_repeated_for_five_minutes(
    wait: Wait[Run], clock: Clock, refusal: SkyvernError
) -> None:
    with pytest.raises(type(refusal)):
        wait_for_end(wait, looks(run("running"), refusal), clock.sleep)
    assert REFUSAL_PATIENCE <= clock.now < REFUSAL_PATIENCE + 2 * LONGEST_BACKOFF


def test_a_run_that_its_task_has_started_is_known_before_the_first_poll(lines: LogLines, clock: Clock) -> None:
    known: Wait[Run] = Wait("wr_1", poll_interval=10, deadline=DEADLINE, log=lines, clock=clock, run_known=True)
    ended = wait_for_end(known, looks(SkyvernNotFoundError("gone"), run("completed")), clock.sleep)
    assert ended is not None


def test_refusals_count_only_when_nothing_came_in_between(wait: Wait[Run], clock: Clock) -> None:
    gone, away = SkyvernNotFoundError("gone"), SkyvernServerError("away")
    wait.update(run("running"))
    for error in (gone, away, gone):
        wait.poll_failed(error)
        clock.now += REFUSAL_PATIENCE
    with pytest.raises(SkyvernNotFoundError):
        wait.poll_failed(gone)


def test_an_answer_that_is_too_large_ends_the_wait_for_a_known_run_at_once(wait: Wait[Run]) -> None:
    wait.update(run("running"))
    with pytest.raises(SkyvernAnswerTooLarge):
        wait.poll_failed(SkyvernAnswerTooLarge("8 GB"))


def test_only_news_is_logged(wait: Wait[Run], clock: Clock, lines: LogLines) -> None:
    wait_for_end(wait, looks(run("queued"), *[run("running")] * 5, run("completed")), clock.sleep)
    assert lines.lines == [f"Skyvern run wr_1: {news}" for news in ("queued", "running", "completed")]


def test_a_long_silence_is_broken_now_and_then(wait: Wait[Run], clock: Clock, lines: LogLines) -> None:
    wait_for_end(wait, looks(*[run("running")] * 60, run("completed")), clock.sleep)
    signs = [line for line in lines.lines if "still running after" in line]
    assert len(signs) in (2, 3)
    assert "still running after 3 min" in signs[0] or "still running after 4 min" in signs[0]


def test_a_failed_look_is_logged_with_its_reason_and_count(wait: Wait[Run], clock: Clock, lines: LogLines) -> None:
    wait_for_end(wait, looks(SkyvernServerError("why 1"), SkyvernServerError("why 2"), run("completed")), clock.sleep)
    assert lines.lines[:2] == [
        "Skyvern run wr_1: poll failed (1 in a row), will be retried. why 1",
        "Skyvern run wr_1: poll failed (2 in a row), will be retried. why 2",
    ]


def test_a_paused_run_says_where_a_person_is_awaited(wait: Wait[Run], lines: LogLines) -> None:
    wait.update(run("paused", app_url="https://app/runs/wr_1"))
    assert lines.lines == ["Skyvern run wr_1: paused, waiting for a person in https://app/runs/wr_1"]


def test_the_end_is_logged_with_its_duration_and_reason(wait: Wait[Run], lines: LogLines) -> None:
    times = {"created_at": "2026-11-22T20:00:00", "finished_at": "2026-11-22T22:03:04"}
    wait.update(run("failed", failure_reason="no stock", **times))
    assert lines.lines == ["Skyvern run wr_1: failed after 2 h 3 min: no stock"]


def test_an_end_that_is_in_the_log_already_is_not_logged_again(lines: LogLines) -> None:
    """The trigger logs it, and then the worker that fetches the result."""
    wait: Wait[Run] = Wait("wr_1", poll_interval=10.0, deadline=1e12, log=lines, end_known=True)
    wait.update(run("completed"))
    assert wait.ended
    assert lines.lines == []


@pytest.mark.parametrize(("known", "refused_for", "ends"), [(True, 599, False), (True, 601, True), (False, 0, True)])
def test_a_refused_key_ends_only_waits_that_never_worked_or_after_ten_minutes(
    lines: LogLines, *, known: bool, refused_for: float, ends: bool
) -> None:
    now = 0.0
    wait: Wait[Run] = Wait("wr_1", poll_interval=10.0, deadline=1e12, log=lines, clock=lambda: now)
    if known:
        wait.update(run("running"))
        wait.poll_failed(SkyvernAuthError("refused"))
    now += refused_for
    if ends:
        with pytest.raises(SkyvernAuthError):
            wait.poll_failed(SkyvernAuthError("refused"))
    else:
        wait.poll_failed(SkyvernAuthError("refused"))


def test_a_server_that_asks_for_a_day_gets_ten_minutes(lines: LogLines) -> None:
    wait: Wait[Run] = Wait("wr_1", poll_interval=10.0, deadline=1e12, log=lines)
    wait.poll_failed(SkyvernRateLimitError("later", retry_after=86400))
    assert 600 <= wait.next_delay() <= 660
