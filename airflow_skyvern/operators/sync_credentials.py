"""Make credentials in Skyvern from Airflow's connections, and rotate them when these change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernSyncError
from airflow_skyvern.task.arguments import is_dynamic
from airflow_skyvern.task.base import SHORTEST_SECRET, ChecksArguments, UsesConnection, check_untemplated
from airflow_skyvern.task.endings import errors_for_airflow

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.credentials.sync import Outcome
    from airflow_skyvern.credentials.wanted import Wanted


class SkyvernSyncCredentialsOperator(ChecksArguments, UsesConnection):
    """
    Make credentials in Skyvern from Airflow's connections, and rotate them when these have changed.

    Login and password of each connection, of any type and from any secrets backend, become a credential named by its
    id. An unchanged connection leaves its credential untouched. Credentials of others (people, programs, another
    Airflow) are never changed. What fails for one connection does not stop the others.

    XCom: ``return_value``: ``{"created": […], "rotated": […], "unchanged": […], "deleted": […]}``, each a list of
    ``{"connection", "name", "credential_id"}``. No secret is in XCom, in the log, in an error or in a template.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/create-credential

    :param connections: The ids of the connections. The extra of one may say more, under ``skyvern_credential``:
        ``{"name": "The portal", "type": "password", "totp": "…"}``. (templated)
    :param delete: Whether to delete credentials that this list has made from connections that it no longer names. A
        listed connection that cannot be found keeps its credential. Default: False.
    :param scope: The name of the list that ``delete`` goes by. Default: the ids of DAG and task. (templated)
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises SkyvernSyncError: something failed that a retry may cure, such as a vault's 500; it names each connection.
        All other connections were synced.
    :raises AirflowFailException: no retry can help: a connection without a password, a name that somebody else's
        credential has, a wrong API key, an Airflow without a name.
    """

    template_fields: Sequence[str] = ("connections", "scope", "skyvern_conn_id")
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        connections: Sequence[str] | str,
        delete: bool = False,
        scope: str | None = None,
        skyvern_conn_id: str = "skyvern_default",
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(**kwargs)
        self.connections = connections
        self.delete = delete
        self.scope = scope
        self.skyvern_conn_id = skyvern_conn_id
        if not is_dynamic(connections):
            try:
                _ids(connections)
            except SkyvernConfigError as error:
                raise SkyvernConfigError(f"Task {self.task_id!r}: {error}") from None

    def execute(self, context: Context) -> dict[str, list[dict[str, Any]]]:
        """Sync, connection by connection, and return which credentials they have become."""
        from airflow_skyvern.credential_sources import owner_of
        from airflow_skyvern.credentials.sync import ACTIONS, Sync

        with errors_for_airflow():
            ids = _ids(self.connections)
            sync = Sync(self.hook.send, owner_of(self.scope or self._own_scope), _read_masked, delete=self.delete)
            outcomes = [self._logged(outcome) for outcome in sync.run(ids)]
            _raise_failures(outcomes)
        return {name: [one.as_xcom() for one in outcomes if one.action == name] for name in ACTIONS}

    @property
    def _own_scope(self) -> str:
        return f"{self.dag_id}.{self.task_id}"

    def _logged(self, outcome: Outcome) -> Outcome:
        if outcome.error:
            self.log.error("Connection %s: %s", outcome.conn_id, outcome.error)
        else:
            where = outcome.name, outcome.credential_id, outcome.action
            self.log.info("Connection %s: credential %r (%s) %s", outcome.conn_id, *where)
        if outcome.note:
            self.log.warning("Connection %s: %s", outcome.conn_id, outcome.note)
        return outcome


def _read_masked(conn_id: str) -> Wanted:
    """Read a connection, and have Airflow mask its secrets in this task's log."""
    from airflow_skyvern.credential_sources import read_connection

    wanted = read_connection(conn_id)
    for secret in wanted.secrets:
        if len(secret) >= SHORTEST_SECRET:
            since_3_1.mask_secret(secret)
    return wanted


def _raise_failures(outcomes: Sequence[Outcome]) -> None:
    failed = [one for one in outcomes if one.error]
    if failed:
        reasons = "; ".join(f"{one.conn_id}: {one.error}" for one in failed)
        message = f"{len(failed)} of {len(outcomes)} credentials could not be synced: {reasons}"
        raise SkyvernSyncError(message, transient=any(one.error and one.error.transient for one in failed))


def _ids(connections: Any) -> list[str]:
    """
    Return the ids of connections, given as a list, or as JSON by a template.

    :raises SkyvernConfigError: these are not ids, or the list is empty.
    """
    if isinstance(connections, str):
        with suppress(ValueError):
            connections = json.loads(connections)
    if not isinstance(connections, list | tuple | AbstractSet) or not all(map(_is_id, connections)):
        raise SkyvernConfigError(
            'connections: must be a list of ids of connections, such as ["portal", "bank"]; in a template: '
            "{{ … | tojson }}."
        )
    if not connections:
        raise SkyvernConfigError("connections: is empty; name at least one.")
    return list(connections)


def _is_id(connection: Any) -> bool:
    return isinstance(connection, str) and bool(connection.strip())
