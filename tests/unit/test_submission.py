from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.api import run_workflow
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import RetryPolicy, SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernResponseError,
    SkyvernServerError,
    SkyvernStartAmbiguous,
    SkyvernStartUnknown,
)
from airflow_skyvern.runs.key import OUR_TAGS, RunKey
from airflow_skyvern.runs.submission import Submission, may_have_started
from tests.support.fake_skyvern import API_KEY, LOST, FakeSkyvern
from tests.support.log_lines import LogLines

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import Run

START = "/v1/run/workflows"
FIND = "/v1/runs"
NO_TAGS = httpx.Response(403, json={"detail": "Tagging is not available for this organization"})


class Memory(dict[str, Any]):
    """Airflow's task_state_store in miniature."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


def request_of(workflow_id: str, **parameters: Any) -> RunRequest:
    return RunRequest.of({"workflow_id": workflow_id, "parameters": parameters}, {"run_metadata": {"team": "ops"}})


def key_of(request: RunRequest, max_tries: int = 0, map_index: int = -1, **ids: str) -> RunKey:
    names = {"dag_id": "d", "run_id": "r", "task_id": "t", **ids}
    return RunKey.of(**names, map_index=map_index, max_tries=max_tries, request=request)


class Tries:
    """A task that is tried, retried and cleared; its time goes on only when it sleeps."""

    def __init__(self, fake: FakeSkyvern, workflow: str) -> None:
        transport = httpx.MockTransport(fake.handle)
        client = SkyvernClient(Settings(API_KEY), transport=transport, retry=RetryPolicy(attempts=1))
        self.send: Callable[[Call[Any]], Any] = client.send
        self.request = request_of(workflow)
        self.memory: Memory | None = None
        self.log = LogLines()
        self.now = 0.0
        self.on_sleep: Callable[[], object] = lambda: None

    def submission(self, max_tries: int = 0) -> Submission:
        return Submission(
            self.send,
            self.request,
            key_of(self.request, max_tries),
            log=self.log,
            memory=self.memory,
            settle=30,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()

    def first(self, max_tries: int = 0) -> Run:
        return self.submission(max_tries).start(first_try=True)

    def retry(self, max_tries: int = 0, **more: Any) -> Run:
        return self.submission(max_tries).start(first_try=False, **more)


@pytest.fixture
def task(fake: FakeSkyvern) -> Tries:
    return Tries(fake, fake.workflow(plan=("running",)))


def starts(fake: FakeSkyvern) -> int:
    return len(fake.sent("POST", START))


def test_a_first_try_starts_at_once_and_marks_its_run(fake: FakeSkyvern, task: Tries) -> None:
    run = task.first()
    assert [seen.path for seen in fake.requests] == [START]
    assert set(fake.runs[run.run_id].tags) == OUR_TAGS | {"team"}
    assert fake.runs[run.run_id].tags["airflow_dag_id"] == "d"


def test_the_key_is_the_same_over_retries_and_another_after_a_clear() -> None:
    request = request_of("wpid_1")
    assert key_of(request) == key_of(request)
    assert key_of(request, max_tries=0).group != key_of(request, max_tries=1).group
    assert key_of(request, max_tries=0).task == key_of(request, max_tries=1).task


def test_every_task_instance_has_a_key_of_its_own() -> None:
    request = request_of("wpid_1")
    others = [{"dag_id": "d2"}, {"run_id": "r2"}, {"task_id": "t2"}, {"map_index": 0}, {"map_index": 1}]
    keys = [key_of(request), *(key_of(request, **other) for other in others)]  # type: ignore[arg-type]  # one int among texts
    assert len({key.task for key in keys}) == len({key.group for key in keys}) == len(keys)


def test_a_mapped_task_whose_item_changed_is_another() -> None:
    one, other = request_of("wpid_1", vendor="A"), request_of("wpid_1", vendor="B")
    assert key_of(one, map_index=0).group != key_of(other, map_index=0).group
    assert key_of(one).group == key_of(other).group


def test_the_same_names_elsewhere_or_at_another_time_are_another_task() -> None:
    request = request_of("wpid_1")
    made_again, elsewhere = key_of(request, run_started="2027"), key_of(request, airflow="https://other")
    assert made_again.group != key_of(request).group
    assert made_again.task == key_of(request).task
    assert elsewhere.task != key_of(request).task


def test_ids_of_any_length_and_alphabet_fit_into_tags() -> None:
    key = key_of(request_of("w"), dag_id="ü,:" * 200, run_id="scheduled__2026-11-22T00:00:00+00:00", task_id=" ")
    assert all(len(name) <= 64 and len(value) <= 256 and "," not in value for name, value in key.tags.items())
    assert key.tags["airflow_run_id"] == "scheduled__2026-11-22T00:00:00+00:00"
    assert all(key.tags.values())


@pytest.mark.parametrize("outcome", [LOST, lambda: httpx.Response(502), lambda: httpx.Response(200, html="<h1>")])
def test_the_run_of_a_start_that_was_not_answered_is_found(fake: FakeSkyvern, task: Tries, outcome: Any) -> None:
    fake.next("POST", START, outcome)
    run = task.first()
    assert list(fake.runs) == [run.run_id]
    assert starts(fake) == 1


def test_a_run_that_appears_late_is_found(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("POST", START, LOST)
    fake.next("GET", FIND, *[httpx.Response(200, json=[])] * 20)
    assert task.first().run_id in fake.runs
    assert starts(fake) == 1
    assert task.now == 20


def test_trouble_while_looking_does_not_end_the_search(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("POST", START, LOST)
    fake.next("GET", FIND, httpx.Response(503), httpx.ConnectError("refused"), httpx.ReadTimeout("slow"))
    assert task.first().run_id in fake.runs
    assert starts(fake) == 1


def test_a_start_that_left_no_trace_is_for_the_next_try(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown, match="no run of it was found within 30 s"):
        task.first()
    assert (starts(fake), task.now) == (1, 30)


def test_without_tags_a_start_that_was_not_answered_is_for_a_person(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("POST", START, LOST)
    fake.next("GET", FIND, NO_TAGS)
    with pytest.raises(SkyvernStartAmbiguous, match=r"no run tags to find the run by.*run history"):
        task.first()
    assert not SkyvernStartAmbiguous.transient
    assert starts(fake) == 1


def test_a_key_that_is_refused_is_not_taken_for_missing_tags(fake: FakeSkyvern, task: Tries) -> None:
    task.first()
    fake.api_key = "another"
    with pytest.raises(SkyvernAuthError):
        task.retry()
    assert starts(fake) == 1


@pytest.mark.parametrize("status", [400, 402, 403, 404, 422, 429])
def test_a_start_that_was_refused_is_an_error_and_forgotten(fake: FakeSkyvern, task: Tries, status: int) -> None:
    task.memory = Memory()
    fake.next("POST", START, httpx.Response(status, json={"detail": "no"}))
    with pytest.raises(SkyvernError):
        task.first()
    assert task.retry(idle=0).run_id in fake.runs
    assert (starts(fake), task.now) == (2, 0)


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (SkyvernConnectionError("x"), True),
        (SkyvernConnectionError("x", never_sent=True), False),
        (SkyvernServerError("x", status_code=502), True),
        (SkyvernServerError("x", detail="The server is busy. No run was created; retry."), False),
        (SkyvernResponseError("x"), True),
        (SkyvernRateLimitError("x"), False),
        (SkyvernRequestError("x"), False),
    ],
    ids=repr,
)
def test_only_some_errors_leave_it_open_whether_a_run_was_started(error: SkyvernError, *, may: bool) -> None:
    assert may_have_started(error) is may


@pytest.mark.parametrize("state", ["running", "completed"])
def test_a_retry_goes_on_with_the_run_of_the_try_before(fake: FakeSkyvern, state: str) -> None:
    task = Tries(fake, fake.workflow(plan=(state,)))
    run = task.first()
    fake.runs[run.run_id].look()
    assert task.retry().run_id == run.run_id
    assert (starts(fake), task.now) == (1, 0)


@pytest.mark.parametrize("state", ["failed", "terminated", "timed_out", "canceled"])
def test_a_retry_after_a_bad_ending_starts_anew(fake: FakeSkyvern, state: str) -> None:
    task = Tries(fake, fake.workflow(plan=(state,)))
    run = task.first()
    fake.runs[run.run_id].look()
    assert task.retry(idle=300).run_id != run.run_id
    assert starts(fake) == 2


def test_a_retry_whose_start_was_lost_does_not_take_the_run_that_failed_before(fake: FakeSkyvern) -> None:
    task = Tries(fake, fake.workflow(plan=("failed",)))
    run = task.first()
    fake.runs[run.run_id].look()
    fake.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown):
        task.retry(idle=300)


def test_a_retry_that_comes_soon_looks_as_long_as_a_lost_start_may_take(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("GET", FIND, *[httpx.Response(200, json=[])] * 5)
    first = task.first()
    assert task.retry(idle=10).run_id == first.run_id
    assert (starts(fake), task.now) == (1, 4)  # the answers also go to the look for a predecessor


def test_a_retry_that_comes_late_need_not_wait(fake: FakeSkyvern, task: Tries) -> None:
    task.retry(idle=300)
    assert (starts(fake), task.now) == (1, 0)


def test_with_a_memory_a_retry_after_nothing_need_not_wait(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    task.retry(idle=0)
    assert (starts(fake), task.now) == (1, 0)


def test_a_run_whose_tags_were_lost_is_remembered(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    run = task.first()
    fake.runs[run.run_id].tags.clear()
    assert task.retry().run_id == run.run_id
    assert starts(fake) == 1


def test_after_a_clear_the_run_of_before_is_canceled_and_another_started(fake: FakeSkyvern, task: Tries) -> None:
    before = task.first(max_tries=0)
    after = task.retry(max_tries=1, idle=300)
    assert before.run_id != after.run_id
    assert (fake.status(before.run_id), fake.status(after.run_id)) == ("canceled", "created")


def test_the_first_try_after_a_clear_need_not_wait(fake: FakeSkyvern, task: Tries) -> None:
    task.first(max_tries=0)
    task.retry(max_tries=1, new_group=True, idle=0)
    assert (starts(fake), task.now) == (2, 0)


def test_without_tags_and_memory_a_first_try_after_a_clear_starts(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("GET", FIND, NO_TAGS)
    task.retry(max_tries=1, new_group=True)
    assert starts(fake) == 1


def test_after_a_clear_the_run_of_before_can_be_left_alone(fake: FakeSkyvern, task: Tries) -> None:
    before = task.first(max_tries=0)
    task.retry(max_tries=1, cancel_predecessor=False, idle=300)
    assert fake.status(before.run_id) == "created"


def test_runs_of_other_tasks_are_left_alone(fake: FakeSkyvern, task: Tries) -> None:
    other = Tries(fake, task.request.workflow_id)
    stranger = other.send(
        run_workflow(other.request.model_copy(update={"run_metadata": key_of(other.request, task_id="other").tags}))
    )
    untagged = fake.run(plan=("running",))
    task.retry(idle=300)
    assert starts(fake) == 2
    assert {fake.status(stranger.run_id), fake.status(untagged)} == {"created"}


def test_a_server_that_ignores_the_filter_is_not_believed(fake: FakeSkyvern, task: Tries) -> None:
    stranger = fake.run(plan=("running",))
    row = {"run_id": stranger, "status": "running"}
    fake.next("GET", FIND, httpx.Response(200, json=[row]))
    with pytest.raises(SkyvernStartAmbiguous, match="no memory between tries"):
        task.retry()
    assert "The server ignores the filter" in task.log.text
    assert fake.status(stranger) == "created"
    assert starts(fake) == 0


def test_without_tags_the_memory_knows_the_run(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    run = task.first()
    fake.next("GET", FIND, NO_TAGS)
    assert task.retry().run_id == run.run_id
    assert starts(fake) == 1


def test_without_tags_the_memory_knows_of_a_start_that_was_not_answered(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    fake.next("POST", START, LOST)
    fake.next("GET", FIND, NO_TAGS, NO_TAGS)
    for attempt in (task.first, task.retry):
        with pytest.raises(SkyvernStartAmbiguous):
            attempt()
    assert starts(fake) == 1


def test_without_tags_the_memory_knows_what_to_cancel_after_a_clear(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    before = task.first(max_tries=0)
    fake.next("GET", FIND, NO_TAGS)
    after = task.retry(max_tries=1)
    assert (fake.status(before.run_id), fake.status(after.run_id)) == ("canceled", "created")


def test_without_tags_and_memory_a_retry_is_for_a_person(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("GET", FIND, NO_TAGS)
    with pytest.raises(SkyvernStartAmbiguous, match="durable=False turns this check off"):
        task.retry()
    assert starts(fake) == 0


LOSSES: dict[str, Any] = {"the answer": LOST, "the request": httpx.ReadTimeout("lost on its way"), "nothing": None}


@pytest.mark.parametrize("losses", itertools.product(LOSSES, repeat=2), ids=str)
def test_whatever_two_tries_lose_a_third_that_gets_through_makes_one_run(
    fake: FakeSkyvern, task: Tries, losses: tuple[str, str]
) -> None:
    for number, lost in enumerate((*losses, "nothing")):
        outcome = LOSSES[lost]
        if outcome is not None and not fake.runs:
            fake.next("POST", START, outcome)
        with contextlib.suppress(SkyvernStartUnknown):
            task.first() if number == 0 else task.retry(idle=0)
    assert len(fake.runs) == 1
