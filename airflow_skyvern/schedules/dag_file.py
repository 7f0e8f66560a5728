"""
From a schedule to the text of a DAG file, and back to what the file says of itself. Reads and writes nothing.

The first line of a file names it as ours and holds a hash of the rest: a file whose hash is not right was changed by
hand. The DAG begins with a line that names its schedule. A file with the DAGs of several schedules counts as changed
by hand: its DAGs are found, but it is never overwritten.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.cron import check_zone
from airflow_skyvern.compat import since_3_0
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.secret_values import looks_secret, names_secret

if TYPE_CHECKING:
    from airflow_skyvern.models import Schedule, Workflow

MARK = "# airflow-skyvern schedules"
TAG_PREFIX = "skyvern:"
DEFAULT_CONNECTION = "skyvern_default"
WIDTH = 84

HEADER = '''"""
A schedule of Skyvern that Airflow fires.

Written by `airflow-skyvern schedules`. Change it as you like: a file that was changed is never written over.
"""

from textwrap import dedent

import pendulum
{dag_import}
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.schedules.guard import SkyvernScheduleGuard
'''

BLOCK = '''# Skyvern schedule {schedule_id} as DAG {dag_id} from {start}
with DAG(
    {dag_id_text},
    description={description},
    doc_md=dedent("""
{doc}
    """),
    schedule=CronTriggerTimetable({cron}, timezone={zone}),
    start_date={start_text},
    catchup=False,
    max_active_runs={max_active_runs},
    is_paused_upon_creation={paused},
    default_args={default_args},
    tags={tags},
):
    # While the schedule is enabled in Skyvern, Skyvern fires it and this skips.
    guard = SkyvernScheduleGuard(
        task_id="skip_if_skyvern_runs_it",
        workflow_id={workflow_id_text},
        schedule_id={schedule_id_text},{connection}
    )
    run = SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id={workflow_id_text},{parameters}{check}
        deferrable=True,{connection}
    )
    guard >> run
'''

UNCHECKED = """
        # The workflow does not have all of these parameters. Skyvern ignores the others.
        check_parameters=False,"""

_BLOCK_LINE = re.compile(r"^# Skyvern schedule (\S+) as DAG (\S+) from (\S+)$", re.MULTILINE)
_MARK_LINE = re.compile(re.escape(MARK) + r" sha256=([0-9a-f]{64})\n")


@dataclass(frozen=True)
class Options:
    """
    What the person who exports decides.

    :param owner: The DAG's owner. Default: Airflow's.
    :param connection: Id of the connection of type ``skyvern``.
    """

    owner: str | None = None
    connection: str = DEFAULT_CONNECTION
    max_active_runs: int = 1
    retries: int = 2


@dataclass(frozen=True)
class DagSection:
    """The part of a file that is one schedule's DAG."""

    schedule_id: str
    dag_id: str
    start: datetime
    text: str

    @property
    def paused(self) -> bool:
        """Whether Airflow keeps the DAG paused when it first sees it."""
        return "\n    is_paused_upon_creation=True,\n" in self.text

    @property
    def file_text(self) -> str:
        """The whole file of this DAG."""
        body = f"{HEADER.format(dag_import=since_3_0.dag_import())}\n{self.text}"
        return f"{MARK} sha256={_hash(body)}\n{body}"


@dataclass(frozen=True)
class Export:
    """One schedule's DAG, and what has to be known about it."""

    block: DagSection
    variables: tuple[str, ...]
    """The Airflow Variables that its secrets are read from."""
    summary: str = ""
    """The DAG in one line."""


@dataclass(frozen=True)
class DagFile:
    """What a file holds: one DAG, or several where a user put files together."""

    blocks: tuple[DagSection, ...]
    changed: bool = False
    """Whether a user changed it since it was written."""


def read_file(text: str) -> DagFile | None:
    """Take a file apart; None if it never was one of ours."""
    mark = _MARK_LINE.match(text)
    if mark is None:
        return DagFile((), changed=True) if MARK in text or _BLOCK_LINE.search(text) else None
    body = text[mark.end() :]
    found = list(_BLOCK_LINE.finditer(body))
    ends = [match.start() for match in found[1:]] + [len(body)]
    blocks = [
        DagSection(match[1], match[2], _moment(match[3]), body[match.start() : end].rstrip() + "\n")
        for match, end in zip(found, ends, strict=True)
    ]
    return DagFile(tuple(blocks), changed=_hash(body) != mark[1] or len(blocks) != 1)


