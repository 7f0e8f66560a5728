"""
Workflows as files on the command line: ``airflow-skyvern workflows list``, ``pull``, ``diff`` and ``push``.

What is done with each file is printed as soon as it is done. With ``-o json``, ``yaml`` or ``plain`` the result is
printed at the end instead, and progress and questions go to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.hooks import ServerHook
from airflow_skyvern.workflow_files.form import digest_of, form_of
from airflow_skyvern.workflow_files.outcome import Outcome
from airflow_skyvern.workflow_files.ownership import FILE_TAG, Record, tags_of
from airflow_skyvern.workflow_files.pull import Pull
from airflow_skyvern.workflow_files.push import Plan, carry_out, files_in, plan

if TYPE_CHECKING:
    import argparse

    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Workflow

PrintRows = Callable[[list[dict[str, Any]], str], None]

MOST_AT_ONCE = 100
"""Of how many workflows the tags are fetched with one request."""

DIFFERS, UNCLEAR = 1, 2
"""Exit statuses of ``diff``, as in diff(1)."""


def run_for_workflows(args: argparse.Namespace, print_rows: PrintRows) -> int:
    """Run a command and return its exit status."""
    hook, command = ServerHook(args.conn_id), args.action.rpartition(" ")[2]
    try:
        return COMMANDS[command](args, hook.send, Printer(args.output, print_rows))
    except (SkyvernError, AirflowNotFoundException, OSError) as error:
        _print_error(str(error))
        return UNCLEAR if command == "diff" else 1
    finally:
        hook.close()


class Printer:
    """
    Prints what is done with files.

    :param output: ``table`` for people, else a format of Airflow's for programs.
    """

    def __init__(self, output: str, print_rows: PrintRows) -> None:
        self._output = output
        self._print_rows = print_rows
        self.is_for_people = output == "table"
        self._outcomes: list[Outcome] = []

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """Print a table."""
        self._print_rows(rows, self._output)

    def progress(self, line: str) -> None:
        """Print a line that is for people."""
        stream = sys.stdout if self.is_for_people else sys.stderr
        stream.write(f"{line}\n")
        stream.flush()

    def outcome(self, outcome: Outcome, number: int, total: int, *, would: bool = False) -> None:
        """Print what was done with one of the files."""
        self._outcomes.append(outcome)
        counted = f"[{number}/{total}] " if total > 1 else ""
        where = f", version {outcome.version} of {outcome.workflow_id}" if outcome.version else ""
        self.progress(f"{counted}{outcome.file}: {'would be ' if would else ''}{outcome.action}{where}")
        for difference in outcome.differences if self.is_for_people else ():
            self.progress("\n".join(f"  {line}" for line in str(difference).splitlines()))
        if outcome.message:
            _print_error(outcome.message)

    def finish(self) -> bool:
        """Print all of it for a program; return whether nothing stood against any of it."""
        if not self.is_for_people:
            self.rows([outcome.as_row() for outcome in self._outcomes])
        return all(outcome.is_done for outcome in self._outcomes)


def list_workflows(_: argparse.Namespace, send: Send, printer: Printer) -> int:
    """Print the workflows, and which file each belongs to."""
    workflows: list[Workflow] = send(api.list_workflows())
    tags: dict[str, dict[str, str]] = {}
    for start in range(0, len(workflows), MOST_AT_ONCE):
        part = workflows[start : start + MOST_AT_ONCE]
        tags |= tags_of(send, [workflow.workflow_permanent_id for workflow in part])
    printer.rows([_row(workflow, tags.get(workflow.workflow_permanent_id, {})) for workflow in workflows])
    return 0


def _row(workflow: Workflow, tags: dict[str, str]) -> dict[str, Any]:
    return {
        "workflow_id": workflow.workflow_permanent_id,
        "title": workflow.title,
        "version": workflow.version,
        "file": tags.get(FILE_TAG),
        "state": _state(workflow, Record.of(tags)) if FILE_TAG in tags else None,
    }


def _state(workflow: Workflow, record: Record | None) -> str:
    """Say whether the newest version is the one that file and workflow had in common last."""
    if record is not None and record.digest == digest_of(form_of(workflow.model_dump(mode="json"))):
        return f"as {record.how}"
    return "edited since" if record is not None else "never compared"


def pull(args: argparse.Namespace, send: Send, printer: Printer) -> int:
    """Write workflows into files, one after the other; what fails does not stop the others."""
    ids = [row.workflow_permanent_id for row in send(api.list_workflows())] if args.all else args.workflow_ids
    if not ids:
        raise SkyvernConfigError("Pass the ids of workflows, or --all; `airflow-skyvern workflows list` shows them.")
    suffix = ".json" if args.json else ".yaml"
    puller = Pull(send, Path(args.to), suffix, force=args.force, dry_run=args.dry_run)
    unique = list(dict.fromkeys(ids))
    for number, workflow_id in enumerate(unique, 1):
        outcome = _done(workflow_id, partial(puller.pull, workflow_id))
        printer.outcome(outcome, number, len(unique), would=args.dry_run)
    return 0 if printer.finish() else 1


def diff(args: argparse.Namespace, send: Send, printer: Printer) -> int:
    """Print what differs."""
    plans = list(_plans(args, send, force=True))
    for number, one in enumerate(plans, 1):
        printer.outcome(_as_difference(one) if isinstance(one, Plan) else one, number, len(plans))
    if not printer.finish():
        return UNCLEAR
    return DIFFERS if any(isinstance(one, Plan) and one.action != "unchanged" for one in plans) else 0


def _as_difference(one: Plan) -> Outcome:
    found = one.outcome
    action = "unchanged" if found.action == "unchanged" else "differs" if one.owned else "is not in Skyvern"
    return Outcome(found.file, found.workflow_id, found.version, action, found.differences)


def push(args: argparse.Namespace, send: Send, printer: Printer) -> int:
    """Make versions of what differs, once that was confirmed."""
    plans = list(_plans(args, send, force=args.force))
    due = [one for one in plans if isinstance(one, Plan) and one.action in ("created", "updated")]
    if due and not (args.dry_run or args.yes):
        _confirm(due, printer)
    for number, one in enumerate(plans, 1):
        if args.dry_run or isinstance(one, Outcome):
            outcome = one if isinstance(one, Outcome) else one.outcome
        else:
            outcome = _done(str(one.path), partial(carry_out, send, one))
        printer.outcome(outcome, number, len(plans), would=args.dry_run and outcome.is_done)
    return 0 if printer.finish() else 1


def _plans(args: argparse.Namespace, send: Send, *, force: bool) -> Iterator[Plan | Outcome]:
    """Yield what would be done with each file, or why that cannot be said."""
    for path in files_in(args.files):
        try:
            one = plan(send, path, force=force, unknown_keys=args.allow_unknown_keys)
        except SkyvernError as error:
            yield Outcome(str(path), action="failed", message=str(error))
            continue
        for warning in one.warnings:
            _print_line_of_error(f"warning: {warning}")
        yield one


def _confirm(due: Sequence[Plan], printer: Printer) -> None:
    if not sys.stdin.isatty():
        raise SkyvernConfigError("Nothing was pushed: pass --yes to push without being asked, or --dry-run.")
    for one in due:
        printer.progress(f"{one.path}: would be {one.action}")
        for change in one.changes:
            printer.progress("\n".join(f"  {line}" for line in str(change).splitlines()))
    sys.stderr.write(f"Push {len(due)} file{'s' if len(due) > 1 else ''}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SkyvernConfigError("Nothing was pushed.")


def _done(what: str, do: Callable[[], Outcome]) -> Outcome:
    """Do something with a file; an error does not stop the others."""
    try:
        return do()
    except (SkyvernError, OSError) as error:
        return Outcome(what, action="failed", message=str(error))


def _print_error(line: str) -> None:
    _print_line_of_error(f"error: {line}")


def _print_line_of_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


COMMANDS: dict[str, Callable[[argparse.Namespace, Send, Printer], int]] = {
    "list": list_workflows,
    "pull": pull,
    "diff": diff,
    "push": push,
}
