"""The verdict and the plan of `make faults`: a suite that cannot see a fault would be green for ever."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_skyvern.runs.prompt_workflow import Shape
from airflow_skyvern.workflow_files.checks import check
from airflow_skyvern.workflow_files.text import read
from dev.fault_proxy import Answer, Exchange, FaultProxy
from tests.faults.catalogue import FAULTS, GATEWAY, Fault, Hook
from tests.faults.driver import Driver, Execution, TaskRow
from tests.faults.kinds import kind_of, made_twice, without_browser, write_file
from tests.faults.run import Limits, is_left, named, plan, plan_of_each
from tests.faults.verdict import Counts, ServerRun, judge
from tests.faults.witness import Statement

RUN = ServerRun("wr_1", "completed", "000", "4", 10.0, {"n": 1}, 110.0, 100.0)
DEADLINE = 80.0


def execution(fault: Fault | None = None, state: str = "success", **more: Any) -> Execution:
    heartbeat_lost = more.pop("heartbeat_lost", False)
    outages = cast("Any", SimpleNamespace(outages=more.pop("outages", [])))
    driver = cast(
        "Any",
        SimpleNamespace(
            in_background=lambda work: work.close(),
            heartbeat_lost=lambda _: heartbeat_lost,
            was_away=partial(Driver.was_away, outages),
            seconds_there=partial(Driver.seconds_there, outages),
        ),
    )
    fault = fault or Fault("none")
    one = Execution("000", fault.ways[0], fault, Random(1), driver, row=TaskRow(state, 1, 4))
    for name, value in more.items():
        setattr(one, name, value)
    return one


def counts(one: Execution, *runs: ServerRun, value: Any = None) -> Counts:
    xcom = ("wr_1", {"n": 1} if value is None else value)
    [finding] = judge([one], runs, lambda _: xcom, DEADLINE)
    return finding.counts


def test_a_task_with_one_run_and_its_result_has_nothing_wrong() -> None:
    assert counts(execution(), RUN).bad == 0


@pytest.mark.parametrize(
    ("began", "twins"), [(105.0, 1), (109.9, 1), (110.0, 0), (130.0, 0)], ids=["beside", "just", "then", "later"]
)
def test_a_run_that_began_while_another_of_its_group_was_active_is_a_twin(began: float, twins: int) -> None:
    other = replace(RUN, run_id="wr_2", status="failed", began=began, ended=began + 5)
    assert counts(execution(), RUN, other).twins == twins


@pytest.mark.parametrize(
    ("outages", "duplicates"),
    [([], 1), ([(95.0, 150.0)], 0), ([(95.0, 120.0), (110.0, 141.0), (150.0, 170.0)], 0), ([(95.0, 130.0)], 1)],
)
def test_a_gateways_run_that_nobody_could_find_is_no_duplicate(
    outages: list[tuple[float, float]], duplicates: int
) -> None:
    other = replace(RUN, run_id="wr_2", by_gateway=True, began=100.0, ended=150.0)
    assert counts(execution(outages=outages), RUN, other).duplicates == duplicates
    own = replace(other, by_gateway=False)
    assert counts(execution(outages=outages), RUN, own).duplicates == 1


@pytest.mark.parametrize(
    ("deleted", "events", "may"),
    [(104.0, ["triggerer SIGTERM"], True), (104.0, [], False), (120.0, ["triggerer SIGTERM"], False)],
)
def test_a_deleted_dag_may_leave_its_run_only_while_no_triggerer_waits(
    deleted: float, events: list[str], *, may: bool
) -> None:
    one = execution(
        marked="delete_dag", marked_while="deferred", deferred=100.0, clicked=deleted, events=events, way="own"
    )
    driver = cast("Any", SimpleNamespace(executions={one.name: one}, airflow=SimpleNamespace(is_3=True)))
    assert (one.name in Limits.of(driver).may) is may


@pytest.mark.parametrize(
    ("way", "status", "left"),
    [
        ("worker", "running", True),
        ("worker", "failed", False),
        ("reschedule", "running", False),
        (None, "paused", True),
    ],
)
def test_the_witness_is_asked_for_the_runs_that_tasks_have_started(
    way: str | None, status: str, *, left: bool
) -> None:
    executions = {} if way is None else {"000": execution(way=way)}
    driver = cast("Any", SimpleNamespace(executions=executions))
    assert is_left(driver, replace(RUN, status=status)) is left


@pytest.mark.parametrize(
    ("state", "marked", "left"),
    [("deferred", "remove_file", False), ("scheduled", "remove_file", True), ("deferred", None, True)],
)
def test_a_run_is_not_left_while_a_trigger_waits_for_it_whose_dag_file_was_removed(
    state: str, marked: str | None, *, left: bool
) -> None:
    one = execution(state=state, way="own", marked=marked)
    driver = cast("Any", SimpleNamespace(executions={"000": one}))
    assert is_left(driver, replace(RUN, status="running")) is left


@pytest.mark.parametrize(
    ("number", "outage", "failures"), [(1, (100.0, 140.0), 0), (1, (102.0, 140.0), 1), (2, (100.0, 140.0), 1)]
)
def test_a_sensor_fails_rightly_where_it_has_met_nothing_but_a_refused_key(
    number: int, outage: tuple[float, float], failures: int
) -> None:
    row = TaskRow("failed", number, 4)
    one = execution(way="reschedule", outages=[outage], row=row, tries={number: 101.0}, since=102.0)
    assert (counts(one, RUN).false_failures, counts(one, RUN).gave_up) == (failures, 1 - failures)


def test_a_run_of_another_group_or_item_is_no_twin() -> None:
    cleared = replace(RUN, run_id="wr_2", status="failed", group="9", began=105.0)
    assert counts(execution(), RUN, cleared).twins == 0
    assert counts(execution(), RUN, replace(cleared, group="4", item="B")).twins == 0


def test_a_run_that_never_ended_has_all_later_ones_as_twins() -> None:
    active = replace(RUN, run_id="wr_0", status="running", began=10.0, ended=None, seconds=None)
    found = counts(execution(), active, RUN)
    assert (found.left, found.duplicates, found.twins) == (1, 1, 1)


def test_a_run_that_the_gateway_made_is_no_twin_and_may_be_canceled_but_not_left() -> None:
    made = replace(RUN, run_id="wr_2", status="canceled", began=101.0, by_gateway=True)
    assert counts(execution(), RUN, made).bad == 0
    assert counts(execution(), RUN, replace(made, status="running", ended=None, seconds=None)).left == 1


def test_of_two_runs_of_one_start_either_may_be_canceled() -> None:
    own = replace(RUN, run_id="wr_2", status="canceled", began=100.0, ended=108.0, seconds=8.0)
    made = replace(RUN, began=101.0, ended=120.0, by_gateway=True)
    assert counts(execution(), own, made).needless_cancels == 0
    assert counts(execution(), own, replace(made, ended=107.0)).needless_cancels == 1


def test_a_cancel_before_the_deadline_is_needless_unless_a_user_touched_the_task() -> None:
    canceled = replace(RUN, run_id="wr_0", status="canceled", began=10.0, ended=20.0)
    assert counts(execution(), canceled, RUN).needless_cancels == 1
    assert counts(execution(cleared=True), canceled, RUN).needless_cancels == 0


def test_a_cancel_at_the_deadline_is_needless_where_the_next_try_should_have_taken_over() -> None:
    canceled = replace(RUN, run_id="wr_0", status="canceled", began=10.0, ended=91.0, seconds=81.0)
    assert counts(execution(), canceled, RUN).needless_cancels == 0
    stalled = Fault("stalled", patient=True)
    assert counts(execution(stalled), canceled, RUN).needless_cancels == 1
    assert counts(execution(stalled, struck=20.0, tries={1: 9.0}), canceled, RUN).needless_cancels == 1
    assert counts(execution(stalled, struck=20.0, tries={1: 9.0, 2: 60.0}), canceled, RUN).needless_cancels == 1


def test_a_later_try_may_reach_its_own_deadline() -> None:
    canceled = replace(RUN, run_id="wr_0", status="canceled", began=10.0, ended=145.0, seconds=135.0)
    stalled = Fault("stalled", patient=True)
    assert counts(execution(stalled, struck=20.0, tries={1: 9.0, 2: 60.0}), canceled, RUN).needless_cancels == 0


def test_a_task_that_failed_although_its_run_completed_failed_falsely_unless_airflow_had_lost_it() -> None:
    assert counts(execution(state="failed"), RUN).false_failures == 1
    assert counts(execution(state="failed", heartbeat_lost=True), RUN).false_failures == 0


def test_a_cancel_of_a_completed_run_is_needless() -> None:
    assert counts(execution(), replace(RUN, cancel_requested=True)).needless_cancels == 1


def test_what_airflow_gives_up_needs_no_result_but_must_leave_nothing() -> None:
    abandoned = Fault("DAG deleted", ways=("own",), abandoned=True)
    active = replace(RUN, status="running", ended=None, seconds=None)
    assert counts(execution(abandoned, "removed"), replace(RUN, status="canceled")).bad == 0
    assert counts(execution(abandoned, "removed"), active).bad == 1


def of_items(**values: str) -> dict[str, Any]:
    return {item: {"echo_output": {"body": {"got": {"item": value}}}} for item, value in values.items()}


def test_items_of_one_task_have_a_run_and_a_result_each() -> None:
    nested = execution(Fault("nested", ways=("nested",)))
    runs = [replace(RUN, run_id=f"wr_{item}", item=item, began=100.0 + n) for n, item in enumerate("ABC")]
    assert counts(nested, *runs, value=of_items(A="A", B="B", C="C")).bad == 0
    assert counts(nested, *runs, value=of_items(A="C", B="C", C="C")).lost == 2
    assert counts(nested, runs[0], value=of_items(A="A", B="A", C="A")).lost == 4  # two values, and two runs missing
    again = replace(runs[0], run_id="wr_D", began=200.0)
    assert counts(nested, *runs, again, value=of_items(A="A", B="B", C="C")).duplicates == 1


def test_a_task_that_refuses_to_run_items_has_no_run() -> None:
    assert counts(execution(Fault("nested", ways=("nested",)), "failed")).bad == 0


def test_what_was_made_twice_is_seen() -> None:
    once = [("faults file a", ["1", "2"]), ("faults file b", ["1"]), ("Airflow prompt", ["None"])]
    assert made_twice(once) == []
    assert made_twice([*once, ("Airflow prompt", ["None"])]) == ["2 workflows 'Airflow prompt'"]
    assert made_twice([("faults file a", ["1", "2", "1"])]) == ["2 versions '1' of 'faults file a'"]


def test_the_value_of_a_prompt_is_what_its_block_returns() -> None:
    run = replace(RUN, output={"task_output": {"n": 1}, "extracted_information": []})
    assert counts(execution(what="prompt"), run).bad == 0
    assert counts(execution(what="prompt"), run, value={"n": 2}).lost == 1
    assert counts(execution(what="file"), run).lost == 1


def test_kinds_are_dealt_in_turn_and_only_where_a_fault_and_a_way_know_them() -> None:
    update = next(fault for fault in FAULTS if fault.line == "update, road")
    assert [kind_of(number, "worker", Fault("none")) for number in range(4)] == [
        "workflow",
        "file",
        "prompt",
        "workflow",
    ]
    assert {kind_of(number, "deferred", update) for number in range(4)} == {"file"}
    assert kind_of(1, "own", Fault("none")) == "workflow"


def test_files_are_shared_with_the_same_content_or_another_one(tmp_path: Path) -> None:
    plain, create, update = (
        next(fault for fault in FAULTS if fault.line == line) for line in ("none", "create, road", "update, road")
    )
    given = [(0, plain), (2, plain), (4, update), (6, plain), (1, plain), (3, create)]
    files = [read(write_file(tmp_path, number, fault, 10)) for number, fault in given]
    assert [file.name for file in files] == ["shared_0.yaml"] * 4 + ["shared_1.yaml", "own_3.yaml"]
    assert [check(file, keys=True) for file in files] == [[]] * 6
    assert files[0].digest == files[1].digest
    assert len({file.digest for file in files[1:4]}) == 3


def test_a_prompt_keeps_all_but_its_browser() -> None:
    definition = Shape().definition
    request = {"json_definition": definition}
    made = json.loads(without_browser(json.dumps(request).encode()))["json_definition"]
    (block,) = made["workflow_definition"].pop("blocks")
    assert (block["block_type"], block["label"], block["url"]) == ("http_request", "task", "{{ url }}")
    assert made["workflow_definition"]["parameters"] == definition["workflow_definition"].pop("parameters")
    other = json.dumps({"json_definition": {"title": "faults file a"}}).encode()
    assert without_browser(other) == other


def test_every_line_of_the_table_comes_before_one_comes_again() -> None:
    lines = {fault.line for fault in FAULTS}
    dealt = plan(200, Random(21), "")
    assert len(dealt) == 200
    assert {fault.line for _, fault in dealt} == lines


def test_a_session_that_is_open_in_the_end_is_bad() -> None:
    assert counts(execution(open_sessions=["pbs_1", "pbs_2"]), RUN).sessions_open == 2
    assert counts(execution(open_sessions=["pbs_1"], marked="mark_failed", state="failed")).bad == 1
    assert counts(execution(Fault("DAG run timed out", abandoned=True), open_sessions=["pbs_1"])).bad == 1


def test_a_run_with_the_credential_of_another_name_is_bad_and_so_is_any_where_two_have_the_name() -> None:
    own = replace(RUN, login="cred_1")
    assert counts(execution(credential="cred_1"), own).bad == 0
    assert counts(execution(credential="cred_1"), replace(own, login="cred_2")).wrong_logins == 1
    assert counts(execution(), own).wrong_logins == 1


def opened(*, answered: bool, killed: bool = False, server: Answer | None = None) -> FaultProxy:
    """Return a proxy through which a task has opened a session."""
    proxy = FaultProxy("http://127.0.0.1:1", "key", nothing_handled)
    writer = cast("Any", SimpleNamespace(write=lambda _: None, drain=partial(asyncio.sleep, 0)))
    head = ("POST", "/v1/browser_sessions", {"x-execution": "000"})
    exchange = Exchange(proxy, writer, head, b"")
    proxy._classify(exchange)
    given = Answer(200, b'{"browser_session_id": "pbs_1"}')
    proxy.learn(exchange, given)
    if answered:
        asyncio.run(exchange.reply(server or given))
    if killed:
        exchange.was_for_nobody()
    return proxy


async def nothing_handled(_: Any) -> None:
    """Leave every request to the server."""


@pytest.mark.parametrize(
    ("how", "known"),
    [
        ({"answered": True}, ["pbs_1"]),
        ({"answered": False}, []),
        ({"answered": True, "killed": True}, []),
        ({"answered": True, "server": Answer(502, b"<html>")}, []),
    ],
    ids=["answered", "lost", "killed", "by a gateway"],
)
def test_a_session_counts_if_the_task_that_opened_it_was_told_of_it(how: Any, known: list[str]) -> None:
    rows = [{"browser_session_id": "pbs_1"}, {"browser_session_id": "pbs_of_nobody"}]
    server = SimpleNamespace(request=lambda *_: (200, rows))
    one = execution()
    driver = cast("Any", SimpleNamespace(skyvern=server, proxy=opened(**how), executions={"000": one}))
    assert Driver.find_open_sessions(driver) == sorted({"pbs_1", "pbs_of_nobody"} - set(known))
    assert one.open_sessions == known


def test_two_suites_of_one_seed_are_the_same() -> None:
    assert plan(50, Random(7), "") == plan(50, Random(7), "")


def test_each_fault_comes_as_often_as_wanted_in_each_of_its_ways() -> None:
    dealt = plan_of_each(10, Random(1), "stalled before the start")
    ways = [way for way, fault in dealt if fault.name == "stalled before the start"]
    assert sorted(ways) == ["deferred"] * 10 + ["worker"] * 10


def test_parts_of_names_are_separated_by_bars() -> None:
    assert named("SIGTERM at resumption, ended, task", "A, B, C|SIGTERM at")
    assert not named("none", "A, B, C|SIGTERM at")
    assert named("none", "")


def test_names_are_unique_and_every_answer_of_a_gateway_comes_in_every_place() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    places = {fault.line for fault in FAULTS if fault.line.startswith("gateway, ")}
    assert len(places) == 13
    for place in places:
        answers = {fault.name.rsplit(": ", 1)[1] for fault in FAULTS if fault.line == place}
        assert answers == set(GATEWAY)


def test_the_witness_tells_orphans_from_runs_that_are_left_alone() -> None:
    rows = [
        {"run_id": "wr_1", "orphan": True, "reason": "its task is failed", "action": "canceled"},
        {"run_id": "wr_2", "orphan": False, "reason": "its task is running", "action": None},
    ]
    said = Statement.of(rows)
    assert said.orphans == {"wr_1": "its task is failed"}
    assert said.others == {"wr_2": "its task is running"}
    assert said.canceled == {"wr_1"}


def request(kind: str, number: int = 1, *, of_task: bool = True) -> Any:
    return SimpleNamespace(kind=kind, number=number, of_task=of_task, run_id="wr_1")


def struck(one: Execution, *requests: Any) -> list[str]:
    """Return the requests that the execution's effect had."""
    had: list[str] = []

    async def effect(exchange: Any, scene: Any) -> bool:
        had.append(f"{exchange.kind} {exchange.number}")
        return True

    one.left = [(replace(hook, effect=effect), times) for hook, times in one.left]

    async def send() -> None:
        for exchange in requests:
            await one.on_request(exchange)

    asyncio.run(send())
    return had