def export(
    schedule: Schedule,
    title: str,
    start: datetime,
    options: Options,
    dag_id: str,
    *,
    paused: bool = False,
    ignored: Collection[str] = (),
) -> Export:
    """
    Write the DAG of one schedule.

    :param title: The title of its workflow.
    :param start: The first moment that Airflow may fire.
    :param paused: Whether Airflow is to keep the DAG paused when it first sees it.
    :param ignored: Parameters that the workflow does not have: as Skyvern ignores them, nothing is checked.
    :raises SkyvernConfigError: the schedule has no cron expression, or its id is not one.
    """
    if schedule.cron_expression is None:
        raise SkyvernConfigError(
            f"Schedule {schedule.workflow_schedule_id} fires {schedule.cadence}: only schedules with a cron "
            "expression can become a DAG. Give it one in Skyvern, or leave it there."
        )
    _check_id(schedule.workflow_schedule_id)
    parameters, variables = _parameters(schedule.parameters, dag_id)
    name = schedule.name or title or schedule.workflow_permanent_id
    defaults = {"owner": options.owner, "retries": options.retries}
    connection = options.connection
    text = BLOCK.format(
        schedule_id=schedule.workflow_schedule_id,
        dag_id=dag_id,
        start=_utc(start).strftime("%Y-%m-%dT%H:%M:%SZ"),
        dag_id_text=literal(dag_id),
        description=literal(_one_line(schedule.description or f"{name} (Skyvern)")),
        doc=_doc(schedule, title, variables),
        cron=literal(schedule.cron_expression),
        zone=literal(schedule.timezone),
        start_text=_moment_text(start, schedule.timezone),
        max_active_runs=options.max_active_runs,
        paused=paused,
        default_args=_inline({key: value for key, value in defaults.items() if value is not None}),
        tags=_inline_list(["skyvern", tag_of(schedule.workflow_schedule_id)]),
        workflow_id_text=literal(schedule.workflow_permanent_id),
        schedule_id_text=literal(schedule.workflow_schedule_id),
        parameters=f"\n        parameters={literal(parameters, 8)}," if parameters else "",
        check=UNCHECKED if ignored else "",
        connection=f"\n        skyvern_conn_id={literal(connection)}," if connection != DEFAULT_CONNECTION else "",
    )
    summary = (
        f"DAG {dag_id}, {schedule.cron_expression} in {schedule.timezone}, first run {_utc(start):%Y-%m-%dT%H:%MZ}"
    )
    created = ", created paused" if paused else ""
    return Export(DagSection(schedule.workflow_schedule_id, dag_id, _utc(start), text), variables, summary + created)


def tag_of(schedule_id: str) -> str:
    """Return the tag by which the DAG of a schedule is found in Airflow."""
    return f"{TAG_PREFIX}{schedule_id}"


def dag_id_for(schedule: Schedule, title: str, taken: Iterable[str]) -> str:
    """Make a DAG id of the schedule's name or the workflow's title; with the schedule's id where it is taken."""
    _check_id(schedule.workflow_schedule_id)
    words = re.sub(r"[^a-z0-9]+", "_", (schedule.name or title).lower()).strip("_")[:60].strip("_")
    dag_id = f"skyvern_{words}" if words else f"skyvern_{schedule.workflow_schedule_id}"
    return f"{dag_id}_{schedule.workflow_schedule_id}" if dag_id in set(taken) else dag_id


