"""Web servers that run in a thread of this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socketserver


def serve_in_thread(server: socketserver.BaseServer) -> None:
    """Serve until `shutdown()`, which takes effect within 20 ms and not within half a second."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
