from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from airflow_skyvern.client.api import get_run_definition, list_block_rows
from airflow_skyvern.runs.block_log import BlockLog
from benchmarks import airflow_runs, latency_results
from benchmarks.apis import Request, apis, service_of
from benchmarks.contenders import CONTENDERS, OURS, chosen_by
from benchmarks.job_server import JobServer
from benchmarks.jobs import FIRST_ID, Jobs, StartedJobs
from benchmarks.plan import PHASES, Plan
from benchmarks.report import Markers, ratios, targets, warnings
from benchmarks.verdict import Result, result
from tests.support.log_lines import LogLines

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call

T = TypeVar("T")
PLAN = Plan("skyvern", waits=4, interval=5.0, steady=20.0, ends=30.0, ending=8, zero=1000.0)
PATHS = {
    "skyvern": ("/v1/runs/wr_{}", b"", "completed"),
    "dbt-cloud": ("/api/v2/accounts/1/runs/{}/", b"", '"is_complete": true'),
    "databricks": ("/api/2.2/jobs/runs/get", b'{"run_id": %d}', "result_state"),
    "airbyte": ("/v1/jobs/{}", b"", "succeeded"),
    "fivetran": ("/v1/connectors/connector_{}", b"", "2026-11-23"),
}


def good(plan: Plan = PLAN) -> tuple[dict[str, Any], dict[str, Any]]:
    """What server and loop see when everything is as it should be."""
    ticks = int(plan.steady / plan.interval)
    polls = [ticks] * plan.waits + [0] * (len(plan.jobs) - plan.waits)
    seen = {
        "requests": dict.fromkeys(PHASES, plan.waits * ticks),
        "connections": dict.fromkeys(PHASES, 2),
        "refused": {},
        "polls": dict.fromkeys(PHASES, polls),
        "server_cpu": dict.fromkeys(PHASES, 0.1),
        "machine_cpu": dict.fromkeys(PHASES, 0.5),
        "stolen_cpu": dict.fromkeys(PHASES, 0.0),
    }
    costs = {"cpu": 0.2, "seconds": 20.0, "stall": 0.01, "stall_cpu": 0.01, "collector": 0.0, "away": 0.3}
    ending = [number for number, job in enumerate(plan.jobs) if math.isfinite(job.ends)]
    observed = {
        "idle_mb": 130.0,
        "most_mb": 150.0,
        "latencies": {str(number): 0.1 * at for at, number in enumerate(ending)},
        "begun": plan.waits,
        "early": 0,
        "wrong": {},
        "strays": [],
        "phases": {phase: dict(costs) for phase in PHASES},
    }
    return seen, observed


def test_every_slot_is_taken_at_any_time() -> None:
    for moment in (0.0, 31.9, 33.0, 40.0, 47.0, 61.0):
        taken = sorted(job.slot for job in PLAN.jobs if job.born <= moment < job.ends)
        assert taken == [0, 1, 2, 3], moment


def test_ends_come_in_the_last_phase_and_leave_their_successors_time() -> None:
    ends = [job.ends for job in PLAN.jobs if math.isfinite(job.ends)]
    assert len(ends) == PLAN.ending
    assert all(32.0 <= moment <= 62.0 for moment in ends)
    assert {PLAN.phase(PLAN.zero + moment) for moment in ends} == {"ends"}
    assert all(job.ends - job.born > 10 for job in PLAN.jobs)
    for number, successor in PLAN.successors.items():
        assert PLAN.jobs[successor].born == PLAN.jobs[number].ends


def test_both_processes_have_the_same_plan() -> None:
    assert Plan.from_json(PLAN.to_json()).jobs == PLAN.jobs


def test_more_ends_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="4 slots can have 8 ends"):
        replace(PLAN, ending=9)


@pytest.mark.parametrize("name", PATHS)
def test_every_service_reports_an_end_when_it_has_come_and_names_the_job_that_was_polled(name: str) -> None:
    path, body, word = PATHS[name]
    jobs, api = Jobs(PLAN), apis()[name]
    path, body = path.format(FIRST_ID + 1), body % (FIRST_ID + 1) if body else body
    end = PLAN.zero + PLAN.jobs[1].ends
    before, after = (api(Request("GET", path, "", body, moment), jobs) for moment in (end - 0.01, end))
    assert service_of(path) == name
    assert (before.polled, after.polled) == ((1,), (1,))
    assert (word.encode() in before.body, word.encode() in after.body) == (False, True)


