"""Every way in which a try ends before its run: is the run canceled, or left to the next try?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.compat import internals, since_3_0
from airflow_skyvern.compat.sdk import DAG, AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow_skyvern.compat.tries import Standing
from airflow_skyvern.exceptions import (
    SkyvernError,
    SkyvernRunCanceled,
    SkyvernStartUnknown,
    SkyvernTaskEnded,
    SkyvernWaitInterrupted,
    SkyvernWaitTimeout,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.task.task_try import TaskTry
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed

if TYPE_CHECKING:
    from tests.unit.conftest import Connect, TaskLog

START = "/v1/run/workflows"
CANCEL = "/v1/runs/[^/]+/cancel"
LOOK = "/v1/runs/wr_[^/]+"
SEARCH = "/v1/runs"
RETRIES = 2


@dataclass
class Situation:
    """A task whose try ends early, and the fakes around it."""

    skyvern: FakeSkyvern
    ti: FakeTaskInstance
    operator: SkyvernRunWorkflowOperator
    kill: Callable[[], None]
    """Airflow's signal."""
    current: list[Any]
    """The context of the task that this process executes, once it does."""
    before_resumption: Callable[[], None] = lambda: None

    def leave_run_of_earlier_try(self) -> None:
        """Let an earlier try start the run, and lose its worker."""
        earlier = FakeTaskInstance()
        earlier.max_tries = self.ti.max_tries
        deferral(make(self.operator.workflow_id, deferrable=True), earlier)
        self.skyvern.requests.clear()

    def execute(self) -> None:
        self.current.append(context_of(self.ti))
        self.operator.execute(self.current[0])

    def resume(self, reason: str, deadline: float | None = None) -> None:
        deferred = deferral(make(self.operator.workflow_id, deferrable=True, durable=self.operator.durable), self.ti)
        assert deferred.kwargs is not None
        if deadline is not None:
            deferred.kwargs["deadline"] = deadline
        self.current.append(context_of(self.ti))
        self.ti.next_method, self.ti.next_kwargs = "execute_complete", deferred.kwargs
        self.before_resumption()
        event = {"run_id": self.ti.xcoms["run_id"], "reason": reason, "status": "running", "message": ""}
        resumed(self.operator, deferred, event, self.current[0])


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return SkyvernRunWorkflowOperator(**given)


# The moments: after which line of the task the signal comes.


def before_it_is_called_again(it: Situation) -> None:
    it.leave_run_of_earlier_try()
    it.current.append(context_of(it.ti))
    it.kill()
    it.execute()


def before_the_search(it: Situation) -> None:
    it.leave_run_of_earlier_try()
    it.skyvern.next("GET", SEARCH, httpx.Response(503), it.kill)
    it.operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    it.execute()


def during_the_search(it: Situation) -> None:
    it.leave_run_of_earlier_try()
    it.skyvern.next("GET", SEARCH, it.kill)
    it.execute()


def before_the_found_run_is_resumed(it: Situation) -> None:
    it.leave_run_of_earlier_try()
    it.skyvern.next("GET", LOOK, it.kill)
    it.execute()


def while_the_found_run_is_published(it: Situation) -> None:
    it.leave_run_of_earlier_try()
    it.ti.on_push = lambda key: it.kill() if key == "run_id" else None
    it.execute()


def during_the_start(it: Situation) -> None:
    it.skyvern.next("POST", START, it.kill)
    it.execute()


def while_the_lost_start_is_searched_for(it: Situation) -> None:
    it.skyvern.next("POST", START, LOST)
    it.skyvern.next("GET", SEARCH, it.kill)
    it.operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    it.execute()


def while_it_waits(it: Situation) -> None:
    it.skyvern.next("GET", LOOK, it.kill)
    it.execute()


def before_it_is_resumed(it: Situation) -> None:
    it.before_resumption = it.kill
    it.resume("deadline", deadline=0.0)


def resumed_for(reason: str, deadline: float | None = None) -> Callable[[Situation], None]:
    def moment(it: Situation) -> None:
        it.skyvern.next("GET", LOOK, it.kill)
        it.resume(reason, deadline)

    moment.__name__ = f"resumed_for_{reason}"
    return moment


OF_A_RETRY = [
    before_it_is_called_again,
    before_the_search,
    during_the_search,
    before_the_found_run_is_resumed,
    while_the_found_run_is_published,
]
OF_ANY_TRY = [
    during_the_start,
    while_the_lost_start_is_searched_for,
    while_it_waits,
    before_it_is_resumed,
    resumed_for("error"),
    resumed_for("ended"),
    resumed_for("deadline", 0.0),
]

