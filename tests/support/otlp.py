"""A collector of traces on loopback: what an OTLP exporter sends it, by HTTP."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from airflow_skyvern.testing.serving import LoopbackServer


@dataclass(frozen=True)
class Span:
    """A span as it was sent; its times in seconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begun: float
    ended: float
    attributes: dict[str, Any]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.receive(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Print nothing."""


class Collector(LoopbackServer):
    """Start with ``with Collector() as collector:``; ``env`` is what Airflow's processes need to send their spans."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    @property
    def env(self) -> dict[str, str]:
        return {
            "AIRFLOW__TRACES__OTEL_ON": "True",
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{self.url}/v1/traces",
        }

    def receive(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = [
            _span(one) for resource in request.resource_spans for scope in resource.scope_spans for one in scope.spans
        ]
        with self._lock:
            self._spans += found

    def of_trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, the earliest first."""
        with self._lock:
            return sorted((span for span in self._spans if span.trace_id == trace_id), key=lambda span: span.begun)


def _span(sent: Any) -> Span:
    values = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in sent.attributes}
    return Span(
        sent.name,
        sent.trace_id.hex(),
        sent.span_id.hex(),
        sent.parent_span_id.hex(),
        sent.start_time_unix_nano / 1e9,
        sent.end_time_unix_nano / 1e9,
        values,
    )
