"""The spans that tasks add to the trace of Airflow, read from an exporter in memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from airflow_skyvern import traces
from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernRunFailed, SkyvernWaitTimeout
from airflow_skyvern.limits import MOST_METADATA
from airflow_skyvern.operators import SkyvernRunPromptOperator
from airflow_skyvern.runs.key import OUR_TAGS, TRACE_TAG
from tests.support.run_workflow_tasks import execute, extracted, make, try_number
from tests.support.tasks import FakeTaskInstance, context_of, deferral, first_event, rebuilt, resumed, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import Connect

PAGE = Path(__file__).parents[2] / "docs" / "traces.md"
SECRET = "s3cr3t-W4rd"
TIMELINE = "/v1/runs/wr_[^/]+/timeline"
BLOCKS = [
    {
        "label": "sign_in",
        "block_type": "login",
        "duration": 12.5,
        "output": SECRET,
        "failure_reason": SECRET,
        "actions": [{"action_type": "input_text", "text": SECRET}],
    },
    {
        "label": "each",
        "block_type": "for_loop",
        "duration": 3.0,
        "children": [
            {"label": "fetch", "block_type": "wait", "duration": 1.0, "current_index": index} for index in (0, 1)
        ],
    },
]
RETRY = {"retries": 2}


class Airflow:
    """The trace of a DAG run: each visit of a worker has a span in it, as since Airflow 3.2."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self._tracer = provider.get_tracer("airflow")
        self._exporter = exporter
        self.carrier: dict[str, str] = {}
        with self._tracer.start_as_current_span("task_run.t"):
            TraceContextTextMapPropagator().inject(self.carrier)

    @contextmanager
    def worker(self) -> Iterator[None]:
        parent = TraceContextTextMapPropagator().extract(self.carrier)
        with self._tracer.start_as_current_span("worker.t", context=parent):
            yield

    @property
    def spans(self) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name != "task_run.t"]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    def path(self, span: ReadableSpan) -> list[str]:
        """Return the names of the spans that a span is within, outermost first, and its own."""
        above = [
            one for one in self._exporter.get_finished_spans() if span.parent and id_of(one) == id_of(span.parent)
        ]
        return [*(self.path(above[0]) if above else []), span.name]


def id_of(span: Any) -> int:
    context = span if hasattr(span, "span_id") else span.context
    return int(context.span_id)


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def use(monkeypatch: pytest.MonkeyPatch, *processors: SpanProcessor, **options: Any) -> TracerProvider:
    """Let a process have traces; OpenTelemetry itself allows that once only."""
    provider = TracerProvider(shutdown_on_exit=False, **options)
    for processor in processors:
        provider.add_span_processor(processor)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    exporter = InMemorySpanExporter()
    return Airflow(use(monkeypatch, SimpleSpanProcessor(exporter)), exporter)


async def _event(trigger: Any) -> Any:
    return await first_event(rebuilt(trigger))


async def deferred_and_resumed(airflow: Airflow, make_task: Callable[[], Any], ti: FakeTaskInstance) -> Any:
    """Execute a task as two processes do, each with its own span, and a triggerer in between."""
    with airflow.worker():
        deferred = deferral(make_task(), ti)
    event = await _event(deferred.trigger)
    with airflow.worker():
        return resumed(make_task(), deferred, event, context_of(ti))


def in_files(skyvern: FakeSkyvern, tmp_path: Path) -> Callable[[], Any]:
    workflow = skyvern.workflow(plan=("running", "completed"), blocks=BLOCKS, artifacts={"a.pdf": b"1234"})
    return lambda: make(workflow, deferrable=True, files_to=str(tmp_path))