REASONS: dict[str, Any] = {
    "marked": "failed",
    "cleared": "restarting",
    "deleted": "deleted",
    "worker stopped": "running",
    "scheduler died": None,
    "Airflow is away": RuntimeError("API_SERVER_ERROR"),
    "execution_timeout": AirflowTaskTimeout,
}
if not since_3_0.is_airflow_3():
    del REASONS["deleted"], REASONS["scheduler died"]  # there the database tells these two apart, and here is none
USERS = ("marked", "cleared", "deleted")


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    contexts: list[Any] = []
    monkeypatch.setattr("airflow_skyvern.compat.internals.current_context", lambda: contexts[0] if contexts else None)
    monkeypatch.setattr("airflow_skyvern.task.task_try.CONFIRMATION", 0.001)  # a third of these tests wait for it
    monkeypatch.setattr("airflow_skyvern.client.retry.PACE", 0.01)
    return contexts


def situation(
    skyvern: FakeSkyvern, current: list[Any], *, reason: str, retry: bool, durable: bool, is_retry: bool
) -> Situation:
    ti = FakeTaskInstance()
    ti.max_tries = RETRIES if retry or is_retry else 0
    ti.try_number = (RETRIES if retry else RETRIES + 1) if is_retry else 1
    operator = make(skyvern.workflow(plan=("running",)), durable=durable, retries=RETRIES if retry else 0)

    def kill() -> None:
        if REASONS[reason] is not AirflowTaskTimeout:
            ti.state = REASONS[reason]
            operator.on_kill()
            return
        try:
            raise AirflowTaskTimeout  # noqa: TRY301  as Airflow does
        except AirflowTaskTimeout:
            operator.on_kill()

    return Situation(skyvern, ti, operator, kill, current)


