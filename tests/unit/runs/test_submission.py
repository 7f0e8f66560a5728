from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.api import start_run
from airflow_skyvern.client.retry import RetryPolicy, may_have_started
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernCreditError,
    SkyvernError,
    SkyvernOvertaken,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernResponseError,
    SkyvernServerError,
    SkyvernStartAmbiguous,
    SkyvernStartUnknown,
)
from airflow_skyvern.runs.key import ENDS_WITH_TASK_TAG, OUR_TAGS, RunKey, of_same_attempt
from airflow_skyvern.runs.store import StartStore
from airflow_skyvern.runs.submission import Attempt, Submission
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern
from tests.support.log_lines import LogLines

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import Run

START = "/v1/run/workflows"
FIND = "/v1/runs"
NO_TAGS = httpx.Response(403, json={"detail": "Workflow tagging is not enabled for this organization."})


class Memory(dict[str, Any]):
    """Airflow's task_state_store in miniature."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class Unreachable(Memory):
    """A store that takes so many values, and then cannot be reached."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def set(self, key: str, value: Any) -> None:
        self.after -= 1
        if self.after < 0:
            raise ConnectionError("API_SERVER_ERROR: timed out")
        super().set(key, value)


def request_of(workflow_id: str, **parameters: Any) -> RunRequest:
    return RunRequest.of({"workflow_id": workflow_id, "parameters": parameters}, {"run_metadata": {"team": "ops"}})


def key_of(request: RunRequest, max_tries: int = 0, map_index: int = -1, **ids: Any) -> RunKey:
    names = {"dag_id": "d", "run_id": "r", "task_id": "t", **ids}
    return RunKey.of(**names, map_index=map_index, max_tries=max_tries, request=request)


class Tries:
    """A task that is tried, retried and cleared; its time advances only when it sleeps."""

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
            store=StartStore(self.memory),
            lost_start_timeout=30,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()

    def first(self, max_tries: int = 0) -> Run:
        return self.submission(max_tries).start(Attempt())

    def retry(self, max_tries: int = 0, earlier_tries: int = 1, **more: Any) -> Run:
        return self.submission(max_tries).start(Attempt(earlier_tries, **more))


@pytest.fixture
def task(fake: FakeSkyvern) -> Tries:
    return Tries(fake, fake.workflow(plan=("running",)))


def starts(fake: FakeSkyvern) -> int:
    return len(fake.sent("POST", START))


def test_a_first_try_starts_at_once_and_marks_its_run(fake: FakeSkyvern, task: Tries) -> None:
    run = task.first()
    assert [seen.path for seen in fake.requests] == [START]
    assert set(fake.runs[run.run_id].tags) == (OUR_TAGS - {ENDS_WITH_TASK_TAG}) | {"team"}
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


@pytest.mark.parametrize("loss", [LOST, lambda: httpx.Response(502), lambda: httpx.Response(200, html="<h1>")])
def test_the_run_of_a_start_that_was_not_answered_is_found(fake: FakeSkyvern, task: Tries, loss: Any) -> None:
    fake.next("POST", START, loss)
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
    with pytest.raises(
        SkyvernStartAmbiguous, match=r"cannot be found, as this Skyvern organization has no run tags.*run history"
    ):
        task.first()
    assert not SkyvernStartAmbiguous.transient
    assert starts(fake) == 1


@pytest.mark.slow
def test_a_key_that_is_refused_is_not_taken_for_missing_tags(fake: FakeSkyvern, task: Tries) -> None:
    task.first()
    fake.api_key = "another"
    with pytest.raises(SkyvernAuthError):
        task.retry()
    assert starts(fake) == 1


@pytest.mark.parametrize("stored", [True, False])
def test_a_refused_key_is_waited_for_after_a_clear_where_a_start_was_not_answered(
    fake: FakeSkyvern, task: Tries, *, stored: bool
) -> None:
    """Its run goes on meanwhile, and nobody else would cancel it."""
    task.memory = Memory() if stored else None
    fake.next("POST", START, LOST)
    fake.next("GET", FIND, httpx.ReadTimeout("slow"))
    with pytest.raises(SkyvernStartUnknown):
        task.submission().start(Attempt(seconds_left=0))
    refused = httpx.Response(403, json={"detail": "Could not validate credentials"})
    fake.next("GET", FIND, *[refused] * 9)
    again = task.retry(max_tries=1, after_clear=True)
    [before] = [run_id for run_id in fake.runs if run_id != again.run_id]
    assert fake.status(before) == "canceled"
    assert 9 <= task.now < 600