async def nothing(exchange: Any, scene: Any) -> bool:
    return False


def test_a_fault_of_some_seconds_is_of_every_later_request_but_a_start() -> None:
    one = execution(Fault("gateway", (Hook("get", nothing, after=1, seconds=(25.0, 30.0)),)))
    had = struck(one, request("find"), request("get"), request("get", 2), request("find", 2), request("start"))
    assert had == ["get 2", "find 2"]
    one.until = {0: 0.0}  # the seconds are over
    assert struck(one, request("get", 3), request("find", 3)) == []


def test_a_fault_of_some_seconds_at_a_start_is_of_starts_too() -> None:
    one = execution(Fault("gateway", (Hook("start", nothing, seconds=(25.0, 30.0)),)))
    assert struck(one, request("get"), request("start"), request("find"), request("start", 2)) == [
        "start 1",
        "find 1",
        "start 2",
    ]


def test_a_fault_of_one_request_is_of_one() -> None:
    one = execution(Fault("gateway", (Hook("get", nothing, after=1),)))
    assert struck(one, request("get"), request("get", 2), request("get", 3)) == ["get 2"]


def test_orders_are_noted_and_what_stands_still_goes_on_once_the_retry_has_acted(tmp_path: Path) -> None:
    one = execution(Fault("stalled", orders={"send.start": "stop"}))
    cast("Any", one.driver).orders = tmp_path
    one.order()
    assert (tmp_path / "000.send.start").read_text() == "stop"
    (tmp_path / "000.send.start.done").write_text("999999998 999999999")  # no such processes
    one.look_at_orders()
    assert (one.busy, one.hits) == (1, 1)
    one.look_at_orders()
    assert one.busy == 1
    stopped, _ = one.stalls["send.start"]
    one.stalls["send.start"] = (stopped - 10, [999999998, 999999999])
    one.acted = stopped - 5
    one.look_at_orders()
    assert one.busy == 0
    assert "woken" in one.journal[-1]
