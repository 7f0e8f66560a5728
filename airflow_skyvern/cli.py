"""
Skyvern's schedules, runs and workflows on the command line.

``airflow-skyvern check`` says what is wrong with a set-up; ``airflow-skyvern record`` makes a test of a run;
``airflow-skyvern schedules`` lists, exports, takes over and releases the schedules of Skyvern;
``airflow-skyvern runs orphans`` lists and cancels the runs that nobody waits for;
``airflow-skyvern sessions orphans`` lists and closes the browser sessions that nobody closes;
``airflow-skyvern workflows`` keeps workflows in files, see :mod:`airflow_skyvern.workflow_cli`;
``airflow-skyvern credentials`` makes credentials of connections, see :mod:`airflow_skyvern.credential_cli`.

On Airflow 3.3 the same commands are also there as ``airflow skyvern …``. Airflow imports this module for each of its
own commands, so it imports nothing that is slow.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_skyvern.checks import command as check_command
from airflow_skyvern.compat import since_3_0
from airflow_skyvern.recording import command as record_command

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import ListedSchedule
    from airflow_skyvern.reconciler.browser_sessions import FoundSession
    from airflow_skyvern.reconciler.sweep import FoundRun
    from airflow_skyvern.schedules.airflow_db import AirflowDatabase, KnownDag
    from airflow_skyvern.schedules.handover import Handover

Option = tuple[tuple[str, ...], dict[str, Any]]

CONNECTION: Option = (
    ("--conn-id",),
    {"default": "skyvern_default", "help": "id of the connection to Skyvern (default: skyvern_default)"},
)
SCHEDULES: Option = (("schedule_ids",), {"nargs": "*", "metavar": "schedule", "help": "ids of schedules: wfs_…"})
ALL: Option = (("--all",), {"action": "store_true", "help": "all schedules with a cron expression"})
DRY_RUN: Option = (
    ("--dry-run",),
    {"action": "store_true", "help": "print a summary of what would be done, and change nothing"},
)
SHOW_FILES: Option = (
    ("--show-files",),
    {"action": "store_true", "help": "with --dry-run: print the whole text of each file, too"},
)
FOLDER: Option = (
    ("--dags-folder",),
    {"default": None, "help": "folder of the DAG files (default: Airflow's own)"},
)
OWNER: Option = (("--owner",), {"default": None, "help": "owner of the DAGs (default: Airflow's)"})
MAX_ACTIVE: Option = (
    ("--max-active-runs",),
    {"type": int, "default": 1, "help": "how many runs of a DAG may be active at once (default: 1)"},
)
TIMEOUT: Option = (
    ("--timeout",),
    {
        "type": float,
        "default": 900.0,
        "help": "seconds to wait for Airflow to parse the file, and again for a moment between ticks (default: 900)",
    },
)
WRITES = (SCHEDULES, ALL, FOLDER, OWNER, MAX_ACTIVE, DRY_RUN, SHOW_FILES, CONNECTION)

CONNECTIONS: Option = (
    ("--conn-id",),
    {
        "action": "append",
        "default": None,
        "help": "id of a connection to Skyvern; may be repeated (default: all of type skyvern)",
    },
)
CANCEL: Option = (("--cancel",), {"action": "store_true", "help": "cancel the orphans"})


def duration(text: str) -> timedelta:
    """Read a duration: ``90s``, ``10m``, ``2h``, ``1d``."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"not a duration: {text!r}; write 90s, 10m, 2h or 1d")
    return int(found[1]) * {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}.get(
        found[2], timedelta(days=1)
    )


MIN_AGE: Option = (
    ("--min-age",),
    {
        "type": duration,
        "default": timedelta(minutes=10),
        "help": "leave runs that are younger, or whose task ended later: 90s, 10m, 2h (default: 10m)",
    },
)
ORPHANS_LEFT = 3
"""The exit status that says that orphans were found and are still active."""

Commands = dict[str, tuple[str, tuple[Option, ...]]]

