"""
The provider upgraded, or taken back, while tasks wait: what one version has stored, another one continues.

``stored_by/`` has what each released version stores, as it was recorded with that version and never changed again.
Recorded on Airflow 3.3, before a release, by ``RECORD=1 pytest tests/unit/upgrades -k test_record``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from airflow_skyvern import __version__, plugin
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.compat import since_3_0, since_3_1, since_3_3
from airflow_skyvern.compat.sdk import TaskDeferred
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.finished_runs.watermark import Watermark
from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.runs.key import RunKey, call_tag
from airflow_skyvern.runs.store import StartRecord, StartStore
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.task import deferral, pushed
from airflow_skyvern.task.login_code import SENT
from airflow_skyvern.triggers import SkyvernRunTrigger
from airflow_skyvern.triggers.login_code import SkyvernCodeTrigger, SkyvernLoginTrigger
from tests.support.stored_waits import Change, Memory, StoredTask, StoredWait, as_json
from tests.support.tasks import FakeTaskInstance, context_of
from tests.support.tasks import deferral as deferral_by

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.support.required_actions import RequiredActions

FOLDER = Path(__file__).parent / "stored_by"
RELEASED = sorted(path.stem for path in FOLDER.glob("*.json"))
RECORD = bool(os.environ.get("RECORD"))

CODE = "482913"
CANCEL = "/v1/runs/[^/]+/cancel"
MOMENTS = ("deadline", "until")
"""Names of what is a point in time: the recorded ones have passed."""

LATER: dict[str, Any] = {"of_a_later_version": {"some": ["thing"]}}
"""What nothing of this version knows."""


@dataclass(frozen=True)
class Scenario:
    """
    A task that waits.

    :param make: Prepares Skyvern and returns what makes the task.
    :param value: What the task returns.
    :param before_event: Does what a person does before the trigger ends.
    :param exists: Whether this Airflow has it.
    """

    make: Callable[[FakeSkyvern], Callable[[], Any]]
    value: Any
    before_event: Callable[[FakeSkyvern, Any, StoredWait], object] = lambda skyvern, actions, wait: None
    exists: bool = True


def _workflow_task(workflow_id: str, **more: Any) -> Callable[[], SkyvernRunWorkflowOperator]:
    given: dict[str, Any] = {"poll_interval": 0.01, "timeout": 30, "deferrable": True, **more}
    return lambda: SkyvernRunWorkflowOperator(task_id="t", workflow_id=workflow_id, **given)


def _plain(skyvern: FakeSkyvern, **more: Any) -> Callable[[], Any]:
    return _workflow_task(skyvern.workflow(output={"sum": 1}, plan=("running", "running", "completed")), **more)


def _paused(skyvern: FakeSkyvern) -> Callable[[], Any]:
    return _workflow_task(skyvern.workflow(output={"sum": 1}, plan=("running", "paused", "running", "completed")))


def _in_session(skyvern: FakeSkyvern) -> Callable[[], Any]:
    session, other = skyvern.session(), skyvern.workflows[skyvern.workflow(plan=("running", "running", "completed"))]
    skyvern._start(other, {}, {"workflow_id": other.workflow_id, "browser_session_id": session})
    return _plain(skyvern, browser_session_id=session)


def _asking(skyvern: FakeSkyvern) -> Callable[[], Any]:
    blocks = [{"label": "ask", "block_type": "human_interaction"}]
    plan = ("running", "paused", "running", "completed")
    return _workflow_task(skyvern.workflow(plan=plan, blocks=blocks, output={"sum": 1}), approval="airflow")


def _logging_in(skyvern: FakeSkyvern) -> Callable[[], Any]:
    login = {"label": "sign_in", "block_type": "login", "totp_identifier": "ops@example.com", "code": CODE}
    plan = (*["running"] * 99, "completed")
    return _workflow_task(skyvern.workflow(plan=plan, blocks=[login], output={"sum": 1}), code="airflow")


def _sensor(skyvern: FakeSkyvern, **more: Any) -> Callable[[], Any]:
    run_id = skyvern.run(plan=("running", "running", "completed"), output={"sum": 1})
    given: dict[str, Any] = {"poke_interval": 0.01, "timeout": 30, "deferrable": True, **more}
    return lambda: SkyvernRunSensor(task_id="t", run_id=run_id, **given)


def _post(skyvern: FakeSkyvern, path: str, body: Any = None) -> None:
    headers = {"x-api-key": skyvern.api_key}
    assert skyvern.handle(httpx.Request("POST", f"http://s{path}", json=body, headers=headers)).is_success


def _continues(skyvern: FakeSkyvern, _: Any, wait: StoredWait) -> None:
    if wait.trigger_kwargs["pause_known"]:
        _post(skyvern, f"/v1/workflows/runs/{wait.trigger_kwargs['run_id']}/continue")


def _approves(_: FakeSkyvern, actions: RequiredActions, wait: StoredWait) -> None:
    if wait.next_method == "approval_complete":
        actions.choose("Approve")


def _sends_code(skyvern: FakeSkyvern, actions: RequiredActions, wait: StoredWait) -> None:
    if wait.next_method != "code_complete":
        return
    [run_id] = skyvern.runs
    until = (datetime.now(timezone.utc) + timedelta(seconds=30)).isoformat()
    body = {"totp_identifier": "ops@example.com", "content": CODE, "workflow_run_id": run_id, "expired_at": until}
    _post(skyvern, "/v1/credentials/totp", body)
    actions.choose(SENT)


asks = since_3_1.has_required_actions()
SCENARIOS = {
    "wait": Scenario(_plain, {"sum": 1}),
    "wait with its blocks in the log": Scenario(lambda skyvern: _plain(skyvern, log_blocks=True), {"sum": 1}),
    "wait for a person": Scenario(_paused, {"sum": 1}, _continues),
    "wait for a browser session": Scenario(_in_session, {"sum": 1}),
    "approval": Scenario(_asking, {"sum": 1}, _approves, exists=asks),
    "login code": Scenario(_logging_in, {"sum": 1}, _sends_code, exists=asks),
    "sensor": Scenario(_sensor, {"sum": 1}),
    "sensor without a worker": Scenario(
        lambda skyvern: _sensor(skyvern, start_from_trigger=True),
        {"sum": 1},
        exists=since_3_3.renders_trigger_arguments(),
    ),
}
HERE = [name for name, scenario in SCENARIOS.items() if scenario.exists]


@pytest.fixture(params=HERE)
def scenario(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def required_actions(request: pytest.FixtureRequest) -> RequiredActions | None:
    return request.getfixturevalue("actions") if asks else None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and take a moment without an action for a wait for a code."""
    for trigger in (SkyvernLoginTrigger, SkyvernCodeTrigger):
        monkeypatch.setattr(trigger, "look_interval", 0.02)
    monkeypatch.setattr(SkyvernLoginTrigger, "quiet", 0.05)
    for task in (SkyvernRunWorkflowOperator, SkyvernRunSensor):
        monkeypatch.setattr(task, "trigger_failed_wait", 0.03)


