"""One line of the check: a fact, and what to do where it is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["ok", "warning", "problem", "unknown"]


@dataclass(frozen=True)
class Finding:
    """
    What was found out about one thing.

    :param check: What was checked: one of :data:`CHECKS`.
    :param state: ``problem``: something does not work. ``warning``: it works, and may surprise. ``unknown``: it could
        not be found out.
    :param fact: What is so.
    :param fix: What to do about it; empty where nothing is wrong.
    :param conn_id: The connection that it is about; None for a finding about this Airflow.
    """

    check: str
    state: State
    fact: str
    fix: str = ""
    conn_id: str | None = None

    def of(self, conn_id: str) -> Finding:
        """Return the same as a finding about a connection."""
        return replace(self, conn_id=conn_id)

    def as_row(self) -> dict[str, str | None]:
        """Describe it by column, for a table or JSON."""
        return {
            "connection": self.conn_id,
            "check": self.check,
            "state": self.state,
            "fact": self.fact,
            "fix": self.fix or None,
        }


OF_A_CONNECTION = {
    "connection": "the connection is there and complete, and sends the key encrypted",
    "server": "a Skyvern answers at its base URL",
    "key": "Skyvern accepts its API key",
    "version": "what this version of Skyvern cannot do",
    "clock": "the clocks of Skyvern and of this machine agree",
    "tags": "runs have tags, by which a retry finds the run of an earlier try",
    "ui": "people reach the page of a run in Skyvern's UI",
    "webhooks": "Skyvern reaches the receiver of webhooks in Airflow, and has its key",
}
OF_AIRFLOW = {
    "provider": "Airflow has discovered the provider",
    "plugin": "Airflow has loaded its plugin",
    "triggerer": "a triggerer is alive, for deferred tasks",
    "base_url": "Airflow has its own address, for links and to distinguish its runs from other installations' runs",
    "stores": "what connections to object stores need is installed",
    "airflow": "what this version of Airflow can and cannot do",
}
CHECKS = {**OF_A_CONNECTION, **OF_AIRFLOW}
"""What is checked, in the order of the lines."""

AFTER_THE_KEY = ("version", "tags", "ui", "webhooks")
"""What needs a server that accepts the key."""

AFTER_THE_SERVER = ("clock", "key", *AFTER_THE_KEY)
"""What needs a server."""