async def test_a_deferred_task_is_in_one_trace_from_its_start_over_its_blocks_to_its_files(
    skyvern: FakeSkyvern, airflow: Airflow, tmp_path: Path
) -> None:
    await deferred_and_resumed(airflow, in_files(skyvern, tmp_path), FakeTaskInstance())
    assert len({span.context.trace_id for span in airflow.spans if span.context}) == 1
    start, run = ["task_run.t", "worker.t", "skyvern.start"], "skyvern.run"
    assert [airflow.path(span) for span in airflow.spans] == [
        start,
        start[:-1],
        [*start, run, "skyvern.block.sign_in"],
        [*start, run, "skyvern.block.each"],
        [*start, run, "skyvern.block.each", "skyvern.block.fetch"],
        [*start, run, "skyvern.block.each", "skyvern.block.fetch"],
        [*start, run],
        [*start[:-1], "skyvern.files"],
        start[:-1],
    ]


async def test_the_spans_of_run_and_blocks_have_the_times_of_skyvern(
    skyvern: FakeSkyvern, airflow: Airflow, tmp_path: Path
) -> None:
    await deferred_and_resumed(airflow, in_files(skyvern, tmp_path), FakeTaskInstance())
    [run] = skyvern.runs.values()
    assert airflow.only("skyvern.run").start_time == int(run.created_at.timestamp() * 1e9)
    assert seconds(airflow.only("skyvern.block.sign_in")) == pytest.approx(12.5)
    assert seconds(airflow.only("skyvern.block.each")) == pytest.approx(3)


async def test_the_attributes_name_run_workflow_status_blocks_and_files_and_hold_no_secret(
    skyvern: FakeSkyvern, airflow: Airflow, tmp_path: Path
) -> None:
    workflow = skyvern.workflow(
        blocks=BLOCKS, output={"a": SECRET}, artifacts={"a.pdf": b"1234"}, parameters={"password": "string"}
    )
    parameters = {"password": SECRET}
    await deferred_and_resumed(
        airflow,
        lambda: make(workflow, deferrable=True, parameters=parameters, files_to=str(tmp_path)),
        FakeTaskInstance(),
    )
    [run_id] = skyvern.runs
    ids = {"skyvern.run_id": run_id, "skyvern.workflow_id": workflow}
    assert about(airflow.only("skyvern.start")) == {**ids, "skyvern.resumed": False}
    link = {"skyvern.app_url": f"http://localhost:8080/runs/{run_id}"}
    told = about(airflow.only("skyvern.run"))
    assert {name: told[name] for name in (*ids, *link, "skyvern.run.status")} == {
        **ids,
        **link,
        "skyvern.run.status": "completed",
    }
    assert about(airflow.named("skyvern.block.fetch")[1]) == {
        "skyvern.block.label": "fetch",
        "skyvern.block.type": "wait",
        "skyvern.block.status": "completed",
        "skyvern.block.iteration": 2,
        "skyvern.run.attempt": 1,
    }
    files = {"skyvern.run_id": run_id, "skyvern.files.count": 1, "skyvern.files.size": 4}
    assert about(airflow.only("skyvern.files")) == files
    assert SECRET not in "".join(span.to_json() for span in airflow.spans)


