"""
The spans that a task adds to Airflow's own traces: the start of its run, the run with its blocks, storing its files.

docs/traces.md explains each. They are written within a span that is being recorded, as Airflow's span of the task is
while its traces are on; otherwise nothing happens. No error leaves this module: a run is worth more than its trace.
No attribute holds a parameter, an output, a message or an answer, as any of them may hold secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from airflow_skyvern.client.sender import SkyvernClient
    from airflow_skyvern.models import Run, TimelineRow

log = logging.getLogger(__name__)

START = "skyvern.start"
RUN = "skyvern.run"
BLOCK = "skyvern.block"
FILES = "skyvern.files"

RUN_ID = "skyvern.run_id"
WORKFLOW_ID = "skyvern.workflow_id"

MOST_BLOCKS = 500
"""Blocks of a run that get a span: OpenTelemetry drops spans when about 2,000 wait to be sent."""

LONGEST_LABEL = 80

Attributes = Mapping[str, str | int | bool | None]


@contextmanager
def step(name: str, attributes: Attributes = MappingProxyType({})) -> Iterator[None]:
    """Record a step of the task as a span, which is the current one meanwhile; of an error, its type is recorded."""
    with ExitStack() as stack:
        with _harmless():
            _enter_span(name, attributes, stack)
        try:
            yield
        except Exception as error:
            _note_error(error)
            raise


def note(attributes: Attributes) -> None:
    """Add attributes to the current step."""
    with _harmless():
        from opentelemetry.trace import get_current_span

        if _is_recorded():
            get_current_span().set_attributes(_known(attributes))


def traceparent() -> str | None:
    """Return the name of the current step as the W3C defines it for other services; None with traces off."""
    carrier: dict[str, str] = {}
    with _harmless():
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if _is_recorded():
            TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def run_ended(run: Run, workflow_id: str, start: str | None, make_client: Callable[[], SkyvernClient | None]) -> None:
    """
    Write the spans of a run that has ended, and of its blocks, with the times that Skyvern reports.

    That takes a request for the blocks, which is sent once.

    :param start: The ``traceparent`` of the run's start, perhaps in another process. Default: the current span.
    :param make_client: Creates a client for a few seconds; None if there is no connection yet.
    """
    with _harmless():
        if _is_recorded() and run.is_final and run.created_at is not None:
            _write_run(run, run.created_at, workflow_id, start, make_client)


def _enter_span(name: str, attributes: Attributes, stack: ExitStack) -> None:
    from opentelemetry.trace import use_span

    if _is_recorded():
        span = _tracer().start_span(name, attributes=_known(attributes))
        stack.callback(_end, span)
        stack.enter_context(use_span(span, record_exception=False, set_status_on_exception=False))


def _end(span: Span) -> None:
    with _harmless():
        span.end()


def _note_error(error: Exception) -> None:
    """Name the type of an error; its message may hold what nobody should read in a trace."""
    with _harmless():
        from opentelemetry.trace import get_current_span

        if _is_recorded():
            _fail(get_current_span(), type(error).__name__)
    note({"error.type": type(error).__name__})


def _write_run(
    run: Run,
    created_at: datetime,
    workflow_id: str,
    start: str | None,
    make_client: Callable[[], SkyvernClient | None],
) -> None:
    from opentelemetry.trace import set_span_in_context

    ended = run.finished_at or datetime.now(timezone.utc)
    span = _tracer().start_span(RUN, _context_of(start), start_time=_nanoseconds(created_at))
    try:
        span.set_attributes(_known(_about_run(run, workflow_id)))
        if run.started_at is not None:
            span.add_event("skyvern.run.started", timestamp=_nanoseconds(run.started_at))
        if not run.succeeded:
            _fail(span, run.status)
        _write_blocks(_timeline_of(run, make_client), set_span_in_context(span), ended)
    finally:
        span.end(_nanoseconds(ended))


def _about_run(run: Run, workflow_id: str) -> Attributes:
    return {
        RUN_ID: run.run_id,
        WORKFLOW_ID: (run.run_request or {}).get("workflow_id") or workflow_id,
        "skyvern.run.status": run.status,
        "skyvern.run.steps": run.step_count,
        "skyvern.run.attempt": run.attempt,
        "skyvern.app_url": run.app_url,
    }


def _timeline_of(run: Run, make_client: Callable[[], SkyvernClient | None]) -> Sequence[TimelineRow]:
    """Return the run's blocks; none if Skyvern does not list them, or not within a few seconds."""
    from airflow_skyvern.client import api
    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.runs.blocks import has_blocks

    client = make_client() if has_blocks(run.run_id) else None
    if client is None:
        return []
    with client:
        try:
            found: list[TimelineRow] = client.send(api.list_block_rows(run.run_id))
        except SkyvernError as error:
            log.debug("The blocks of run %s are missing in its trace: %s", run.run_id, error)
            return []
    return found


def _write_blocks(timeline: Sequence[TimelineRow], run: Context, run_ended: datetime) -> None:
    """Write a span for each block, within that of its loop or of the run."""
    from airflow_skyvern.runs.blocks import rows_of

    tracer, parents = _tracer(), [run]
    for row, depth in islice(rows_of(timeline), MOST_BLOCKS):
        parents[depth + 1 :] = [_write_block(tracer, row, parents[depth], run_ended)]


def _write_block(tracer: Tracer, row: TimelineRow, parent: Context, run_ended: datetime) -> Context:
    """Write the span of a block, if it is one whose times are known; return the parent of what is in it."""
    from opentelemetry.trace import set_span_in_context

    from airflow_skyvern.exceptions import shorten
    from airflow_skyvern.runs.blocks import FAILED, times_of

    block = row.get("block")
    if block is None or (times := times_of(block, run_ended)) is None:
        return parent
    begun, ended = times
    label, status, index = block.get("label"), block.get("status"), block.get("current_index")
    name = shorten(label or block["block_type"], LONGEST_LABEL)
    about: Attributes = {
        "skyvern.block.label": name if label else None,
        "skyvern.block.type": block["block_type"],
        "skyvern.block.status": status,
        "skyvern.block.iteration": None if index is None else index + 1,
        "skyvern.run.attempt": row.get("attempt"),
    }
    span = tracer.start_span(f"{BLOCK}.{name}", parent, attributes=_known(about), start_time=_nanoseconds(begun))
    if status in FAILED:
        _fail(span, status)
    span.end(_nanoseconds(ended))
    return set_span_in_context(span)


def _is_recorded() -> bool:
    """
    Return whether the current span is recorded, and one of ours would be, too.

    Airflow below 3.2 has a tracer of its own, and a process that its scheduler forks inherits the span of its loop.
    """
    from opentelemetry.trace import ProxyTracerProvider, get_current_span, get_tracer_provider

    return get_current_span().is_recording() and not isinstance(get_tracer_provider(), ProxyTracerProvider)


def _tracer() -> Tracer:
    from opentelemetry.trace import get_tracer

    return get_tracer("airflow_skyvern")


def _context_of(start: str | None) -> Context:
    from opentelemetry.context import get_current
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if start is None else {"traceparent": start}
    return TraceContextTextMapPropagator().extract(carrier, get_current())


def _fail(span: Span, why: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, why))


def _known(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception:  # whatever a tracer, a processor or an exporter raises
        log.debug("A span could not be written", exc_info=True)