def test_after_a_clear_a_refused_key_is_an_error_at_once_where_nothing_was_started(
    fake: FakeSkyvern, task: Tries
) -> None:
    task.memory = Memory()
    fake.api_key = "another"
    with pytest.raises(SkyvernAuthError):
        task.first()
    with pytest.raises(SkyvernAuthError):
        task.retry(max_tries=1, after_clear=True)
    assert task.now == 0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Missing value for parameter a in workflow wpid_1"),
        (403, "Could not validate credentials"),
        (404, "Browser session pbs_1 does not exist or is not live."),
        (410, "Browser session pbs_1 is closed. Start another."),
        (422, [{"type": "missing", "loc": ["body", "a"], "msg": "Field required"}]),
        (429, "Rate limit exceeded for organization o_1. Maximum 5 requests per 1 seconds allowed."),
        (503, "The server is busy dispatching other runs. No run was created; retry this request."),
    ],
)
def test_a_start_that_was_refused_is_an_error_and_forgotten(
    fake: FakeSkyvern, task: Tries, status: int, words: Any
) -> None:
    task.memory = Memory()
    fake.next("POST", START, httpx.Response(status, json={"detail": words}))
    with pytest.raises(SkyvernError):
        task.first()
    assert task.retry().run_id in fake.runs
    assert (starts(fake), task.now) == (2, 0)


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (SkyvernConnectionError("x"), True),
        (SkyvernConnectionError("x", never_sent=True), False),
        (SkyvernServerError("x", status_code=502), True),
        (SkyvernServerError("x", status_code=503, nothing_done=True), False),
        (SkyvernResponseError("x"), True),
        (SkyvernRateLimitError("x"), True),
        (SkyvernRateLimitError("x", nothing_done=True), False),
        (SkyvernCreditError("x"), True),
        (SkyvernRequestError("x", nothing_done=True), False),
        (SkyvernConfigError("x"), False),
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
    assert task.retry().run_id != run.run_id
    assert starts(fake) == 2


@pytest.mark.slow
def test_a_retry_whose_start_was_lost_does_not_take_the_run_that_failed_before(fake: FakeSkyvern) -> None:
    task = Tries(fake, fake.workflow(plan=("failed",)))
    run = task.first()
    fake.runs[run.run_id].look()
    fake.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown):
        task.retry()


