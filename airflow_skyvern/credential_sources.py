"""The connections of Airflow that credentials of Skyvern are made from, and which Airflow this is."""

from __future__ import annotations

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.sdk import AirflowNotFoundException, BaseHook, conf
from airflow_skyvern.credentials.mark import Owner
from airflow_skyvern.credentials.wanted import Wanted, wanted_from
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernSyncError

STAYS = "Its credential, if it has one, stays: once the connection is out of the list, delete deletes it."


def owner_of(scope: str) -> Owner:
    """
    Return who makes credentials here.

    :param scope: The name of the list of connections that they are deleted by.
    :raises SkyvernConfigError: this Airflow has no name.
    """
    if not (installation := since_3_0.installation()):
        section, option = since_3_0.base_url_setting()
        raise SkyvernConfigError(
            "This Airflow has no name that distinguishes its credentials from those of others: set [skyvern] "
            f"installation, or [{section}] {option}."
        )
    keys = str(conf.get("core", "fernet_key", fallback="") or "")
    return Owner(installation, scope, tuple(key.strip() for key in keys.split(",") if key.strip()))


def read_connection(conn_id: str) -> Wanted:
    """
    Read what a connection says of a credential, wherever it is kept; no message repeats a value.

    :raises SkyvernConfigError: it says too little, or what Skyvern does not know.
    :raises SkyvernSyncError: it is not there, or cannot be read now; Airflow does not distinguish the two.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
        said = connection.conn_type, connection.login, connection.password, connection.extra
    except AirflowNotFoundException:
        raise SkyvernSyncError(
            f"Airflow has no such connection, or its secrets backend did not answer. {STAYS}", transient=True
        ) from None
    except Exception as error:  # noqa: BLE001  whatever a secrets backend raises; its words may repeat the secret
        raise SkyvernSyncError(
            f"the connection cannot be read ({type(error).__name__}). {STAYS}", transient=True
        ) from None
    return wanted_from(conn_id, *said)
