"""Where the Skyvern server is and how to reach it, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from airflow_skyvern.client.environment import trust_of

DEFAULT_BASE_URL = "https://api.skyvern.com"
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_ANSWER_BYTES = 256 * 2**20
CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True)
class Settings:
    """
    Where the server is and how to talk to it.

    :param timeout: Seconds to wait for an answer.
    :param proxy: Address of a proxy; None for what the environment says.
    :param verify: True, False, or the path of a file with certificates to trust.
    :param app_url: Address of Skyvern's web UI; None for the one that the server gives.
    :param max_answer_bytes: The largest answer that is read, decompressed; the answer for a run holds its output.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True
    max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES
    app_url: str | None = None

    @property
    def connect_timeout(self) -> float:
        """Seconds to wait for a connection: a server that is there accepts it at once."""
        return min(CONNECT_TIMEOUT, self.timeout)

    def run_page(self, address: str | None) -> str | None:
        """Return the address of a run's page in Skyvern's UI as people reach it; a server may know only its own."""
        start = address.find("/runs/") if address else -1
        return address if self.app_url is None or address is None or start < 0 else self.app_url + address[start:]

    @property
    def exposes_key(self) -> bool:
        """Whether the key would travel unencrypted over a network."""
        url = urlsplit(self.base_url)
        return url.scheme == "http" and url.hostname not in {"localhost", "127.0.0.1", "::1"}

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What identifies these settings, including the version of the certificates file."""
        return self, trust_of(self.verify)

    def within(self, seconds: float) -> Settings:
        """Return the same settings for a request that has only so many seconds."""
        return replace(self, timeout=min(self.timeout, seconds))
