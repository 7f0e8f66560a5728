"""
``airflow-skyvern schedules``: list, export, take over and release the schedules of Skyvern.

On Airflow 3.3 the same commands are also there as ``airflow skyvern schedules``. Airflow imports this module for each
of its own commands, so it imports nothing that is slow.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_skyvern import compat

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import ListedSchedule
    from airflow_skyvern.schedules.airflow_db import AirflowDatabase, KnownDag
    from airflow_skyvern.schedules.handover import Handover

Option = tuple[tuple[str, ...], dict[str, Any]]

CONNECTION: Option = (
    ("--conn-id",),
    {"default": "skyvern_default", "help": "id of the connection to Skyvern (default: skyvern_default)"},
)
SCHEDULES: Option = (("schedule_ids",), {"nargs": "*", "metavar": "schedule", "help": "ids of schedules: wfs_…"})
ALL: Option = (("--all",), {"action": "store_true", "help": "all schedules with a cron expression"})
DRY_RUN: Option = (("--dry-run",), {"action": "store_true", "help": "only show what would be done"})
FOLDER: Option = (
    ("--dags-folder",),
    {"default": None, "help": "where the DAG files are, or will be (default: Airflow's)"},
)
OWNER: Option = (("--owner",), {"default": None, "help": "owner of the DAGs (default: Airflow's)"})
MAX_ACTIVE: Option = (
    ("--max-active-runs",),
    {"type": int, "default": 1, "help": "how many runs of a DAG may be active at once (default: 1)"},
)
TIMEOUT: Option = (
    ("--timeout",),
    {"type": float, "default": 900.0, "help": "seconds to wait for Airflow, and for a quiet moment (default: 900)"},
)
WRITES = (SCHEDULES, ALL, FOLDER, OWNER, MAX_ACTIVE, DRY_RUN, CONNECTION)

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "list": ("show all schedules, and who fires them", (CONNECTION,)),
    "export": ("write schedules as DAG files; nothing else changes", WRITES),
    "takeover": ("let Airflow fire schedules instead of Skyvern", (*WRITES, TIMEOUT)),
    "release": ("let Skyvern fire schedules again", (SCHEDULES, ALL, DRY_RUN, CONNECTION)),
}
SUMMARY = "move schedules between Skyvern and Airflow"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 1 when something was not done."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")  # Airflow would log to our output
    parser = argparse.ArgumentParser(prog="airflow-skyvern", description="Skyvern and Airflow.")
    groups = parser.add_subparsers(required=True, metavar="command")
    schedules = groups.add_parser("schedules", help=SUMMARY, description=SUMMARY)
    actions = schedules.add_subparsers(required=True, metavar="action")
    for name, (summary, _) in COMMANDS.items():
        action = actions.add_parser(name, help=summary, description=summary)
        action.set_defaults(action=name)
        for argument in arguments_of(name):
            argument.add_to_parser(action)
    given = parser.parse_args(arguments)
    compat.read_connections_from_database()
    return run(given)


def get_cli_commands() -> list[Any]:
    """Return the commands for Airflow's own command line."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    actions = [
        ActionCommand(
            name=name,
            help=summary,
            func=functools.partial(run_for_airflow, name),
            args=arguments_of(name),
        )
        for name, (summary, _) in COMMANDS.items()
    ]
    schedules = GroupCommand(name="schedules", help=SUMMARY, subcommands=actions)
    return [GroupCommand(name="skyvern", help="Skyvern and Airflow", subcommands=[schedules])]


def arguments_of(action: str) -> list[Any]:
    """Return the arguments of a command, in the form of Airflow's command line."""
    from airflow.cli.cli_config import ARG_OUTPUT, Arg

    arguments = [Arg(flags=flags, **settings) for flags, settings in COMMANDS[action][1]]
    return [ARG_OUTPUT, *arguments] if action == "list" else arguments


