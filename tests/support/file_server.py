"""A web server that is not Skyvern: it has files, remembers who asked, and cuts or lies when it is told to."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_skyvern.testing.serving import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers.items())))
        path = urlsplit(self.path).path
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("location", self.server.redirects[path])
            self.end_headers()
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[path]
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or "")
        start = int(found[1]) if found else 0
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(content) - start))
        if start:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class FileServer(LoopbackServer):
    """Serves files by path."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(_Handler)
        self.files = dict(files)
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.port = self.server_port