def test_a_list_shows_the_active_runs_page_by_page() -> None:
    plan = Plan("skyvern", waits=250, interval=5.0, steady=20.0, ends=30.0, ending=50, zero=1000.0)
    jobs, api = Jobs(plan), apis()["skyvern"]
    late = plan.boundaries[-1]
    queries = [f"page={page}&page_size=100&status=running" for page in (1, 2, 3)]
    pages = [api(Request("GET", "/v1/runs", query, b"", late), jobs) for query in queries]
    shown = [row["run_id"] for page in pages for row in json.loads(page.body)]
    active = [number for number, job in enumerate(plan.jobs) if job.ends == math.inf]
    assert sorted(shown) == [f"wr_{FIRST_ID + number}" for number in active]
    assert [number for page in pages for number in page.polled] == active[::-1]


def test_a_run_has_a_timeline_and_the_number_of_its_blocks() -> None:
    jobs, api = Jobs(PLAN), apis()["skyvern"]
    log = LogLines()
    blocks = BlockLog("wr_700000000", log)

    def fetched(call: Call[T]) -> T:
        answer = api(Request("GET", call.path, "", b"", PLAN.zero), jobs)
        assert (service_of(call.path), answer.polled) == ("skyvern", ())
        return call.parse(answer.body)

    blocks.set_total(fetched(get_run_definition(blocks.run_id)))
    rows = fetched(list_block_rows(blocks.run_id))
    blocks.update(rows)
    assert log.lines[-1] == "Skyvern run wr_700000000: block 5 of 5: block_4, running"


@pytest.mark.parametrize(
    ("query", "status"), [("page_size=101&status=running", 422), ("status=asleep", 422), ("tags=a:b", 501)]
)
def test_an_invalid_request_for_a_list_is_refused(query: str, status: int) -> None:
    answer = apis()["skyvern"](Request("GET", "/v1/runs", query, b"", PLAN.zero), Jobs(PLAN))
    assert (answer.status, answer.polled) == (status, ())


def test_a_sound_measurement_has_no_faults() -> None:
    found = result(PLAN, *good())
    assert found.faults == ()
    assert [found.cpu, found.requests, found.growth_mb, found.polls] == pytest.approx([0.6, 4.0, 20.0, 1.0])
    assert [found.latency(percent) for percent in (50, 95, 100)] == pytest.approx([0.3, 0.7, 0.7])


BREAKS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("stopped polling: 1 of 4 jobs", {"polls": {"steady": [4, 4, 4, 0]}}, {}),
    ("stopped polling: 4 of 4 jobs", {"polls": {"steady": [0, 0, 0, 0]}}, {}),
    ("polls more often than configured: 150%", {"polls": {"steady": [6, 6, 6, 6]}}, {}),
    ("the server refused 3 x GET /v1/runs: 422", {"refused": {"GET /v1/runs: 422": 3}}, {}),
    ("1 jobs were reported to have ended before they had", {}, {"early": 1}),
    ("2 x raised ValueError: no", {}, {"wrong": {"raised ValueError: no": 2}}),
    ("8 of 8 ends were not noticed in time", {}, {"latencies": {}}),
    ("tried to reach ('192.0.2.1', 443)", {}, {"strays": ["('192.0.2.1', 443)"]}),
]


@pytest.mark.parametrize(("fault", "seen", "observed"), BREAKS, ids=[fault for fault, _, _ in BREAKS])
def test_a_broken_trigger_never_passes(fault: str, seen: dict[str, Any], observed: dict[str, Any]) -> None:
    all_seen, all_observed = good()
    found = result(PLAN, all_seen | seen, all_observed | observed)
    assert len(found.faults) == 1
    assert found.faults[0].startswith(fault)


@pytest.mark.parametrize(("polls", "faults"), [(1, 0), (0, 1)])
def test_a_loop_that_is_never_idle_may_be_late_but_not_silent(polls: int, faults: int) -> None:
    seen, observed = good()
    observed["phases"]["steady"]["away"] = 19.9
    observed |= {"latencies": {"0": 3.0}, "begun": 3}
    found = result(PLAN, seen | {"polls": {"steady": [polls] * 4}}, observed)
    assert found.overloaded
    assert len(found.faults) == faults
    assert (found.missed, found.latency(5), found.latency(50)) == (7, 3.0, math.inf)
    said = warnings({("skyvern", 4): found})
    assert "cannot keep up with 4 waits" in said[0]
    assert "only 3 waits had begun" in said[0]


def of(name: str, waits: int, **more: Any) -> Result:
    return replace(result(PLAN, *good()), contender=name, waits=waits, **more)


def test_ratios_say_how_many_times_our_cost_a_peer_has() -> None:
    results = {(OURS, 10): of(OURS, 10, cpu=0.5), ("airbyte", 10): of("airbyte", 10, cpu=12.0, busy=0.95)}
    assert "| Airbyte | > 24 |" in ratios(results)
    assert "| Skyvern (this package) | 0.50 s/min |" in ratios(results)