FILES: Option = (("files",), {"nargs": "+", "metavar": "file", "help": "workflow files, or folders of them"})
TO: Option = (("--to",), {"default": ".", "metavar": "folder", "help": "folder of the files (default: this one)"})
AS_JSON: Option = (("--json",), {"action": "store_true", "help": "write JSON instead of YAML"})
YES: Option = (("--yes", "-y"), {"action": "store_true", "help": "do not ask before something is pushed"})
IDS: Option = (("workflow_ids",), {"nargs": "*", "metavar": "workflow", "help": "ids of workflows: wpid_…"})
EVERY: Option = (("--all",), {"action": "store_true", "help": "all workflows that Skyvern lists"})
DROP: Option = (("--force",), {"action": "store_true", "help": "replace files with changes that were not pushed"})
OVER: Option = (("--force",), {"action": "store_true", "help": "push over what somebody has edited in Skyvern"})
UNKNOWN: Option = (
    ("--allow-unknown-keys",),
    {"action": "store_true", "help": "only warn of keys that this version of the provider does not know"},
)
WORKFLOWS = "workflows"
WORKFLOW_COMMANDS: Commands = {
    "list": ("list the workflows and the files that they belong to", (CONNECTION,)),
    "pull": ("write workflows into files", (IDS, EVERY, TO, AS_JSON, DROP, DRY_RUN, CONNECTION)),
    "diff": ("print what differs between files and their workflows", (FILES, UNKNOWN, CONNECTION)),
    "push": ("make a version of each workflow whose file differs", (FILES, YES, OVER, UNKNOWN, DRY_RUN, CONNECTION)),
}

LOGINS: Option = (
    ("connections",),
    {"nargs": "+", "metavar": "connection", "help": "ids of connections whose logins Skyvern is to have"},
)
REMOVE: Option = (
    ("--delete",),
    {
        "action": "store_true",
        "help": "delete credentials that this list has made from connections that it does not name any more",
    },
)
SCOPE: Option = (
    ("--scope",),
    {
        "default": "command line",
        "metavar": "name",
        "help": "the name of the list that --delete goes by (default: 'command line')",
    },
)
CREDENTIALS = "credentials"
CREDENTIAL_COMMANDS: Commands = {
    "list": ("list the credentials and the connections that they are made from", (CONNECTION,)),
    "sync": ("make and rotate credentials as connections say", (LOGINS, REMOVE, SCOPE, DRY_RUN, CONNECTION)),
}
SESSIONS = "sessions"
PREFIXED = frozenset({WORKFLOWS, CREDENTIALS, SESSIONS})
"""The groups whose commands are known by the group's name, too: several have a ``list``."""

COMMANDS: Commands = {
    "list": ("list all schedules and what fires them: Skyvern or Airflow", (CONNECTION,)),
    "export": ("write schedules as DAG files; nothing else changes", WRITES),
    "takeover": ("make Airflow fire schedules instead of Skyvern", (*WRITES, TIMEOUT)),
    "release": ("make Skyvern fire schedules again", (SCHEDULES, ALL, DRY_RUN, CONNECTION)),
}
SUMMARY = "move schedules between Skyvern and Airflow"
RUN_COMMANDS: Commands = {
    "orphans": (
        "list the active runs that tasks have started, and which of them nobody waits for any more",
        (CANCEL, MIN_AGE, CONNECTIONS),
    ),
}
CLOSE: Option = (("--close",), {"action": "store_true", "help": "close those that nobody closes any more"})
SESSION_COMMANDS: Commands = {
    "orphans": (
        "list the open browser sessions, and which of them nobody closes any more",
        (CLOSE, MIN_AGE, CONNECTIONS),
    ),
}
GROUPS: dict[str, tuple[str, Commands]] = {
    "schedules": (SUMMARY, COMMANDS),
    "runs": ("find runs that nobody waits for", RUN_COMMANDS),
    SESSIONS: ("find browser sessions that nobody closes", SESSION_COMMANDS),
    WORKFLOWS: ("keep workflows in files", WORKFLOW_COMMANDS),
    CREDENTIALS: ("make credentials from Airflow's connections", CREDENTIAL_COMMANDS),
}
SINGLE: Commands = {
    "check": (check_command.SUMMARY, check_command.OPTIONS),
    "record": (record_command.SUMMARY, (*record_command.OPTIONS, CONNECTION)),
}
"""The commands that are in no group."""

