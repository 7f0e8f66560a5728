"""The fake behind a real loopback connection, so that hooks and tasks need only an Airflow connection."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import httpx

from airflow_skyvern.testing.serving import LoopbackServer

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer: two would wait for each other's acknowledgement for 40 ms
    disable_nagle_algorithm = True
    server: Loopback

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        request = httpx.Request(
            self.command,
            self.path if self.path.startswith("http://") else f"{self.server.url}{self.path}",  # a proxy gets it all
            headers=list(self.headers.items()),
            content=self.rfile.read(length),
        )
        try:
            answer = self.server.fake.handle(request)
        except httpx.HTTPError:
            self.close_connection = True  # an answer that is lost: hang up without a word
            return
        self.send_response_only(answer.status_code)
        self.send_header("date", answer.headers.get("date") or self.date_time_string())
        for name, value in answer.headers.items():
            if name not in ("content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  the standard library's names

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Loopback(LoopbackServer):
    """Serves whichever fake it holds."""

    request_queue_size = 100
    fake: FakeSkyvern

    def __init__(self) -> None:
        super().__init__(_Handler)
