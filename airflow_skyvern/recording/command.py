"""``airflow-skyvern record``: its options, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

SUMMARY = "make a test for pytest of what a run did"

MOST_FILE_BYTES = 4096

OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("run_id",), {"metavar": "RUN_ID", "help": "the run's id: wr_…"}),
    (
        ("--to",),
        {"default": None, "metavar": "FILE", "help": "the file to write, which must not exist (default: stdout)"},
    ),
    (
        ("--max-file-bytes",),
        {
            "type": int,
            "default": MOST_FILE_BYTES,
            "help": f"larger files of the run get a short placeholder (default: {MOST_FILE_BYTES})",
        },
    ),
)


def record(args: argparse.Namespace, show: Callable[[str], object], show_error: Callable[[str], object]) -> int:
    """
    Write a test of a run, and return the exit status: 1 if there is none.

    :param show: Prints a line.
    :param show_error: Prints an error.
    """
    from airflow_skyvern.compat.sdk import AirflowNotFoundException
    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.hooks import ServerHook
    from airflow_skyvern.recording.reading import read_run
    from airflow_skyvern.recording.script import script_of

    hook = ServerHook(args.conn_id)
    notes: list[str] = []
    try:
        text = script_of(read_run(hook, args.run_id, args.max_file_bytes, notes.append))
        if args.to is None:
            show(text.rstrip())
            return 0
        with Path(args.to).open("x", encoding="utf-8") as file:
            file.write(text)
    except (SkyvernError, AirflowNotFoundException, OSError) as error:
        show_error(_said(error))
        return 1
    finally:
        hook.close()
    for line in (f"{args.to}: written; run it with pytest {args.to}", *notes):
        show(line)
    return 0


def _said(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