WITH_OUTPUT = frozenset(
    {
        *("list", "orphans", f"{SESSIONS} orphans", "check"),
        *(f"{WORKFLOWS} {name}" for name in WORKFLOW_COMMANDS),
        *(f"{CREDENTIALS} {name}" for name in CREDENTIAL_COMMANDS),
    }
)
"""The commands that print a table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line and return its exit status: 0, or 1 when something was not done.

    ``runs orphans`` and ``sessions orphans`` return 3 when there are some that they did not end; ``workflows diff``
    returns 1 when something differs, and 2 when it could not be found out.
    """
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")  # Airflow would log to our output
    parser = argparse.ArgumentParser(prog="airflow-skyvern", description="Skyvern and Airflow.")
    groups = parser.add_subparsers(required=True, metavar="command")
    for group, (about, commands) in GROUPS.items():
        actions = groups.add_parser(group, help=about, description=about).add_subparsers(
            required=True, metavar="action"
        )
        add_commands(actions, commands, group)
    add_commands(groups, SINGLE)
    return run(parser.parse_args(arguments))


def add_commands(parsers: argparse._SubParsersAction[Any], commands: Commands, group: str = "") -> None:
    """Add commands to a parser, each with its options."""
    for name, (summary, options) in commands.items():
        command = parsers.add_parser(name, help=summary, description=summary)
        command.set_defaults(action=action_of(group, name))
        for argument in arguments_of(action_of(group, name), options):
            argument.add_to_parser(command)


def get_cli_commands() -> list[Any]:
    """Return the commands for Airflow's own command line."""
    from airflow.cli.cli_config import GroupCommand

    groups = [
        GroupCommand(name=group, help=about, subcommands=actions_of(commands, group))
        for group, (about, commands) in GROUPS.items()
    ]
    return [GroupCommand(name="skyvern", help="Skyvern and Airflow", subcommands=[*groups, *actions_of(SINGLE)])]


def actions_of(commands: Commands, group: str = "") -> list[Any]:
    """Return commands in the form of Airflow's command line."""
    from airflow.cli.cli_config import ActionCommand

    return [
        ActionCommand(
            name=name,
            help=summary,
            func=functools.partial(run_for_airflow, action_of(group, name)),
            args=arguments_of(action_of(group, name), options),
        )
        for name, (summary, options) in commands.items()
    ]


def action_of(group: str, name: str) -> str:
    """Return the name by which a command is known here: two groups have a ``list``."""
    return f"{group} {name}" if group in PREFIXED else name


def arguments_of(action: str, options: Sequence[Option]) -> list[Any]:
    """Return the arguments of a command, in the form of Airflow's command line."""
    from airflow.cli.cli_config import ARG_OUTPUT, Arg

    arguments = [Arg(flags=flags, **settings) for flags, settings in options]
    return [ARG_OUTPUT, *arguments] if action in WITH_OUTPUT else arguments


def run_for_airflow(action: str, args: argparse.Namespace) -> None:
    """Run a command for Airflow's command line."""
    args.action = action
    if status := run(args):
        raise SystemExit(status)


def run(args: argparse.Namespace) -> int:
    """Run one command, with connections from the database: Airflow's command line would ask an API server."""
    since_3_0.read_connections_from_database()
    if (single := _SINGLE_ACTIONS.get(args.action)) is not None:
        return single(args)
    if args.action.startswith(f"{WORKFLOWS} "):
        from airflow_skyvern.workflow_cli import run_for_workflows

        return run_for_workflows(args, print_rows)
    if args.action.startswith(f"{CREDENTIALS} "):
        from airflow_skyvern.credential_cli import run_for_credentials

        return run_for_credentials(args, print_rows)
    return run_for_schedules(args)


def check_set_up(args: argparse.Namespace) -> int:
    """Say what is wrong with connections, servers and this Airflow."""
    return check_command.check(args, print_rows, print_line)


def record_run(args: argparse.Namespace) -> int:
    """Make a test of a run."""
    return record_command.record(args, print_line, print_error)