def check(it: Situation, moment: Callable[[Situation], None], *, canceled: bool) -> None:
    kind = SkyvernRunCanceled if canceled else SkyvernWaitInterrupted
    with pytest.raises((kind, AirflowException)) as caught:
        moment(it)
    error: BaseException | None = caught.value
    if type(error) is AirflowException:  # 2.11 would overwrite the user's mark for any other
        assert not since_3_0.is_airflow_3()
        assert it.ti.state in internals.ENDED_BY_USER
        error = error.__cause__
    assert isinstance(error, kind)
    [run_id] = it.skyvern.runs
    assert (it.skyvern.status(run_id) == "canceled") is canceled
    assert len(it.skyvern.sent("POST", CANCEL)) == int(canceled)
    assert len(it.skyvern.sent("POST", START)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("retry", [True, False], ids=["retry", "no retry"])
@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("moment", OF_A_RETRY, ids=lambda moment: moment.__name__)
def test_a_retry_that_ends_early_cancels_the_run_for_a_user_for_a_timeout_or_when_no_try_will_resume_it(
    skyvern: FakeSkyvern, current: list[Any], moment: Callable[[Situation], None], reason: str, *, retry: bool
) -> None:
    it = situation(skyvern, current, reason=reason, retry=retry, durable=True, is_retry=True)
    canceled = reason in USERS or reason == "execution_timeout" or not retry
    check(it, moment, canceled=canceled)


@pytest.mark.slow
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not durable"])
@pytest.mark.parametrize("retry", [True, False], ids=["retry", "no retry"])
@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("moment", OF_ANY_TRY, ids=lambda moment: moment.__name__)
def test_a_try_that_ends_early_cancels_its_run_for_a_user_for_a_timeout_or_when_no_try_will_resume_it(
    skyvern: FakeSkyvern,
    current: list[Any],
    moment: Callable[[Situation], None],
    reason: str,
    *,
    retry: bool,
    durable: bool,
) -> None:
    if moment is while_the_lost_start_is_searched_for and not durable:
        pytest.skip("nothing is searched for")
    it = situation(skyvern, current, reason=reason, retry=retry, durable=durable, is_retry=False)
    canceled = reason in USERS or reason == "execution_timeout" or not (retry and durable)
    check(it, moment, canceled=canceled)


@pytest.mark.parametrize("moment", [before_it_is_called_again, before_it_is_resumed], ids=lambda m: m.__name__)
@pytest.mark.parametrize("reason", [reason for reason in USERS if reason in REASONS])
def test_a_signal_before_the_operator_is_called_is_carried_out_at_once(
    skyvern: FakeSkyvern, current: list[Any], moment: Callable[[Situation], None], reason: str
) -> None:
    """Airflow 2 raises in the signal handler, so nothing of ours is called after it."""
    it = situation(
        skyvern, current, reason=reason, retry=True, durable=True, is_retry=moment is before_it_is_called_again
    )
    after: list[str] = []
    kill = it.kill

    def kill_and_look() -> None:
        kill()
        after.extend(map(skyvern.status, skyvern.runs))

    it.kill = kill_and_look
    with pytest.raises(SkyvernRunCanceled):
        moment(it)
    assert after == ["canceled"]


def test_a_first_try_that_is_stopped_before_its_start_starts_and_asks_nothing(
    skyvern: FakeSkyvern, current: list[Any]
) -> None:
    it = situation(skyvern, current, reason="marked", retry=True, durable=True, is_retry=False)
    current.append(context_of(it.ti))
    it.kill()
    with pytest.raises(SkyvernRunCanceled):
        it.execute()
    assert skyvern.requests == []


@pytest.mark.parametrize(
    ("reason", "error"), [("marked", SkyvernRunCanceled), ("worker stopped", SkyvernWaitInterrupted)]
)
def test_a_task_that_is_stopped_after_the_end_of_its_run_asks_skyvern_nothing_and_keeps_its_retry(
    skyvern: FakeSkyvern, current: list[Any], reason: str, error: type[Exception]
) -> None:
    """With skyvern_retry_policy, an error that says "canceled" would end the task, and its result would be lost."""
    it = situation(skyvern, current, reason=reason, retry=True, durable=True, is_retry=False)
    it.operator.workflow_id = skyvern.workflow(plan=("completed",))
    it.execute()
    asked = len(skyvern.requests)
    it.kill()
    with pytest.raises(error):
        it.operator._active_run.stop_if_killed()  # as the transfer of a file does
    assert len(skyvern.requests) == asked


@pytest.mark.parametrize("retry", [True, False])
def test_a_stop_during_the_cancel_at_the_deadline_does_not_stop_the_cancel(
    skyvern: FakeSkyvern, current: list[Any], *, retry: bool
) -> None:
    it = situation(skyvern, current, reason="worker stopped", retry=retry, durable=True, is_retry=False)
    it.operator.timeout = 1e-6
    skyvern.next("GET", LOOK, lambda: None, it.kill)
    skyvern.next("POST", CANCEL, httpx.Response(400, json={"detail": "not now"}))
    with pytest.raises(SkyvernError):
        it.execute()
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


# Tries that fail for good before they have found the run of the try before.


def last_try(skyvern: FakeSkyvern, map_index: int = -1, **arguments: Any) -> tuple[FakeTaskInstance, Any, str]:
    """Return the last try of a task, and the run that an earlier one has left active."""
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance(map_index=map_index)
    ti.max_tries = RETRIES
    deferral(make(workflow, deferrable=True, retries=RETRIES), ti)
    again = FakeTaskInstance(map_index=map_index)
    again.max_tries, again.try_number = RETRIES, RETRIES + 1
    [run_id] = skyvern.runs
    skyvern.requests.clear()
    return again, make(workflow, retries=RETRIES, **arguments), run_id


def break_parameters(operator: SkyvernRunWorkflowOperator) -> None:
    operator.parameters = "no mapping"


def break_destination(operator: SkyvernRunWorkflowOperator) -> None:
    operator.files_to = "nowhere"


def break_schema(operator: SkyvernRunWorkflowOperator) -> None:
    operator.output_schema = "/no/such/file.json"


MISTAKES = [break_parameters, break_destination, break_schema]


@pytest.mark.parametrize("spoil", MISTAKES, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("left", [0, 1], ids=["no retry left", "a retry left"])
def test_a_retry_that_fails_for_good_before_its_search_cancels_the_run_of_the_try_before(
    skyvern: FakeSkyvern, spoil: Callable[[SkyvernRunWorkflowOperator], None], left: int
) -> None:
    ti, operator, run_id = last_try(skyvern)
    ti.try_number -= left
    spoil(operator)
    with pytest.raises(AirflowFailException):
        operator.execute(context_of(ti))
    assert skyvern.status(run_id) == "canceled"


def test_a_retry_that_may_be_repeated_leaves_the_run_of_the_try_before(skyvern: FakeSkyvern) -> None:
    ti, operator, run_id = last_try(skyvern)
    ti.try_number -= 1
    operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    operator.execution_timeout = None
    ti.on_push = lambda key: (_ for _ in ()).throw(RuntimeError("the XCom backend is away"))
    with pytest.raises(RuntimeError):
        operator.execute(context_of(ti))
    assert skyvern.sent("POST", CANCEL) == []
    assert skyvern.status(run_id) != "canceled"


@pytest.mark.slow
def test_one_answer_that_is_not_skyverns_does_not_keep_a_last_try_from_its_run(skyvern: FakeSkyvern) -> None:
    ti, operator, run_id = last_try(skyvern)
    skyvern.next("GET", SEARCH, httpx.Response(422, json={"detail": "no"}))
    with pytest.raises(SkyvernWaitTimeout):
        operator.execute(context_of(ti))
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1], ids=["no retry left", "a retry left"])
@pytest.mark.parametrize("standing", [*Standing, None])
def test_a_try_that_is_killed_when_it_wakes_up_beside_its_retry_leaves_the_run_to_it(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, standing: Standing | None, left: int
) -> None:
    """Stopped after it had decided to cancel, at its deadline; Airflow has given it up, and kills it now."""
    ti, operator, run_id = last_try(skyvern)
    ti.try_number -= left
    monkeypatch.setattr("airflow_skyvern.compat.tries.standing", answers(standing))
    operator.pre_execute(context_of(ti))
    operator.hook.get_conn()
    active = operator._active_run
    active.is_running(TaskTry(context_of(ti)), run_id)
    active.is_unwanted()
    operator.on_kill()
    resumed = standing is Standing.OVERTAKEN or (standing is None and left)
    assert skyvern.status(run_id) == ("created" if resumed else "canceled")