def _check_id(schedule_id: str) -> None:
    """Refuse an id that could break out of a file name or of a comment."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", schedule_id):
        raise SkyvernConfigError(f"{schedule_id!r} is not the id of a schedule: letters, digits, _ and - only.")


def _parameters(given: dict[str, Any], dag_id: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    variables: list[str] = []

    def written(name: str, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            secret = names_secret(name)  # then so is whatever is below it
            return {key: written(name if secret else key, item, f"{path}_{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [written(name, item, f"{path}_{number}") for number, item in enumerate(value, 1)]
        if looks_secret(name, value):
            variable = f"{dag_id}{re.sub(r'[^A-Za-z0-9_]+', '_', path)}"
            variables.append(variable)
            return f"{{{{ var.value.{variable} }}}}"
        return no_template(value) if isinstance(value, str) else value

    return {name: written(name, value, f"_{name}") for name, value in given.items()}, tuple(variables)


def no_template(text: str) -> str:
    """Write a text so that Jinja renders it unchanged: it would read templates, and change the ends of lines."""
    changed = text.endswith("\n") or any(sign in text for sign in ("{{", "{%", "{#", "\r"))
    return f"{{{{ {text!r} }}}}" if changed else text


def _doc(schedule: Schedule, title: str, variables: tuple[str, ...]) -> str:
    workflow = f"{title!r} ({schedule.workflow_permanent_id})" if title else schedule.workflow_permanent_id
    first = (
        f"Runs workflow {workflow} of Skyvern, as its schedule {schedule.workflow_schedule_id} does: "
        f"`{schedule.cron_expression}` in {schedule.timezone}. While that schedule is enabled in Skyvern, these runs "
        "are skipped."
    )
    secret = (
        f"Secrets are read from Airflow Variables: {', '.join(variables)}. Set each with "
        "`airflow variables set <name> <value>`."
    )
    parts = [first, *([schedule.description] if schedule.description else []), *([secret] if variables else [])]
    return "\n\n".join(_wrapped(part) for part in parts)


def _wrapped(text: str) -> str:
    plain = "".join(mark if mark.isprintable() else " " for mark in text)
    safe = plain.replace("\\", "\\\\").replace('"', "'")
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), safe)
    filled = textwrap.fill(whole, WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False)
    return filled.replace("\0", " ")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _inline(mapping: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{literal(key)}: {literal(value)}" for key, value in mapping.items()) + "}"


def _inline_list(values: list[str]) -> str:
    return "[" + ", ".join(literal(value) for value in values) + "]"


def _moment_text(moment: datetime, zone: str) -> str:
    """Write a moment as the clocks of a zone show it, and which one it is of an hour that they show twice."""
    local = _utc(moment).astimezone(check_zone(zone))
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    fold = f", fold={local.fold}" if twice else ""
    numbers = f"{local.year}, {local.month}, {local.day}, {local.hour}, {local.minute}"
    return f"pendulum.datetime({numbers}, tz={literal(zone)}{fold})"


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc).replace(second=0, microsecond=0)


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def literal(value: Any, indent: int = 0) -> str:
    """Write a JSON value as Python, as ``ruff format`` would: one item per line where it is not empty."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict) and value:
        return _lines("{", [f"{_text(key)}: {literal(item, indent + 4)}" for key, item in value.items()], "}", indent)
    if isinstance(value, list) and value:
        return _lines("[", [literal(item, indent + 4) for item in value], "]", indent)
    return repr(value)


def _lines(opening: str, items: list[str], closing: str, indent: int) -> str:
    inner = "".join(f"{' ' * (indent + 4)}{item},\n" for item in items)
    return f"{opening}\n{inner}{' ' * indent}{closing}"


def _text(value: str) -> str:
    """Write a text in double quotes, unless single ones spare escapes."""
    body = "".join(mark if mark in "'\"" else repr(mark)[1:-1] for mark in value)
    if value.count('"') > value.count("'"):
        return "'" + body.replace("'", "\\'") + "'"
    return '"' + body.replace('"', '\\"') + '"'


def ignored_parameters(schedule: Schedule, get_workflow: Callable[[str], Workflow]) -> tuple[str, ...]:
    """
    Return the parameters that the schedule's workflow does not have: Skyvern ignores them, the operator refuses them.

    None are returned where the workflow's definition cannot be fetched or read.
    """
    if not schedule.parameters:
        return ()
    try:
        workflow = get_workflow(schedule.workflow_permanent_id)
        if "parameters" not in workflow.workflow_definition:
            return ()
        settable = {parameter.key for parameter in workflow.parameters if parameter.is_settable}
    except (SkyvernError, TypeError, ValueError):
        return ()
    return tuple(sorted(set(schedule.parameters) - settable))
