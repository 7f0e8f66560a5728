"""Web servers that run in a thread of this process."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socketserver

    from typing_extensions import Self


def serve_in_thread(server: socketserver.BaseServer) -> None:
    """Serve until `shutdown()`, which takes effect within 20 ms and not within half a second."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class LoopbackServer(ThreadingHTTPServer):
    """
    Serves on a free port of 127.0.0.1 for as long as a ``with`` block lasts.

    :param handler: Answers the requests.
    """

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        serve_in_thread(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