def answers(standing: Standing | None) -> Callable[[Any], Standing]:
    """Let Airflow answer this about a try, or nothing."""

    def answer(_: Any) -> Standing:
        if standing is None:
            raise ConnectionError("Airflow is away")
        return standing

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1], ids=["no retry left", "a retry left"])
@pytest.mark.parametrize("key", ["run_id", "connection_and_run_key"])
def test_a_try_that_learns_by_itself_that_a_user_has_ended_its_task_cancels_the_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, key: str, left: int
) -> None:
    """2.11 says so in its database, and stops the try seconds later: when it may have ended. Marked at this XCom."""
    ti, operator, run_id = last_try(skyvern, deferrable=True)
    ti.try_number -= left
    monkeypatch.setattr("airflow_skyvern.task.task_try.PROOF_SECONDS", 0.3)
    said = [Standing.CURRENT]
    monkeypatch.setattr("airflow_skyvern.compat.tries.standing", lambda _: said[0])

    def mark(pushed: str) -> None:
        if pushed == key:
            said[0] = Standing.ENDED
            time.sleep(0.3)

    ti.on_push = mark
    with pytest.raises(SkyvernTaskEnded):
        operator.execute(context_of(ti))
    assert skyvern.status(run_id) == "canceled"
    assert skyvern.sent("POST", START) == []