def run_for_airflow(action: str, given: argparse.Namespace) -> None:
    """Run a command for Airflow's command line."""
    given.action = action
    if status := run(given):
        raise SystemExit(status)


def run(given: argparse.Namespace) -> int:
    """Run one command."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.schedules.airflow_db import AirflowDatabase

    hook, airflow = SkyvernHook(given.conn_id), AirflowDatabase()
    try:
        if given.action == "list":
            return show(given.output, hook, airflow)
        return change(given, hook, airflow)
    except (SkyvernError, AirflowNotFoundException) as error:
        complain(str(error))
        return 1
    finally:
        hook.close()


def show(output: str, hook: SkyvernHook, airflow: AirflowDatabase) -> int:
    """Print all schedules, as Airflow's own list commands print theirs."""
    from airflow.cli.simple_table import AirflowConsole

    from airflow_skyvern.schedules.airflow_db import best

    schedules, dags = hook.list_all_schedules(), airflow.dags()
    AirflowConsole().print_as(
        data=schedules,
        output=output,
        mapper=lambda schedule: row(schedule, best(dags.get(schedule.workflow_schedule_id, ()))),
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


def change(given: argparse.Namespace, hook: SkyvernHook, airflow: AirflowDatabase) -> int:
    """Export, take over or release the chosen schedules, one after the other."""
    handover = handover_of(given, hook, airflow)
    actions: dict[str, Callable[[ListedSchedule], object]] = {
        "export": handover.export,
        "takeover": handover.takeover,
        "release": handover.release,
    }
    return max((attempt(actions[given.action], one) for one in chosen(given, hook.list_all_schedules())), default=0)


def attempt(action: Callable[[ListedSchedule], object], schedule: ListedSchedule) -> int:
    """Do it, or say why not, so that the others have their turn."""
    from airflow_skyvern.exceptions import SkyvernError

    try:
        action(schedule)
    except SkyvernError as error:
        complain(str(error))
        return 1
    return 0


def handover_of(given: argparse.Namespace, hook: SkyvernHook, airflow: AirflowDatabase) -> Handover:
    """Make the hand-over that the options describe."""
    from pathlib import Path

    from airflow_skyvern.schedules.airflow_db import dags_folder
    from airflow_skyvern.schedules.dag_file import Options
    from airflow_skyvern.schedules.dag_folder import DagFolder
    from airflow_skyvern.schedules.handover import Handover

    folder = getattr(given, "dags_folder", None)
    options = Options(
        owner=getattr(given, "owner", None),
        connection=given.conn_id,
        max_active_runs=getattr(given, "max_active_runs", 1),
    )
    return Handover(
        hook,
        airflow,
        DagFolder(Path(folder) if folder else dags_folder()),
        options,
        dry_run=given.dry_run,
        patience=getattr(given, "timeout", 0.0),
        say=say,
    )


def chosen(given: argparse.Namespace, schedules: list[ListedSchedule]) -> list[ListedSchedule]:
    """
    Return the schedules that were named, or with ``--all`` those that the action is for.

    :raises SkyvernConfigError: a name is unknown, or none was given.
    """
    from airflow_skyvern.exceptions import SkyvernConfigError

    if given.all:
        cron = [schedule for schedule in schedules if schedule.cron_expression is not None]
        return (
            cron if given.action == "export" else [one for one in cron if one.enabled is (given.action == "takeover")]
        )
    if not given.schedule_ids:
        raise SkyvernConfigError("Name the schedules, or give --all; `airflow-skyvern schedules list` shows them.")
    known = {schedule.workflow_schedule_id: schedule for schedule in schedules}
    if unknown := [name for name in given.schedule_ids if name not in known]:
        raise SkyvernConfigError(f"No such schedule in Skyvern: {', '.join(unknown)}.")
    return [known[name] for name in dict.fromkeys(given.schedule_ids)]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """Print an error."""
    sys.stderr.write(f"error: {line}\n")
    sys.stderr.flush()