class Run(Protocol):
    """See the fixture of that name."""

    def __call__(self, name: str, change: Change = ...) -> StoredTask: ...


@pytest.fixture
def run(skyvern: FakeSkyvern, required_actions: RequiredActions | None) -> Run:
    """Run a scenario to its end, with changes to what the database has, and check its value and its runs."""

    def run(name: str, change: Change = lambda _, wait: wait) -> StoredTask:
        scenario = SCENARIOS[name]
        make = scenario.make(skyvern)
        runs_before = len(skyvern.runs)

        def before_event(wait: StoredWait) -> None:
            scenario.before_event(skyvern, required_actions, wait)

        task = StoredTask(make, change, before_event, required_actions)
        assert task.run(_begun_by_airflow(make())) == scenario.value
        assert skyvern.sent("POST", CANCEL) == []
        assert len(skyvern.runs) - runs_before == (0 if name.startswith("sensor") else 1)
        return task

    return run


def _begun_by_airflow(task: Any) -> StoredWait | None:
    """Return the wait of a sensor that Airflow starts in the triggerer."""
    args = getattr(task, "start_trigger_args", None)
    if args is None:
        return None
    return StoredWait(args.trigger_cls, as_json(args.trigger_kwargs), args.next_method, {})


def _recorded(version: str) -> dict[str, Any]:
    file = FOLDER / f"{version}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _record(name: str, value: Any) -> None:
    found = {**_recorded(__version__), name: value}
    (FOLDER / f"{__version__}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


@pytest.mark.skipif(not RECORD, reason="only when it is asked for")
def test_record(run: Run, scenario: str) -> None:
    _record(scenario, run(scenario).recorded())
    _record("names", names())


def test_what_this_version_stores_is_recorded() -> None:
    assert __version__ in RELEASED, "RECORD=1 pytest tests/unit/upgrades -k test_record, on Airflow 3.3"


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASED)
def test_a_wait_that_an_older_version_has_stored_is_continued(run: Run, scenario: str, version: str) -> None:
    waits = _recorded(version)[scenario]["waits"]

    def older(number: int, wait: StoredWait) -> StoredWait:
        if number >= len(waits):
            return wait
        then = StoredWait(**waits[number])
        return replace(_now(then), event=wait.event and then.event)

    run(scenario, older)


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASED)
def test_an_older_version_finds_all_that_it_reads(run: Run, scenario: str, version: str) -> None:
    """It ignores what it does not know; so nothing may be renamed, left out, or become something else."""
    then, now = _recorded(version)[scenario], run(scenario).recorded()
    assert [*_missing(then, now)] == []


