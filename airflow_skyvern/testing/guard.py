"""No connection leaves this machine while a test runs."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


class CallLeavesTheTest(RuntimeError):
    """
    A connection that a test would have made to another machine.

    It is not an :class:`OSError`, so nothing takes it for a network that is down and tries again.
    """


class Guard:
    """
    Refuses connections from this process to other machines, and the search for their addresses.

    :param monkeypatch: The test's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allowed: set[str] = set()
        self.refused: list[str] = []
        self._here = {"", "localhost", socket.gethostname(), socket.getfqdn()}
        for name in ("connect", "connect_ex"):
            monkeypatch.setattr(socket.socket, name, self._guarded(getattr(socket.socket, name)))
        monkeypatch.setattr(socket, "getaddrinfo", self._guarded_search(socket.getaddrinfo))

    def _guarded(self, connect: Any) -> Any:
        def guarded(connection: socket.socket, address: Any) -> Any:
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                self._check(address[0])
            return connect(connection, address)

        return guarded

    def _guarded_search(self, search: Any) -> Any:
        def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host or ""
            self._check(name)
            found = search(host, *args, **kwargs)
            if name in self.allowed:
                self.allowed.update(address[0] for *_, address in found)
            return found

        return guarded

    def _check(self, host: str) -> None:
        if host in self._here or host in self.allowed or _is_loopback(host):
            return
        self.refused.append(f"a connection to {host}")
        raise CallLeavesTheTest(
            f"The test would have connected to {host}. Where that is wanted: skyvern.allow_host({host!r})."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
