"""``airflow-skyvern check``: its options, what it asks, and its exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_skyvern.checks.finding import CHECKS, Finding

if TYPE_CHECKING:
    import argparse

SUMMARY = "check connections, servers and this Airflow; exit with 1 if something does not work"

OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--conn-id",),
        {
            "action": "append",
            "default": None,
            "help": "id of a connection to Skyvern; may be repeated (default: all of type skyvern)",
        },
    ),
    (
        ("--only",),
        {
            "action": "append",
            "default": None,
            "choices": tuple(CHECKS),
            "metavar": "CHECK",
            "help": f"make this check only; may be repeated: {', '.join(CHECKS)}",
        },
    ),
    (
        ("--webhook-url",),
        {"default": None, "help": "the receiver's address as Skyvern reaches it (default: from [api] base_url)"},
    ),
    (("--strict",), {"action": "store_true", "help": "exit with 1 for warnings and for what is unknown, too"}),
)

LONGEST_TEXT = 1000

SEVERE = frozenset({"problem"})
STRICT = frozenset({"problem", "warning", "unknown"})


def check(
    args: argparse.Namespace,
    show: Callable[[list[dict[str, Any]], str], object],
    show_line: Callable[[str], object],
) -> int:
    """
    Make the checks, show a line of each, and return the exit status: 1 if one of them found a problem.

    :param show: Prints rows in the form of the option ``--output``.
    :param show_line: Prints a line.
    """
    found = [cleaned(finding) for finding in findings(args)]
    if args.output == "table":  # facts are too long for columns
        for finding in found:
            show_line(as_line(finding))
    else:
        show([finding.as_row() for finding in found], args.output)
    bad = STRICT if args.strict else SEVERE
    return int(any(finding.state in bad for finding in found))


def as_line(finding: Finding) -> str:
    """Write a finding for people: what is wrong stands out, and below it what to do."""
    about = f"{finding.conn_id}: " if finding.conn_id else ""
    state = finding.state if finding.state != "problem" else "PROBLEM"
    line = f"{state:<8} {finding.check:<10} {about}{finding.fact}"
    return f"{line}\n{'':<19} -> {finding.fix}" if finding.fix else line


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield the findings of all connections, then those about this Airflow."""
    from airflow_skyvern.checks.asking import check_connection
    from airflow_skyvern.checks.asking_airflow import check_airflow, configured_webhooks
    from airflow_skyvern.reconciler.sweep import skyvern_connections

    wanted = frozenset(args.only or CHECKS)
    webhooks = configured_webhooks(args.webhook_url)
    for conn_id in args.conn_id or skyvern_connections(needs_database=False):
        yield from check_connection(conn_id, wanted, webhooks)
    yield from check_airflow(wanted)


def cleaned(finding: Finding) -> Finding:
    """Mask secrets, and leave nothing that a terminal would carry out: a server may say anything."""
    from airflow_skyvern.compat import since_3_1
    from airflow_skyvern.exceptions import shorten
    from airflow_skyvern.secret_values import masked_text

    redact = since_3_1.redactor()

    def clean(text: str) -> str:
        plain = "".join(mark if mark.isprintable() else " " for mark in text)
        return str(redact(masked_text(shorten(plain, LONGEST_TEXT))))

    return replace(finding, fact=clean(finding.fact), fix=clean(finding.fix))