def test_a_retry_that_comes_soon_looks_as_long_as_a_lost_start_may_take(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("GET", FIND, *[httpx.Response(200, json=[])] * 5)
    first = task.first()
    assert task.retry().run_id == first.run_id
    assert (starts(fake), task.now) == (1, 4)  # the answers also go to the look for a predecessor


def test_a_retry_that_finds_nothing_waits_for_a_start_that_may_be_on_its_way(fake: FakeSkyvern, task: Tries) -> None:
    """However late the retry comes: a server that was frozen in between has not served the start yet."""
    task.retry()
    assert (starts(fake), task.now) == (1, 30)


@pytest.mark.parametrize("with_store", [False, True])
def test_a_frozen_server_that_answers_the_search_before_the_start_makes_one_run(
    fake: FakeSkyvern, task: Tries, *, with_store: bool
) -> None:
    """It thaws while the retry searches, and answers the search first: 2 runs in 8 of 8 before."""
    task.memory = Memory() if with_store else None
    frozen: list[Call[Any]] = []
    send = task.send

    def freeze(call: Call[Any]) -> Any:
        if call.path == START:
            frozen.append(call)
            raise SkyvernConnectionError("timed out")
        raise SkyvernServerError("frozen", status_code=504)

    task.send = freeze
    with pytest.raises(SkyvernStartUnknown):
        task.first()
    task.send = send
    task.on_sleep = lambda: send(frozen.pop()) if frozen else None
    assert [task.retry().run_id] == list(fake.runs)


@pytest.mark.parametrize(("lost_searches", "found_after"), [(0, 30), (50, 80)])
def test_the_search_counts_its_time_from_its_first_answer(
    fake: FakeSkyvern, task: Tries, lost_searches: int, found_after: int
) -> None:
    task.memory = Memory()
    fake.next("POST", START, httpx.ReadTimeout("lost on its way"))
    fake.next("GET", FIND, *[httpx.Response(503)] * lost_searches)
    with pytest.raises(SkyvernStartUnknown):
        task.first()
    assert task.now == found_after


def test_a_search_ends_when_the_task_has_to(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown):
        task.submission().start(Attempt(seconds_left=12))
    assert task.now == 12
    with pytest.raises(SkyvernStartUnknown, match="no time is left"):
        task.retry(seconds_left=5)
    assert starts(fake) == 1


@pytest.mark.parametrize(("path", "answer"), [(FIND, 403), ("/v1/runs/wr_[^/]+", 403), ("/v1/runs/wr_[^/]+", 404)])
def test_a_refusal_that_is_not_believed_yet_when_the_time_is_over_leaves_the_task_its_retries(
    fake: FakeSkyvern, task: Tries, path: str, answer: int
) -> None:
    """As of a key that is being rotated; a retry has time of its own."""
    run = task.first()
    refusals = {403: "Could not validate credentials", 404: f"Task run not found {run.run_id}"}
    fake.next("GET", path, *[httpx.Response(answer, json={"detail": refusals[answer]})] * 11)
    with pytest.raises(SkyvernStartUnknown, match="no time is left to wait") as caught:
        task.retry(seconds_left=50)
    assert caught.value.transient
    assert task.now == 50
    assert task.retry().run_id == run.run_id
    assert starts(fake) == 1


def test_a_retry_knows_that_each_try_before_has_left_its_run(fake: FakeSkyvern) -> None:
    task = Tries(fake, fake.workflow(plan=("failed",)))
    for earlier_tries in range(3):
        run = task.retry(earlier_tries=earlier_tries)
        fake.runs[run.run_id].look()
    assert (starts(fake), task.now) == (3, 0)


@pytest.mark.slow
def test_retries_that_were_lowered_between_two_tries_do_not_start_twice(fake: FakeSkyvern, task: Tries) -> None:
    """They make a retry look like the first try after a clear."""
    fake.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown):
        task.first(max_tries=2)
    now = task.now
    task.retry(max_tries=2, after_clear=True)
    assert task.now == now + 30


def test_a_run_continues_when_its_id_cannot_be_stored_and_a_retry_resumes_it(fake: FakeSkyvern, task: Tries) -> None:
    """Airflow's API server may be away for a minute just after the start was answered."""
    task.memory = Unreachable(after=1)
    run = task.first()
    task.memory.after = 99
    assert task.retry().run_id == run.run_id
    assert starts(fake) == 1