@pytest.mark.slow
def test_what_a_newer_version_has_stored_beside_is_ignored(run: Run, scenario: str) -> None:
    def newer(_: int, wait: StoredWait) -> StoredWait:
        return replace(
            wait,
            trigger_kwargs={**wait.trigger_kwargs, **LATER},
            next_kwargs=_with_later({**wait.next_kwargs, **LATER}),
            event=wait.event and {**wait.event, **LATER},
        )

    run(scenario, newer)


@pytest.mark.slow
def test_a_wait_that_a_newer_version_resumes_in_another_way_is_continued(run: Run, scenario: str) -> None:
    """The first one: the task is deferred again, in the way that this version knows."""
    task = run(scenario, lambda number, wait: replace(wait, next_method="of_a_later_version") if not number else wait)
    assert len(task.waits) >= 1


def test_a_newer_resumption_of_a_try_that_is_over_starts_over(skyvern: FakeSkyvern) -> None:
    """Airflow 3.0 resumes a retry with what the try before has stored."""
    task = _workflow_task(skyvern.workflow(plan=("failed",)))
    ti = FakeTaskInstance()
    ti.max_tries = 1
    stored = StoredWait.of(deferral_by(task(), ti))
    ti.try_number = 2
    skyvern.runs[stored.trigger_kwargs["run_id"]].look()
    with pytest.raises(TaskDeferred) as again:
        task().resume_execution("of_a_later_version", stored.next_kwargs, context_of(ti))
    assert StoredWait.of(again.value).trigger_kwargs["run_id"] != stored.trigger_kwargs["run_id"]


@pytest.mark.parametrize("name", ["wait", "sensor"])
def test_an_event_for_a_reason_that_a_newer_triggerer_has_is_no_end(run: Run, name: str) -> None:
    def newer(_: int, wait: StoredWait) -> StoredWait:
        return wait if wait.event is None else replace(wait, event={**wait.event, "reason": "of_a_later_version"})

    run(name, newer)


@pytest.mark.parametrize("name", ["wait", "sensor"])
def test_a_wait_whose_trigger_cannot_be_loaded_is_deferred_again(run: Run, name: str) -> None:
    """As where only the workers have a class that came with a newer version."""

    def failed(number: int, wait: StoredWait) -> StoredWait:
        if number or wait.event is None:
            return wait
        return replace(wait, next_method=deferral.FAILED, next_kwargs={"error": "Trigger failure"}, event=None)

    run(name, failed)


def test_an_argument_that_a_trigger_does_not_have_is_named_before_anything_waits() -> None:
    trigger = SkyvernRunTrigger("wr_1", "c", 10.0, 1.0, cancel_on_kil=True)
    with pytest.raises(SkyvernConfigError, match="SkyvernRunTrigger has no argument cancel_on_kil"):
        trigger.serialize()


