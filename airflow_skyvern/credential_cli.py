"""
Skyvern's credentials on the command line: ``airflow-skyvern credentials list`` and ``sync``.

A secret is never an argument, and never printed: ``sync`` takes the ids of connections, and reads these itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import credential_api
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.credential_sources import owner_of, read_connection
from airflow_skyvern.credentials.mark import Mark, Owner
from airflow_skyvern.credentials.sync import Outcome, Sync
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.hooks import ServerHook

if TYPE_CHECKING:
    import argparse

    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Credential

PrintRows = Callable[[list[dict[str, Any]], str], None]


def run_for_credentials(args: argparse.Namespace, print_rows: PrintRows) -> int:
    """Run a command and return its exit status: 1 when something was not done."""
    hook, command = ServerHook(args.conn_id), args.action.rpartition(" ")[2]
    try:
        return COMMANDS[command](args, hook.send, print_rows)
    except (SkyvernError, AirflowNotFoundException) as error:
        _print_error(str(error))
        return 1
    finally:
        hook.close()


def list_credentials(args: argparse.Namespace, send: Send, print_rows: PrintRows) -> int:
    """Print the credentials, and which connections they are made from."""
    credentials: list[Credential] = send(credential_api.list_credentials())
    try:
        owner: Owner | None = owner_of("")
    except SkyvernConfigError:
        owner = None
    print_rows([_row(one, Mark.of(one), owner) for one in credentials], args.output)
    return 0


def _row(credential: Credential, mark: Mark | None, owner: Owner | None) -> dict[str, Any]:
    return {
        "credential_id": credential.credential_id,
        "name": credential.name,
        "type": credential.credential_type,
        "made_by": _maker(mark, owner),
        "connection": mark.conn_id if mark else None,
    }


def _maker(mark: Mark | None, owner: Owner | None) -> str | None:
    if mark is None:
        return None
    is_ours = owner is not None and mark.owner == owner.digest
    unfinished = "" if mark.fingerprint else ", unfinished"
    return f"{'this' if is_ours else 'another'} Airflow{unfinished}"


def sync(args: argparse.Namespace, send: Send, print_rows: PrintRows) -> int:
    """Make, rotate and delete credentials; what fails does not stop the others."""
    syncing = Sync(send, owner_of(args.scope), read_connection, delete=args.delete, dry_run=args.dry_run)
    outcomes = [_reported(one, args) for one in syncing.run(args.connections)]
    if args.output != "table":
        print_rows([one.as_row() for one in outcomes], args.output)
    return 1 if any(one.error for one in outcomes) else 0


def _reported(outcome: Outcome, args: argparse.Namespace) -> Outcome:
    """Print what was done at once; for a program the whole result is printed at the end."""
    if outcome.error:
        _print_error(f"{outcome.conn_id}: {outcome.error}")
    elif args.output == "table":
        would = "would be " if args.dry_run and outcome.action != "unchanged" else ""
        which = f" ({outcome.credential_id})" if outcome.credential_id else ""
        sys.stdout.write(f"{outcome.conn_id}: credential {outcome.name!r}{which} {would}{outcome.action}\n")
        sys.stdout.flush()
    if outcome.note:
        _print_line_of_error(f"warning: {outcome.conn_id}: {outcome.note}")
    return outcome


def _print_error(line: str) -> None:
    _print_line_of_error(f"error: {line}")


def _print_line_of_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


COMMANDS: dict[str, Callable[[argparse.Namespace, Send, PrintRows], int]] = {"list": list_credentials, "sync": sync}