def list_orphans(args: argparse.Namespace) -> int:
    """Print the active runs that end with their tasks, orphans first, and cancel these if that is asked for."""
    from airflow_skyvern.reconciler.sweep import Sweep

    return print_found(args, lambda ids, **given: Sweep(**given).find(ids, cancel=args.cancel))


def list_sessions(args: argparse.Namespace) -> int:
    """Print the open browser sessions, those first that nobody closes, and close these if that is asked for."""
    from airflow_skyvern.reconciler.browser_sessions import SessionSweep

    return print_found(args, lambda ids, **given: SessionSweep(**given).find(ids, close=args.close))


def print_found(args: argparse.Namespace, find: Callable[..., Sequence[FoundRun | FoundSession]]) -> int:
    """Print what is found on the connections that are asked for, on all of Airflow's if none is."""
    from airflow_skyvern.exceptions import SkyvernConfigError
    from airflow_skyvern.reconciler.sweep import skyvern_connections

    problems: list[str] = []
    try:
        found = find(args.conn_id or skyvern_connections(), min_age=args.min_age, report=problems.append)
    except SkyvernConfigError as error:
        print_error(str(error))
        return 1
    return print_orphans(found, problems, args.output)


_SINGLE_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "check": check_set_up,
    "record": record_run,
    "orphans": list_orphans,
    f"{SESSIONS} orphans": list_sessions,
}
"""What commands do that take no part of the package with commands of its own."""


def print_orphans(found: Sequence[FoundRun | FoundSession], problems: list[str], output: str) -> int:
    """Print what was found and what was left undone, and return the exit status."""
    print_rows([one.as_row() for one in found], output)
    if found and not since_3_0.installation():
        problems.append(
            "This Airflow has no name that distinguishes its runs from those of others, so nothing was compared: "
            "set [skyvern] installation, or [api] base_url ([webserver] base_url on Airflow 2)."
        )
    for problem in problems:
        print_error(problem)
    if problems:
        return 1
    return ORPHANS_LEFT if any(one.is_left for one in found) else 0


def print_rows(rows: list[dict[str, Any]], output: str) -> None:
    """Print rows as Airflow's own list commands print theirs; JSON keeps its types."""
    from airflow.cli.simple_table import AirflowConsole

    if output == "json":
        print_line(json.dumps(rows))
    else:
        AirflowConsole().print_as(data=rows, output=output)


def run_for_schedules(args: argparse.Namespace) -> int:
    """Run a command for schedules."""
    from airflow_skyvern.compat.sdk import AirflowNotFoundException
    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.hooks import ServerHook
    from airflow_skyvern.schedules.airflow_db import AirflowDatabase

    hook, airflow = ServerHook(args.conn_id), AirflowDatabase()
    try:
        if args.action == "list":
            return list_schedules(args.output, hook, airflow)
        return move_schedules(args, hook, airflow)
    except (SkyvernError, AirflowNotFoundException) as error:
        print_error(str(error))
        return 1
    finally:
        hook.close()


def list_schedules(output: str, hook: SkyvernHook, airflow: AirflowDatabase) -> int:
    """Print all schedules, as Airflow's own list commands print theirs."""
    from airflow.cli.simple_table import AirflowConsole

    from airflow_skyvern.schedules.airflow_db import preferred_dag

    schedules, dags = hook.list_all_schedules(), airflow.dags()
    AirflowConsole().print_as(
        data=schedules,
        output=output,
        mapper=lambda schedule: row(schedule, preferred_dag(dags.get(schedule.workflow_schedule_id, ()))),
    )
    return 0


def row(schedule: ListedSchedule, dag: KnownDag | None) -> dict[str, Any]:
    """Describe a schedule and its DAG by column; None where there is nothing to show."""
    from airflow_skyvern.schedules.ownership import who_fires

    next_run = schedule.next_run if schedule.enabled else dag.next_run if dag and dag.fires else None
    return {
        "schedule_id": schedule.workflow_schedule_id,
        "workflow": schedule.workflow_title,
        "name": schedule.name,
        "cron": schedule.cadence,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "next_run": next_run.strftime("%Y-%m-%dT%H:%MZ") if next_run else None,
        "fired_by": who_fires(schedule, dag),
        "dag_id": dag.dag_id if dag else None,
        "dag_state": dag.state if dag else None,
    }