@pytest.mark.slow
def test_a_run_that_cannot_be_found_is_named_by_its_tag(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    ti, operator, run_id = last_try(skyvern)
    group = skyvern.runs[run_id].tags["airflow_key"]
    skyvern.api_key = "another"
    with pytest.raises(SkyvernStartUnknown, match="403"):  # the key may be being rotated, until the time is over
        operator.execute(context_of(ti))
    log = task_log()
    assert "A Skyvern run of this task may still be running, and no task waits for it" in log
    assert f"airflow_key:{group}" in log


def test_a_missing_connection_names_the_run_by_its_tag(
    skyvern: FakeSkyvern, task_log: TaskLog, connect: Connect
) -> None:
    ti, operator, run_id = last_try(skyvern)
    group = skyvern.runs[run_id].tags["airflow_key"]
    connect(extra={"timeout": "soon"})
    with pytest.raises(AirflowFailException):
        operator.execute(context_of(ti))
    assert f"airflow_key:{group}" in task_log()


class Store:
    """Airflow's task state, as 3.3 has it."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value


def test_where_there_are_no_tags_the_run_in_airflows_task_state_is_canceled(skyvern: FakeSkyvern) -> None:
    ti, operator, run_id = last_try(skyvern)
    group = skyvern.runs[run_id].tags.pop("airflow_key")
    break_destination(operator)
    context = context_of(ti)
    context["task_state_store"] = Store(skyvern_run={"group": group, "run_id": run_id})
    with pytest.raises(AirflowFailException):
        operator.execute(context)
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.parametrize("installation", ["production", ""])
def test_a_mapped_retry_whose_parameters_fail_finds_the_run_by_the_name_of_its_task(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog, installation: str
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", installation)
    ti, operator, run_id = last_try(skyvern, map_index=1)
    break_parameters(operator)
    with pytest.raises(AirflowFailException):
        operator.execute(context_of(ti))
    assert (skyvern.status(run_id) == "canceled") is bool(installation)
    if not installation:
        assert f"Skyvern run {run_id} is active, and no task waits for it" in task_log()


@pytest.mark.parametrize(("executed", "left", "canceled"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_a_template_that_fails_before_the_operator_is_called_cancels_the_run_of_the_try_before(
    skyvern: FakeSkyvern, current: list[Any], *, executed: bool, left: int, canceled: bool
) -> None:
    ti, _, run_id = last_try(skyvern)
    ti.try_number -= left
    context = context_of(ti)
    if executed:
        current.append(context)
    with DAG("d", schedule=None):
        operator = make("wpid_1", retries=RETRIES, title="{{ no.such.thing }}", parameters={"a": ["{{ 1 / 0 }}"]})
    with pytest.raises(ZeroDivisionError):
        operator.render_template_fields(context)
    assert (skyvern.status(run_id) == "canceled") is canceled
    assert bool(skyvern.requests) is canceled


def test_a_template_that_fails_when_the_task_is_resumed_cancels_its_run(
    skyvern: FakeSkyvern, current: list[Any]
) -> None:
    ti = FakeTaskInstance()
    deferred = deferral(make(skyvern.workflow(plan=("running",)), deferrable=True), ti)
    ti.next_method, ti.next_kwargs = deferred.method_name, deferred.kwargs
    current.append(context_of(ti))
    with DAG("d", schedule=None):
        operator = make("wpid_1", parameters={"a": "{{ 1 / 0 }}"})
    with pytest.raises(ZeroDivisionError):
        operator.render_template_fields(current[0])
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


def test_a_first_try_that_fails_before_its_start_asks_nothing(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow())
    break_parameters(operator)
    with pytest.raises(AirflowFailException):
        operator.execute(context_of(FakeTaskInstance()))
    assert skyvern.requests == []


@pytest.mark.skipif(not hasattr(SkyvernRunWorkflowOperator, "retry_policy"), reason="came with Airflow 3.3")
def test_a_retry_that_the_tasks_policy_forbids_does_not_count(skyvern: FakeSkyvern, current: list[Any]) -> None:
    from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction

    it = situation(skyvern, current, reason="worker stopped", retry=True, durable=True, is_retry=False)
    it.operator.retry_policy = ExceptionRetryPolicy(rules=[], default=RetryAction.FAIL)
    check(it, while_it_waits, canceled=True)


@pytest.mark.slow
def test_a_lost_start_is_searched_for_after_an_execution_timeout_as_long_as_it_may_take(
    skyvern: FakeSkyvern, current: list[Any]
) -> None:
    """Airflow waits for on_kill then; a killed task has four seconds."""
    it = situation(skyvern, current, reason="execution_timeout", retry=True, durable=True, is_retry=False)
    it.operator.lost_start_timeout = 30.0
    it.operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    nothing = httpx.Response(200, json=[])
    skyvern.next("POST", START, LOST)

    def kill_and_find_nothing() -> httpx.Response:
        it.kill()
        return nothing

    skyvern.next("GET", SEARCH, kill_and_find_nothing, *[nothing] * 6)
    with pytest.raises((SkyvernRunCanceled, SkyvernError)):
        it.execute()
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.slow
def test_a_lost_start_of_the_last_try_is_searched_for_as_long_as_airflow_lets_it(
    skyvern: FakeSkyvern, current: list[Any], task_log: TaskLog
) -> None:
    """Our own deadline comes before Airflow's, so the search may have been cut short."""
    it = situation(skyvern, current, reason="marked", retry=False, durable=True, is_retry=False)
    it.operator.timeout = 0.01
    it.operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    nothing = httpx.Response(200, json=[])
    skyvern.next("POST", START, LOST)
    skyvern.next("GET", SEARCH, nothing, nothing)
    with pytest.raises(SkyvernStartUnknown):
        it.execute()
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"
    assert f"Skyvern run {run_id}: canceled, as its task failed and will not be retried" in task_log()


def test_a_start_that_nobody_will_find_is_named_by_its_tag(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    skyvern.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown):
        make(skyvern.workflow(), lost_start_timeout=1e-6).execute(context_of(FakeTaskInstance()))
    assert "Search for it in Skyvern's run history by its tag airflow_key:" in task_log()