@pytest.mark.skipif(not since_3_0.is_airflow_3(), reason="watchers came with Airflow 3")
def test_a_watcher_that_a_newer_dag_processor_has_stored_is_loaded() -> None:
    from airflow_skyvern.triggers import SkyvernWorkflowRunsTrigger

    _, kwargs = SkyvernWorkflowRunsTrigger("wpid_1").serialize()
    assert SkyvernWorkflowRunsTrigger(**kwargs, **LATER).workflow_id == "wpid_1"
    with pytest.raises(SkyvernConfigError, match="SkyvernWorkflowRunsTrigger has no argument pol_interval"):
        SkyvernWorkflowRunsTrigger("wpid_1", pol_interval=5).serialize()


@pytest.mark.parametrize("version", RELEASED)
def test_names_by_which_runs_are_found_again_are_the_same(version: str) -> None:
    """A retry after an upgrade that looked for another name would start a second run."""
    assert names() == _recorded(version)["names"]


def test_what_a_newer_version_notes_beside_is_ignored_where_pages_and_marks_read_it() -> None:
    note = deferral.note_of_run("wr_1", "c", "http://s/runs/wr_1", "group")
    known = pushed.KnownRun({}, {"deadline": 1.0, deferral.NOTE: {**note, **LATER}, **LATER})
    assert (known.run_id, known.skyvern_conn_id, known.app_url) == ("wr_1", "c", "http://s/runs/wr_1")


def test_what_a_newer_version_keeps_of_a_start_is_read() -> None:
    store = Memory(skyvern_run={"group": "g", "run_id": "wr_1", "done": True, "run_started": "", **LATER})
    assert StartStore(store).read("g") == StartRecord("g", "wr_1", done=True)


def test_a_watermark_of_a_newer_version_is_read() -> None:
    mark = Watermark(datetime(2026, 11, 1, tzinfo=timezone.utc), active=frozenset({"wr_1"}))
    assert Watermark.from_json({**mark.to_json(), **LATER}) == mark


def names() -> dict[str, Any]:
    """Return names that stand in Skyvern, in Airflow's database, and in bookmarks."""
    request = RunRequest(workflow_id="wpid_1", parameters={"vendor": "ACME", "month": "2026-10"})
    ids: dict[str, Any] = {"dag_id": "d", "run_id": "manual__1", "task_id": "t", "max_tries": 2, "request": request}
    more: dict[str, Any] = {"run_started": "2026-11-22T12:00:00+00:00", "run_created": "17", "airflow": "staging"}
    call = call_tag("agent", {"vendor": "ACME"}, 0)
    store = Memory()
    StartStore(store, "2026-11-22T12:00:00+00:00").started("group", "wr_1")
    StartStore(store, "2026-11-22T12:00:00+00:00", call).will_start("group")
    mark = Watermark(datetime(2026, 11, 1, tzinfo=timezone.utc), active=frozenset({"wr_1"}))
    found: dict[str, Any] = as_json(
        {
            "tags": RunKey.of(**ids, map_index=-1, **more).tags,
            "tags of a mapped task": RunKey.of(**ids, map_index=3).tags,
            "tags of a tool call": RunKey.of(**ids, map_index=-1, **more, call=call).tags,
            "task state": store,
            "watermark": mark.to_json(),
            "pages": [plugin.TASK_INSTANCE, plugin.DAG_RUN],
            "button": SkyvernRunLink.name,
        }
    )
    return found


def _now(then: StoredWait) -> StoredWait:
    """Move what was recorded to the present."""
    return replace(then, trigger_kwargs=_present(then.trigger_kwargs), next_kwargs=_present(then.next_kwargs))


def _present(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: time.time() + 60 if name in MOMENTS and found else _present(found) for name, found in value.items()}


def _with_later(value: Any) -> Any:
    """Add to each mapping what nothing of this version knows."""
    if not isinstance(value, Mapping):
        return value
    return {**{name: _with_later(found) for name, found in value.items()}, **LATER}


def _missing(then: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yield what was stored once and is not any more, or is something else."""
    if type(then) is not type(now):
        yield f"{place}: {now!r}, once {then!r}"
    elif isinstance(then, Mapping):
        for name, value in then.items():
            if name in now:
                yield from _missing(value, now[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is not stored any more"
    elif isinstance(then, list):
        for number, (value, current) in enumerate(zip(then, now, strict=False)):
            yield from _missing(value, current, f"{place}[{number}]")
    elif place.endswith((".trigger", ".next_method", ".reason")) and then != now:
        yield f"{place}: {now!r}, once {then!r}"