def test_nothing_is_started_when_the_start_cannot_be_stored(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Unreachable(after=0)
    with pytest.raises(ConnectionError):
        task.first()
    assert starts(fake) == 0


def test_a_clear_that_repeats_the_group_starts_anew_where_the_store_knows_the_success(fake: FakeSkyvern) -> None:
    """`retries` lowered from 2 to 1 after a success at the first try: a clear gives max_tries=2 again."""
    task = Tries(fake, fake.workflow(plan=("completed",)))
    task.memory = Memory()
    before = task.first(max_tries=2)
    fake.runs[before.run_id].look()
    StartStore(task.memory).done(before.run_id)
    assert task.retry(max_tries=2).run_id == before.run_id  # a retry after a crash takes the result again
    StartStore(task.memory).done(before.run_id)
    assert task.retry(max_tries=2, after_clear=True).run_id != before.run_id


def test_a_try_that_was_overtaken_starts_nothing(fake: FakeSkyvern, task: Tries) -> None:
    """Airflow 3.3 drops silently what a try stores when another one has taken over."""

    class Overtaken(Memory):
        def set(self, key: str, value: Any) -> None:
            pass

    task.memory = Overtaken()
    with pytest.raises(SkyvernStartUnknown, match="Another try of this task has taken over"):
        task.first()
    assert starts(fake) == 0


def test_a_retry_resumes_the_run_of_a_workflow_that_was_deleted(fake: FakeSkyvern, task: Tries) -> None:
    run = task.first()
    fake.workflows[task.request.workflow_id].deleted = True
    assert task.retry().run_id == run.run_id
    assert starts(fake) == 1


@pytest.mark.slow
@pytest.mark.parametrize("max_tries", [0, 1])
def test_without_tags_a_recorded_run_that_is_gone_does_not_fail_the_task_for_ever(
    fake: FakeSkyvern, task: Tries, max_tries: int
) -> None:
    task.memory = Memory()
    gone = task.first()
    del fake.runs[gone.run_id]
    fake.next("GET", FIND, NO_TAGS)
    assert task.retry(max_tries=max_tries).run_id in fake.runs


def test_with_a_memory_a_retry_after_nothing_need_not_wait(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    task.retry()
    assert (starts(fake), task.now) == (1, 0)


def test_a_run_whose_tags_were_lost_is_remembered(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    run = task.first()
    fake.runs[run.run_id].tags.clear()
    assert task.retry().run_id == run.run_id
    assert starts(fake) == 1


def test_after_a_clear_the_run_of_before_is_canceled_and_another_started(fake: FakeSkyvern, task: Tries) -> None:
    before = task.first(max_tries=0)
    after = task.retry(max_tries=1)
    assert before.run_id != after.run_id
    assert (fake.status(before.run_id), fake.status(after.run_id)) == ("canceled", "created")


def test_the_first_try_after_a_clear_need_not_wait(fake: FakeSkyvern, task: Tries) -> None:
    task.first(max_tries=0)
    task.retry(max_tries=1, after_clear=True)
    assert (starts(fake), task.now) == (2, 0)


def test_without_tags_and_memory_a_first_try_after_a_clear_starts(fake: FakeSkyvern, task: Tries) -> None:
    fake.next("GET", FIND, NO_TAGS)
    task.retry(max_tries=1, after_clear=True)
    assert starts(fake) == 1


def test_after_a_clear_the_run_of_before_can_be_left_alone(fake: FakeSkyvern, task: Tries) -> None:
    before = task.first(max_tries=0)
    task.retry(max_tries=1, cancel_predecessor=False)
    assert fake.status(before.run_id) == "created"


def started_by(fake: FakeSkyvern, task: Tries, key: RunKey) -> str:
    """Return an active run that carries this key."""
    started = task.send(start_run(task.request.model_copy(update={"run_metadata": key.tags})))
    fake.requests.clear()
    return str(started.run_id)


def test_a_clear_on_staging_does_not_cancel_production(fake: FakeSkyvern, task: Tries) -> None:
    """Without a base_url both name their tasks alike; when their DAG runs started differs."""
    production = started_by(fake, task, key_of(task.request, max_tries=0, run_started="at another time"))
    task.retry(max_tries=1)
    assert fake.status(production) == "created"
    assert f"Skyvern run {production}: not canceled" in task.log.text
    assert "set [api] base_url on both" in task.log.text


def test_a_clear_after_the_dag_run_was_restarted_cancels_what_the_store_knows(fake: FakeSkyvern, task: Tries) -> None:
    task.memory = Memory()
    key = key_of(task.request, max_tries=0, run_started="before the clear")
    before = started_by(fake, task, key)
    StartStore(task.memory).started(key.group, before)
    task.retry(max_tries=1)
    assert fake.status(before) == "canceled"


def test_an_address_of_its_own_tells_an_airflow_from_others(fake: FakeSkyvern, task: Tries) -> None:
    before = started_by(fake, task, key_of(task.request, run_started="before", airflow="https://a"))
    submission = Submission(
        task.send,
        task.request,
        key_of(task.request, max_tries=1, airflow="https://a"),
        log=task.log,
        clock=lambda: task.now,
        sleep=task.sleep,
    )
    submission.start(Attempt(1))
    assert fake.status(before) == "canceled"


def test_runs_of_other_tasks_are_left_alone(fake: FakeSkyvern, task: Tries) -> None:
    other = Tries(fake, task.request.workflow_id)
    stranger = other.send(
        start_run(other.request.model_copy(update={"run_metadata": key_of(other.request, task_id="other").tags}))
    )
    untagged = fake.run(plan=("running",))
    task.retry()
    assert starts(fake) == 2
    assert {fake.status(stranger.run_id), fake.status(untagged)} == {"created"}


def test_a_server_that_ignores_the_filter_is_not_believed(fake: FakeSkyvern, task: Tries) -> None:
    stranger = fake.run(plan=("running",))
    row = {"run_id": stranger, "status": "running"}
    fake.next("GET", FIND, *[httpx.Response(200, json=[row])] * 2)
    with pytest.raises(SkyvernStartAmbiguous, match="stores nothing between tries"):
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
        loss = LOSSES[lost]
        if loss is not None and not fake.runs:
            fake.next("POST", START, loss)
        with contextlib.suppress(SkyvernStartUnknown):
            task.first() if number == 0 else task.retry()
    assert len(fake.runs) == 1


def overtaken() -> None:
    raise SkyvernOvertaken("Another try of this task has taken over, so this one does nothing more.")


def submission_of(task: Tries, key: RunKey, **more: Any) -> Submission:
    return Submission(task.send, task.request, key, log=task.log, clock=lambda: task.now, sleep=task.sleep, **more)


@pytest.mark.parametrize("asked", [1, 2])
def test_a_try_that_airflow_does_not_count_on_any_more_sends_no_start(
    fake: FakeSkyvern, task: Tries, asked: int
) -> None:
    """Neither before it, nor when it is about to be written to the connection."""
    answers = iter([None] * (asked - 1))

    def ensure_current() -> None:
        if next(answers, overtaken) is overtaken:
            overtaken()

    def send(call: Call[Any]) -> Any:
        if call.before_sending:
            call.before_sending()
        return client_send(call)

    client_send, task.send = task.send, send
    task.memory = Memory()
    with pytest.raises(SkyvernOvertaken):
        submission_of(task, key_of(task.request), store=StartStore(task.memory), ensure_current=ensure_current).start(
            Attempt()
        )
    assert fake.requests == []
    task.send = client_send
    task.retry()
    assert (starts(fake), task.now) == (1, 0 if asked == 1 else 30)


def test_a_try_that_was_overtaken_cancels_no_predecessor(fake: FakeSkyvern, task: Tries) -> None:
    before = task.first(max_tries=0)
    with pytest.raises(SkyvernOvertaken):
        submission_of(task, key_of(task.request, max_tries=1), ensure_current=overtaken).start(Attempt(1))
    assert fake.status(before.run_id) == "created"


def test_a_try_of_before_a_clear_does_not_cancel_the_run_of_after_it(fake: FakeSkyvern, task: Tries) -> None:
    after = started_by(fake, task, key_of(task.request, max_tries=2, airflow="https://a"))
    submission_of(task, key_of(task.request, max_tries=1, airflow="https://a")).start(Attempt(1))
    assert fake.status(after) == "created"


def queued_again(task: Tries, airflow: str, **more: Any) -> tuple[RunKey, RunKey]:
    """Return the keys of one attempt before and after its DAG run was queued again, where only its start names it."""
    made = {"airflow": airflow, "start_may_change": True, "run_created": "2026", **more}
    return tuple(key_of(task.request, run_started=start, **made) for start in ("12:00", "13:00"))  # type: ignore[return-value]  # two


@pytest.mark.parametrize("state", ["running", "completed"])
@pytest.mark.parametrize("cancel", [True, False])
def test_a_retry_resumes_its_run_also_when_its_dag_run_was_queued_again(
    fake: FakeSkyvern, state: str, *, cancel: bool
) -> None:
    task = Tries(fake, fake.workflow(plan=(state,)))
    before, after = queued_again(task, "https://a")
    run_id = started_by(fake, task, before)
    fake.runs[run_id].look()
    assert submission_of(task, after).start(Attempt(1, cancel_predecessor=cancel)).run_id == run_id
    assert fake.status(run_id) == state
    assert (starts(fake), task.now) == (0, 0)


def test_without_a_name_of_this_airflow_an_active_run_at_another_start_is_for_a_person(
    fake: FakeSkyvern, task: Tries
) -> None:
    before, after = queued_again(task, "")
    run_id = started_by(fake, task, before)
    with pytest.raises(SkyvernStartAmbiguous, match=rf"{run_id} is active.*queued again.*\[skyvern\] installation"):
        submission_of(task, after).start(Attempt(1))
    assert (starts(fake), fake.status(run_id)) == (0, "created")


@pytest.mark.parametrize("airflow", ["", "https://a"])
def test_each_try_that_has_left_its_run_at_this_start_has_left_none_at_another(
    fake: FakeSkyvern, airflow: str
) -> None:
    """So the other one is of a DAG run that was deleted and made again, or of another Airflow."""
    task = Tries(fake, fake.workflow(plan=("failed",)))
    before, after = queued_again(task, airflow)
    other, own = started_by(fake, task, before), started_by(fake, task, after)
    fake.runs[own].look()
    assert submission_of(task, after).start(Attempt(1)).run_id not in (other, own)
    assert (fake.status(other), starts(fake), task.now) == ("created", 1, 0)


@pytest.mark.parametrize("other", [{"run_created": "2025"}, {"start_may_change": False}])
def test_a_dag_run_that_was_made_again_does_not_resume_the_run_of_the_deleted_one(
    fake: FakeSkyvern, task: Tries, other: dict[str, Any]
) -> None:
    deleted, _ = queued_again(task, "", **other)
    made_again = queued_again(task, "", **{**other, "run_created": "2026"})[1]
    run_id = started_by(fake, task, deleted)
    assert submission_of(task, made_again).start(Attempt(1)).run_id != run_id
    assert fake.status(run_id) == "created"


def repeated_by_a_person(fake: FakeSkyvern, task: Tries, run: Run, agent: str = "skyvern-ui") -> str:
    """Run a workflow again in Skyvern's UI: the new run has the tags of the old one."""
    before = set(fake.runs)
    body = {"workflow_id": task.request.workflow_id, "run_metadata": dict(fake.runs[run.run_id].tags)}
    headers = {"x-api-key": API_KEY, "x-user-agent": agent}
    fake.handle(httpx.Request("POST", f"https://api{START}", json=body, headers=headers))
    fake.requests.clear()
    [made] = set(fake.runs) - before
    return made


@pytest.mark.parametrize("agent", ["skyvern-ui", "skyvern-mcp"])
def test_what_a_person_repeats_in_skyvern_is_neither_resumed_nor_canceled(fake: FakeSkyvern, agent: str) -> None:
    task = Tries(fake, fake.workflow(plan=("failed",)))
    run = task.first()
    fake.runs[run.run_id].look()
    repeated = repeated_by_a_person(fake, task, run, agent)
    assert task.retry().run_id != repeated
    task.retry(max_tries=1, earlier_tries=2)
    assert fake.status(repeated) == "created"


def test_a_tool_call_takes_no_run_of_another_one_and_cancels_none_of_its_attempt(
    fake: FakeSkyvern, task: Tries
) -> None:
    request = task.request

    def call(tag: str, max_tries: int = 0, **attempt: Any) -> Run:
        names = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
        key = RunKey.of(**names, max_tries=max_tries, request=request, call=tag)  # type: ignore[arg-type]  # one int among texts
        store = StartStore(Memory(), call=tag)
        submission = Submission(
            task.send, request, key, log=task.log, store=store, clock=lambda: task.now, sleep=task.sleep
        )
        return submission.start(Attempt(**attempt))

    first, second = call("a"), call("b")
    assert call("b", earlier_tries=1).run_id == second.run_id
    assert call("c", earlier_tries=1).run_id not in (first.run_id, second.run_id)
    assert starts(fake) == 3
    assert "canceled" not in {fake.status(run_id) for run_id in fake.runs}
    cleared = call("a", max_tries=1, earlier_tries=2)
    assert {run_id for run_id in fake.runs if fake.status(run_id) != "canceled"} == {cleared.run_id}


def test_groups_of_calls_of_one_attempt_are_known_as_such() -> None:
    def group(call: str = "", max_tries: int = 0, task_id: str = "t") -> str:
        names = {"dag_id": "d", "run_id": "r", "task_id": task_id, "map_index": -1}
        request = request_of("wpid_1")
        return RunKey.of(**names, max_tries=max_tries, request=request, call=call).group  # type: ignore[arg-type]  # as above

    assert of_same_attempt(group("a"), group("a"))
    assert of_same_attempt(group("a"), group("b"))
    assert not of_same_attempt(group("a"), group("b", max_tries=1))
    assert not of_same_attempt(group("a"), group("b", task_id="other"))
    assert not of_same_attempt(group(), group(max_tries=1))
    assert not of_same_attempt("x", "y")