def test_targets_are_compared_with_the_best_peer_that_keeps_up() -> None:
    results = {
        (OURS, 1000): of(OURS, 1000, cpu=0.5, requests=11.0, stall=0.06),
        ("airbyte", 1000): of("airbyte", 1000, cpu=1.0, busy=0.95),
        ("databricks", 1000): of("databricks", 1000, cpu=7.0),
    }
    found = {what.partition(": ")[2]: (measured, reached) for what, measured, reached in targets(results, 5.0)}
    assert found["at most a tenth of the best peer's CPU"] == ("0.071", True)
    assert found["at most 12 requests per tick"] == ("11.0", True)
    assert found["no stall above 50 ms"] == ("60 ms", False)


def test_a_page_is_written_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin x -->\nold\n<!-- end x -->\nafter\n")
    for text in ("first", "second"):
        Markers(page, "x").put(text)
    assert page.read_text() == "before\n<!-- begin x -->\n\nsecond\n\n<!-- end x -->\nafter\n"
    with pytest.raises(ValueError, match="begin y"):
        Markers(page, "y").put("text")


def test_each_contender_has_an_api_and_a_name_of_its_own() -> None:
    assert {one.name for one in CONTENDERS} == set(apis()) == set(PATHS)
    assert len({one.label for one in CONTENDERS}) == len(CONTENDERS)


def deferred_runs(**more: Any) -> airflow_runs.Found:
    """Ten deferred runs of which the first and the sixth are terminated, as planned."""
    found = airflow_runs.Found(
        seconds=60,
        took=100.0,
        deferred=10,
        states=["failed" if number % 5 == 0 else "success" for number in range(10)],
        without_output=[],
        ends=(Counter(completed=8), Counter(terminated=2)),
        empty=[1.0, 2.0],
        visits=[*[(2.0, "deferred")] * 10, *[(1.0, "success")] * 8, *[(3.0, "failed")] * 2],
        requests=Counter(
            {"POST /v1/run/workflows": 10, "GET /v1/runs?page=…&status=…": 20, "GET /v1/runs/{run_id}": 20}
        ),
    )
    return replace(found, **more)


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("1 tasks did not end as their run did: [0]", {"states": ["success"] * 5 + ["failed"] + ["success"] * 4}),
    ("tasks without the output of their run: [3]", {"without_output": [3]}),
    ("not one run per task: [{'completed': 9}", {"ends": (Counter(completed=9), Counter(terminated=2))}),
    ("only 9 tasks were deferred at once", {"deferred": 9}),
    ("not one visit to defer and one to end per task: {'deferred': 10}", {"visits": [(2.0, "deferred")] * 10}),
    ("waiting took 101 requests, more than 100", {"requests": Counter({"GET /v1/runs/{run_id}": 101})}),
]