def test_a_failed_run_is_an_error_in_the_trace_without_its_reason(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    blocks = [{"label": "sign_in", "block_type": "login", "duration": 1.0, "status": "failed"}]
    workflow = skyvern.workflow(plan=("failed",), failure_reason=f"wrong password {SECRET}", blocks=blocks)
    with airflow.worker(), pytest.raises(SkyvernRunFailed):
        run_task(lambda: make(workflow))
    for name in ("skyvern.run", "skyvern.block.sign_in"):
        status = airflow.only(name).status
        assert (status.status_code, status.description) == (StatusCode.ERROR, "failed")
    assert SECRET not in airflow.only("skyvern.run").to_json() + airflow.only("skyvern.block.sign_in").to_json()


def test_a_failed_start_is_an_error_named_by_its_type(
    skyvern: FakeSkyvern, airflow: Airflow, connect: Connect
) -> None:
    connect(password=SECRET)
    with airflow.worker(), pytest.raises(AirflowFailException):
        execute(make(skyvern.workflow(), check_parameters=False))
    start = airflow.only("skyvern.start")
    assert (start.status.status_code, start.status.description) == (StatusCode.ERROR, "SkyvernAuthError")
    assert about(start) == {"error.type": "SkyvernAuthError"}
    assert SECRET not in start.to_json()


def test_a_run_that_is_canceled_at_the_deadline_is_in_the_trace(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    blocks = [{"label": "read", "block_type": "wait", "status": "running"}]
    workflow = skyvern.workflow(plan=("running",), blocks=blocks)
    with airflow.worker(), pytest.raises(SkyvernWaitTimeout):
        run_task(lambda: make(workflow, timeout=0.05))
    run, block = airflow.only("skyvern.run"), airflow.only("skyvern.block.read")
    assert run.status.description == "canceled"
    assert block.end_time == run.end_time


async def test_a_prompt_is_in_one_trace_too_and_is_in_no_attribute(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    skyvern.created_output = extracted({"answer": SECRET})
    prompt = f"Log in with {SECRET}"
    await deferred_and_resumed(
        airflow,
        lambda: SkyvernRunPromptOperator(
            task_id="t", prompt=prompt, url="https://portal.example.com", poll_interval=0.01, deferrable=True
        ),
        FakeTaskInstance(),
    )
    [run] = skyvern.runs.values()
    ids = {"skyvern.run_id": run.run_id, "skyvern.workflow_id": run.workflow.workflow_id}
    for name in ("skyvern.start", "skyvern.run"):
        assert about(airflow.only(name)).items() >= ids.items()
    assert TRACE_TAG in run.tags
    assert SECRET not in "".join(span.to_json() for span in airflow.spans)


def test_the_run_has_the_position_of_its_start_as_a_tag(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    with airflow.worker():
        deferral(make(skyvern.workflow(), deferrable=True))
    [run] = skyvern.runs.values()
    context = airflow.only("skyvern.start").context
    assert context is not None
    position = f"00-{context.trace_id:032x}-{context.span_id:016x}-"
    assert run.tags[TRACE_TAG].rpartition("-")[0] + "-" == position


def test_a_retry_resumes_the_run_in_the_same_trace_and_leaves_its_tag(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"))
    with airflow.worker():
        deferral(make(workflow, deferrable=True, **RETRY), try_number(1))
    [run] = skyvern.runs.values()
    tag = run.tags[TRACE_TAG]
    with airflow.worker():
        run_task(lambda: make(workflow, **RETRY), try_number(2))
    assert list(skyvern.runs.values()) == [run]
    assert run.tags[TRACE_TAG] == tag
    first, second = airflow.named("skyvern.start")
    assert [about(start)["skyvern.resumed"] for start in (first, second)] == [False, True]
    assert first.context is not None
    assert second.context is not None
    assert first.context.trace_id == second.context.trace_id
    parent = airflow.only("skyvern.run").parent
    assert parent is not None
    assert id_of(parent) == id_of(second)


def test_a_mapped_task_resumes_its_run_though_each_try_has_another_position(
    skyvern: FakeSkyvern, airflow: Airflow
) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), parameters={"name": "string"})
    for number in (1, 2):
        ti = FakeTaskInstance(map_index=3)
        ti.try_number, ti.max_tries = number, 2
        with airflow.worker():
            deferral(make(workflow, deferrable=True, parameters={"name": "a"}, **RETRY), ti)
    assert len(skyvern.runs) == 1


@pytest.mark.parametrize(
    ("given", "tag"),
    [
        ({TRACE_TAG: "mine"}, "mine"),
        ({f"k{number}": "v" for number in range(MOST_METADATA - len(OUR_TAGS))}, None),
    ],
    ids=["the author has this tag", "the author uses all tags"],
)
def test_the_tags_of_the_author_come_first(
    skyvern: FakeSkyvern, airflow: Airflow, given: dict[str, str], tag: str | None
) -> None:
    with airflow.worker():
        run_task(lambda: make(skyvern.workflow(), run_options={"run_metadata": given}))
    [run] = skyvern.runs.values()
    assert run.tags.get(TRACE_TAG) == tag
    assert run.tags.items() >= given.items()


def test_only_a_traced_run_costs_a_request(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    run_task(lambda: make(skyvern.workflow()))
    assert skyvern.sent("GET", TIMELINE) == []
    with airflow.worker():
        run_task(lambda: make(skyvern.workflow()))
    assert len(skyvern.sent("GET", TIMELINE)) == 1


def test_a_timeline_that_is_refused_leaves_the_run_in_the_trace(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    skyvern.next("GET", TIMELINE, httpx.Response(500))
    with airflow.worker():
        run_task(lambda: make(skyvern.workflow()))
    assert airflow.only("skyvern.run").status.status_code is StatusCode.UNSET


def test_a_run_of_thousands_of_blocks_has_some_hundred_spans(skyvern: FakeSkyvern, airflow: Airflow) -> None:
    blocks = [{"label": f"b{number}", "block_type": "wait"} for number in range(traces.MOST_BLOCKS + 1)]
    with airflow.worker():
        run_task(lambda: make(skyvern.workflow(blocks=blocks)))
    assert len([span for span in airflow.spans if span.name.startswith(traces.BLOCK)]) == traces.MOST_BLOCKS


def test_with_traces_off_nothing_is_sent_or_stored(skyvern: FakeSkyvern) -> None:
    deferred = deferral(make(skyvern.workflow(), deferrable=True))
    [run] = skyvern.runs.values()
    assert TRACE_TAG not in run.tags
    assert deferred.kwargs is not None
    assert TRACE_TAG not in deferred.kwargs["skyvern"]


def test_a_trace_that_is_not_sampled_is_as_one_that_is_off(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    airflow = Airflow(use(monkeypatch, SimpleSpanProcessor(exporter), sampler=ALWAYS_OFF), exporter)
    with airflow.worker():
        run_task(lambda: make(skyvern.workflow()))
    [run] = skyvern.runs.values()
    assert TRACE_TAG not in run.tags
    assert skyvern.sent("GET", TIMELINE) == []


def test_a_span_that_a_process_has_inherited_from_the_scheduler_is_none_of_the_task(skyvern: FakeSkyvern) -> None:
    """Airflow below 3.2 does not give its tracer to others."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Airflow(provider, exporter).worker():
        run_task(lambda: make(skyvern.workflow()))
    [run] = skyvern.runs.values()
    assert TRACE_TAG not in run.tags
    assert skyvern.sent("GET", TIMELINE) == []


class Broken(SpanProcessor):
    """Fails at the begin or the end of each span of ours."""

    def __init__(self, *, at_begin: bool) -> None:
        self._at_begin = at_begin

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self._fail(span, now=self._at_begin)

    def on_end(self, span: Any) -> None:
        self._fail(span, now=not self._at_begin)

    def _fail(self, span: Any, *, now: bool) -> None:
        if now and span.name.startswith("skyvern."):
            raise RuntimeError("the collector is on fire")


@pytest.mark.parametrize("at_begin", [True, False])
def test_a_tracer_that_fails_fails_no_task(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, at_begin: bool
) -> None:
    airflow = Airflow(use(monkeypatch, Broken(at_begin=at_begin)), InMemorySpanExporter())
    workflow = skyvern.workflow(output={"sum": 1}, artifacts={"a.pdf": b"1234"})
    with airflow.worker():
        assert run_task(lambda: make(workflow, files_to=str(tmp_path))) == {"sum": 1}
    assert (tmp_path / "a.pdf").read_bytes() == b"1234"


def test_a_dag_file_that_is_parsed_does_not_load_opentelemetry_for_us() -> None:
    code = (
        "import sys; from airflow_skyvern import traces; print([name for name in sys.modules if 'telemetry' in name])"
    )
    done: Sequence[str] = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert done == ["[]"]


async def test_the_page_about_traces_names_each_span_and_attribute(
    skyvern: FakeSkyvern, airflow: Airflow, tmp_path: Path
) -> None:
    await deferred_and_resumed(airflow, in_files(skyvern, tmp_path), FakeTaskInstance())
    documented = set(re.findall(r"`((?:skyvern|error)\.[^`]+)`", PAGE.read_text()))
    ours = [span for span in airflow.spans if span.name.startswith("skyvern.")]
    names = {re.sub(r"(block)\..*", r"\1.<label>", span.name) for span in ours}
    assert {*names, *(name for span in ours for name in about(span))} <= documented