def move_schedules(args: argparse.Namespace, hook: SkyvernHook, airflow: AirflowDatabase) -> int:
    """Export, take over or release the selected schedules, one after the other."""
    handover, schedules = make_handover(args, hook, airflow), hook.list_all_schedules()
    actions: dict[str, Callable[[ListedSchedule], object]] = {
        "export": handover.export,
        "takeover": handover.takeover,
        "release": handover.release,
    }
    selected = select_schedules(args, schedules)
    statuses = [exit_status(actions[args.action], schedule) for schedule in selected]
    if args.all and args.action != "release":
        print_lines(what_stays(args.action, schedules, selected, airflow))
    return max(statuses, default=0)


def what_stays(
    action: str, schedules: list[ListedSchedule], selected: list[ListedSchedule], airflow: AirflowDatabase
) -> Iterator[str]:
    """Yield a line for each schedule that ``--all`` leaves out, with the reason, and one with their number."""
    from airflow_skyvern.schedules.airflow_db import preferred_dag
    from airflow_skyvern.schedules.ownership import why_it_stays

    left_out = [schedule for schedule in schedules if schedule not in selected]
    dags = airflow.dags() if left_out and action == "takeover" else {}
    for schedule in left_out:
        yield why_it_stays(schedule, preferred_dag(dags.get(schedule.workflow_schedule_id, ())))
    yield f"{len(selected)} of {len(schedules)} schedules selected, {len(left_out)} left as they are"


def exit_status(action: Callable[[ListedSchedule], object], schedule: ListedSchedule) -> int:
    """Run an action for one schedule and return its exit status; an error does not stop the others."""
    from airflow_skyvern.exceptions import SkyvernError

    try:
        action(schedule)
    except SkyvernError as error:
        print_error(str(error))
        return 1
    return 0


def make_handover(args: argparse.Namespace, hook: SkyvernHook, airflow: AirflowDatabase) -> Handover:
    """Build the takeover or release that the options describe."""
    from pathlib import Path

    from airflow_skyvern.schedules.airflow_db import dags_folder
    from airflow_skyvern.schedules.dag_file import Options
    from airflow_skyvern.schedules.dag_folder import DagFolder
    from airflow_skyvern.schedules.handover import Handover

    folder = getattr(args, "dags_folder", None)
    options = Options(
        owner=getattr(args, "owner", None),
        connection=args.conn_id,
        max_active_runs=getattr(args, "max_active_runs", 1),
    )
    return Handover(
        hook,
        airflow,
        DagFolder(Path(folder) if folder else dags_folder()),
        options,
        dry_run=args.dry_run,
        show_files=getattr(args, "show_files", False),
        timeout=getattr(args, "timeout", 0.0),
        report=print_line,
    )


def select_schedules(args: argparse.Namespace, schedules: list[ListedSchedule]) -> list[ListedSchedule]:
    """
    Return the schedules whose ids were passed, or with ``--all`` those that the action applies to.

    :raises SkyvernConfigError: a name is unknown, or none was given.
    """
    from airflow_skyvern.exceptions import SkyvernConfigError

    if args.all:
        cron = [schedule for schedule in schedules if schedule.cron_expression is not None]
        return (
            cron
            if args.action == "export"
            else [schedule for schedule in cron if schedule.enabled is (args.action == "takeover")]
        )
    if not args.schedule_ids:
        raise SkyvernConfigError("Pass the ids of schedules, or --all; `airflow-skyvern schedules list` shows them.")
    known = {schedule.workflow_schedule_id: schedule for schedule in schedules}
    if unknown := [name for name in args.schedule_ids if name not in known]:
        raise SkyvernConfigError(f"No such schedule in Skyvern: {', '.join(unknown)}.")
    return [known[name] for name in dict.fromkeys(args.schedule_ids)]


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, each at once."""
    for line in lines:
        print_line(line)


def print_line(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def print_error(line: str) -> None:
    """Print an error."""
    sys.stderr.write(f"error: {line}\n")
    sys.stderr.flush()