@pytest.mark.parametrize(("fault", "more"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_deferred_runs_that_went_wrong_never_pass(fault: str, more: dict[str, Any]) -> None:
    assert airflow_runs.faults(deferred_runs()) == []
    found = airflow_runs.faults(deferred_runs(**more))
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_deferred_runs_are_reported_with_worker_seconds_and_requests() -> None:
    said = airflow_runs.text(deferred_runs())
    assert "| **both visits of a run** | **3.40 s** |" in said
    assert "| `GET /v1/runs/{run_id}` | 20 | 2.00 |" in said
    assert "send 120 requests in that time" in said


STARTS = {
    "skyvern": ("/v1/run/workflows", b'{"workflow_id": "wpid_600000000000000001", "run_metadata": {"key": "7"}}'),
    "dbt-cloud": ("/api/v2/accounts/1/jobs/4/run/", b"{}"),
    "databricks": ("/api/2.2/jobs/runs/submit", b"{}"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_started_job_runs_until_it_is_ended(name: str) -> None:
    start, sent = STARTS[name]
    poll, body, word = PATHS[name]
    jobs, api = StartedJobs(), apis()[name]
    started = [api(Request("POST", start, "", sent, 1000.0), jobs) for _ in range(2)]
    jobs.end(1, 1010.0)
    poll, body = poll.format(FIRST_ID + 1), body % (FIRST_ID + 1) if body else body
    before, after = (api(Request("GET", poll, "", body, moment), jobs) for moment in (1009.9, 1010.0))
    assert str(FIRST_ID + 1) in started[1].body.decode()
    assert service_of(start) == name
    assert (word.encode() in before.body, word.encode() in after.body) == (False, True)
    assert api(Request("POST", start, "", sent, PLAN.zero), Jobs(PLAN)).status == 404, "a plan has all its jobs"


def test_started_runs_are_found_by_tag() -> None:
    jobs, api = StartedJobs(), apis()["skyvern"]
    for key in ("7", "8"):
        body = STARTS["skyvern"][1].replace(b"7", key.encode())
        api(Request("POST", "/v1/run/workflows", "", body, 1000.0), jobs)
    listed = api(Request("GET", "/v1/runs", "status=running&tags=key:8", b"", 1001.0), jobs)
    assert [row["run_id"] for row in json.loads(listed.body)] == [f"wr_{FIRST_ID + 1}"]


def test_a_hook_of_databricks_may_send_the_id_in_the_query() -> None:
    answer = apis()["databricks"](
        Request("GET", "/api/2.2/jobs/runs/get", f"run_id={FIRST_ID}", b"", 1000.0), Jobs(PLAN)
    )
    assert (answer.status, answer.polled) == (200, (0,))


def test_an_end_is_noticed_with_the_first_answer_that_shows_it(tmp_path: Path) -> None:
    server = JobServer(["skyvern"], tmp_path)
    run = f"/v1/runs/wr_{FIRST_ID}"
    server.answer(Request("POST", "/v1/run/workflows", "", STARTS["skyvern"][1], 1000.0), first=True)
    server.jobs["skyvern"].end(0, 1010.0)
    for moment, path, query in (
        (1009.0, run, ""),
        (1011.0, "/v1/runs", "status=running"),
        (1012.0, run, ""),
        (1013.0, run, ""),
    ):
        server.answer(Request("GET", path, query, b"", moment), first=False)
    assert (server.noticed, server.refused) == ({("skyvern", 0): 1012.0}, {})
    assert server.answer(Request("GET", "/v1/jobs/1", "", b"", 1000.0), first=True).status == 404
    assert server.refused == {"GET /v1/jobs/1?: 404": 1}


def pair(number: int, **more: Any) -> latency_results.Pair:
    """A job that ended, was noticed 2 s later, and whose next task started 2 s after that."""
    made = latency_results.Pair(
        job=f"wr_{number}",
        states=("success", "success"),
        ended=1000.0 + number,
        noticed=1002.0 + number,
        task_ended=1003.5 + number,
        next_started=1004.0 + number,
        visits={"deferred": 1.25, "success": 0.75},
        cpu=[1.0, 0.5],
        empty=(0.25, 0.125),
    )
    return replace(made, **more)


def latency_faults(*pairs: latency_results.Pair, started: int = 2) -> list[str]:
    return latency_results.faults([latency_results.Group("skyvern", "same", pairs)], {"skyvern": started}, {})


LATENCY_FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("skyvern_same: 1 jobs have succeeded and their tasks are ('failed', None)", {"states": ("failed", None)}),
    ("skyvern_same: jobs that nobody saw end, or whose tasks did not follow: ['wr_1']", {"noticed": math.nan}),
    ("skyvern_same: jobs that nobody saw end, or whose tasks did not follow: ['wr_1']", {"noticed": 1000.0}),
    (
        "skyvern_same: jobs whose task had not one visit to defer and one to end: ['wr_1']",
        {"cpu": [0.5]},
    ),
    ("skyvern: 1 tasks have a job of their own and 2 jobs were started, of 2", {"job": "wr_0"}),
]


@pytest.mark.parametrize(("fault", "more"), LATENCY_FAULTS)
def test_a_latency_is_not_reported_if_anything_went_wrong(fault: str, more: dict[str, Any]) -> None:
    assert latency_faults(pair(0), pair(1)) == []
    assert latency_faults(pair(0), pair(1, **more)) == [fault]


def test_a_job_without_a_task_and_a_refused_request_are_faults() -> None:
    assert latency_faults(pair(0), pair(1), started=3)[0].endswith(
        "2 tasks have a job of their own and 3 jobs were started, of 2"
    )
    assert latency_results.faults([], {}, {"GET /x?: 404": 2}) == ["the server refused 2 x GET /x?: 404"]


def test_the_latency_is_reported_with_its_parts_and_the_worker_seconds() -> None:
    group = latency_results.Group("skyvern", "default", [pair(0), pair(1), pair(2, next_started=1009.0)])
    assert group.percentile(50, lambda one: one.latency) == 4.0
    row = "10 s | **4.0 / 7.0 s** | 2.0 s | 1.5 s | 0.5 s | 2.00 s | 1.50 s | 0.25 / 0.12 s |"
    assert f"| Skyvern (this package) | {row}" in latency_results.tables([group])


def test_peers_are_chosen_by_name() -> None:
    assert [one.name for one in chosen_by("airbyte")] == [OURS, "airbyte"]
    assert [one.name for one in chosen_by("none")] == [OURS]
    assert chosen_by(None) == list(CONTENDERS)
    with pytest.raises(SystemExit, match="no nobody; there are databricks"):
        chosen_by("nobody")
