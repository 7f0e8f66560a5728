"""Asks a connection and its server, and makes a finding of each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_skyvern.checks import server
from airflow_skyvern.checks.finding import AFTER_THE_KEY, AFTER_THE_SERVER, OF_A_CONNECTION, Finding
from airflow_skyvern.client import api, check_api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.versions import BEFORE_VERSIONS, GET_VERSION, PROBE, version_of_server
from airflow_skyvern.compat import since_3_0, since_3_3, teams
from airflow_skyvern.exceptions import SkyvernConnectionError, SkyvernError
from airflow_skyvern.hooks import settings_of

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings

T = TypeVar("T")

ONCE = RetryPolicy(attempts=1)
LONGEST_WEBHOOK = 70.0
"""Seconds: Skyvern gives a receiver sixty."""

NO_KEY = "none"
"""Sent in place of the key to an address that is not Skyvern's API."""


@dataclass(frozen=True)
class Webhooks:
    """
    Where this Airflow takes webhooks.

    :param connections: The connections whose webhooks it takes.
    :param address: What the address of the receiver begins with; empty if this Airflow has none of its own.
    :param given: The receiver's whole address, if it was given.
    """

    connections: frozenset[str]
    address: str
    given: str | None = None

    def of(self, conn_id: str) -> str | None:
        """Return the receiver's address for a connection; None if there is none."""
        if self.given:
            return self.given
        return f"{self.address.rstrip('/')}/skyvern/webhooks/{conn_id}" if self.address else None


def check_connection(conn_id: str, wanted: frozenset[str], webhooks: Webhooks) -> Iterator[Finding]:
    """
    Yield what is found out about a connection.

    :param wanted: The checks to make.
    """
    if not wanted & OF_A_CONNECTION.keys():
        return
    try:
        settings = settings_of(teams.read_connection(conn_id))
    except Exception as error:  # noqa: BLE001  a secrets backend may raise anything
        yield server.no_connection(error).of(conn_id)
        return
    try:
        found = list(_ConnectionCheck(conn_id, settings, webhooks).findings(wanted))
    except SkyvernError as error:  # the proxy or the certificates of this machine cannot be used
        found = [server.no_connection(error)]
    yield from (finding.of(conn_id) for finding in found if finding.check in wanted or finding.state == "problem")


class _ConnectionCheck:
    def __init__(self, conn_id: str, settings: Settings, webhooks: Webhooks) -> None:
        self._conn_id = conn_id
        self._settings = settings
        self._webhooks = webhooks

    def findings(self, wanted: frozenset[str]) -> Iterator[Finding]:
        """Yield the lines; without a server there is no key to check, and without a key nothing else."""
        yield server.connection(self._settings)
        if wanted == {"connection"}:
            return
        with SkyvernClient(self._settings, retry=ONCE) as client:
            version = client.ask(version_of_server())
            if isinstance(version, SkyvernError):
                only_https = self._speaks_https(version)
                said = server.only_https(self._settings) if only_https else server.no_server(version)
                yield from (said, *map(server.not_asked, AFTER_THE_SERVER))
                return
            yield from (server.server(version), _clock(client, GET_VERSION if version != BEFORE_VERSIONS else PROBE))
            if refusal := error_of(lambda: client.send(api.probe())):
                yield from (server.no_key(refusal), *map(server.not_asked, AFTER_THE_KEY))
                return
            yield from (server.key(), server.version(version))
            for check, ask in (("tags", self._tags), ("ui", self._page), ("webhooks", self._webhook)):
                if check in wanted:
                    yield ask(client)

    def _speaks_https(self, error: SkyvernError) -> bool:
        """Ask with TLS, and without the key, where a server hangs up on plain http."""
        base_url = self._settings.base_url
        if not (isinstance(error, SkyvernConnectionError) and error.hung_up and base_url.startswith("http://")):
            return False
        elsewhere = replace(self._settings, base_url=server.with_https(base_url), api_key=NO_KEY, verify=False)
        return not isinstance(error_of(lambda: _send_once(elsewhere, api.get_version())), SkyvernConnectionError)

    def _tags(self, client: SkyvernClient) -> Finding:
        """Request the tags of a run that does not exist: a server without tags has no such endpoint, or says so."""
        try:
            client.send(api.get_run_tags(["wr_0"]))
        except SkyvernError as error:
            return server.no_tags(error, has_task_state=since_3_3.renders_trigger_arguments())
        return server.tags()

    def _page(self, client: SkyvernClient) -> Finding:
        try:
            newest = client.send(check_api.newest_run())
            address = client.send(api.get_run_snapshot(newest[0].run_id)).app_url if newest else None
        except SkyvernError as error:
            return server.no_page_known(str(error))
        address = address or self._settings.app_url
        if address is None:
            return server.no_page_known("there is no run yet, and the connection has no app_url")
        if not server.is_address(address):
            return server.no_page(address)
        return server.page(address, self._settings.base_url, self._opened(address))

    def _opened(self, address: str) -> SkyvernError | None:
        """Open a page without the key: the address may be anybody's."""
        elsewhere = replace(self._settings, base_url=address, api_key=NO_KEY, proxy=None)
        return error_of(lambda: _send_once(elsewhere, check_api.open_page()))

    def _webhook(self, client: SkyvernClient) -> Finding:
        if not since_3_0.is_airflow_3():
            return Finding("webhooks", "ok", "Airflow 2.11 takes none.")
        if self._conn_id not in self._webhooks.connections and not self._webhooks.given:
            fact = "Off: [skyvern] webhook_connections does not name this connection."
            return Finding("webhooks", "ok", fact)
        address = self._webhooks.of(self._conn_id)
        if address is None:
            return Finding(
                "webhooks",
                "problem",
                "This Airflow has no address to which Skyvern could send webhooks.",
                "Set [api] base_url, or give the outer address of the receiver: --webhook-url.",
            )
        patient = replace(client.settings, timeout=max(client.settings.timeout, LONGEST_WEBHOOK))
        try:
            return server.webhooks(address, _send_once(patient, check_api.send_test_webhook(address)))
        except SkyvernError as error:
            return server.no_webhook_test(error)


def _clock(client: SkyvernClient, call: Call[Any]) -> Finding:
    """Compare the server's clock with this machine's at the same moment: half a request after it was sent."""
    sent = datetime.now(timezone.utc)
    try:
        with client.stream(call) as incoming:
            return server.clock(incoming.sent_at, sent + (datetime.now(timezone.utc) - sent) / 2)
    except SkyvernError as error:
        return server.no_clock(error)


def _send_once(settings: Settings, call: Call[T]) -> T:
    with SkyvernClient(settings, retry=ONCE) as client:
        return client.send(call)


def error_of(ask: Callable[[], Any]) -> SkyvernError | None:
    """Return the error that something raises, if it does."""
    try:
        ask()
    except SkyvernError as error:
        return error
    return None
