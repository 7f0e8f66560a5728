"""The schedules of the fake. They go by the real clock, unless a test sets ``fake.clock``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from airflow_skyvern.testing.fake.checks import complaint, detail, page_of
from airflow_skyvern.testing.fake.records import ORGANIZATION, Run, Seen, Workflow, stamp

NO_SCHEDULES = (
    "Workflow schedules are disabled in this Skyvern build. "
    "Use Skyvern Cloud or override AgentFunction with a scheduling backend."
)


def utcnow() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class Schedule:
    """A schedule; whether it fires is up to the test."""

    schedule_id: str
    workflow: Workflow
    cron_expression: str
    timezone: str
    parameters: dict[str, Any] | None
    name: str | None
    description: str | None
    enabled: bool
    created_at: datetime
    modified_at: datetime
    interval_seconds: int | None = None
    run_at: datetime | None = None

    def next_runs(self, now: datetime) -> list[str]:
        runs = croniter(self.cron_expression, now.astimezone(ZoneInfo(self.timezone)))
        moments = [runs.get_next(datetime).astimezone(timezone.utc) for _ in range(5)]
        return [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in moments]

    @property
    def view(self) -> dict[str, Any]:
        return {
            "workflow_schedule_id": self.schedule_id,
            "organization_id": ORGANIZATION,
            "workflow_permanent_id": self.workflow.workflow_id,
            "cron_expression": None if self.interval_seconds or self.run_at else self.cron_expression,
            "interval_seconds": self.interval_seconds,
            "first_fire_at": None,
            "run_at": stamp(self.run_at) if self.run_at else None,
            "dispatch_status": None,
            "workflow_run_id": None,
            "timezone": self.timezone,
            "enabled": self.enabled,
            "parameters": self.parameters,
            "temporal_schedule_id": f"local-wf-sched-{self.schedule_id}",
            "name": self.name,
            "description": self.description,
            "created_at": stamp(self.created_at),
            "modified_at": stamp(self.modified_at),
            "deleted_at": None,
        }


class FakeSchedules:
    """The part of :class:`~airflow_skyvern.testing.fake.skyvern.FakeSkyvern` that knows schedules."""

    workflows: dict[str, Workflow]
    runs: dict[str, Run]
    schedules: dict[str, Schedule]
    clock: Callable[[], datetime] = staticmethod(utcnow)
    has_schedules = True

    def _id(self, prefix: str) -> str:
        raise NotImplementedError

    def schedule(self, workflow_id: str, cron_expression: str = "30 2 * * *", **more: Any) -> Schedule:
        """Add a schedule."""
        given = {"timezone": "UTC", "parameters": None, "name": None, "description": None, "enabled": True, **more}
        now = self.clock()
        made = Schedule(
            self._id("wfs"),
            self.workflows[workflow_id],
            cron_expression,
            **{"created_at": now, "modified_at": now, **given},
        )
        self.schedules[made.schedule_id] = made
        return made

    def fire(self, schedule_id: str, at: datetime) -> str:
        """Run a schedule, as the server does at that moment, and return the run's id."""
        made = self.schedules[schedule_id]
        run = Run(
            self._id("wr_sched"), made.workflow, made.parameters or {}, {}, None, at, {}, schedule_id=schedule_id
        )
        self.runs[run.run_id] = run
        return run.run_id

    def _scheduled_workflow(self, workflow_id: str) -> Workflow:
        if not self.has_schedules:
            raise detail(501, NO_SCHEDULES)
        found = self.workflows.get(workflow_id)
        if found is None or found.deleted:
            raise detail(404, f"Workflow {workflow_id} not found")
        return found

    def _schedule_of(self, workflow_id: str, schedule_id: str) -> Schedule:
        self._scheduled_workflow(workflow_id)
        found = self.schedules.get(schedule_id)
        if found is None or found.workflow.workflow_id != workflow_id:
            raise detail(404, f"Schedule {schedule_id} not found")
        return found

    def _details(self, made: Schedule) -> dict[str, Any]:
        return {"schedule": made.view, "next_runs": made.next_runs(self.clock())}

    def _create_schedule(self, seen: Seen, workflow_id: str) -> Any:
        if not self.has_schedules:
            raise detail(501, NO_SCHEDULES)
        fields = _checked(seen.json)
        workflow = self._scheduled_workflow(workflow_id)
        _check_parameters(workflow, fields["parameters"] or {})
        return self._details(self.schedule(workflow_id, **{**fields, "enabled": seen.json.get("enabled", True)}))

    def _list_schedules(self, seen: Seen, workflow_id: str) -> Any:
        self._scheduled_workflow(workflow_id)
        mine = [made for made in self.schedules.values() if made.workflow.workflow_id == workflow_id]
        return {"schedules": [made.view for made in mine]}

    def _list_all_schedules(self, seen: Seen) -> Any:
        if not self.has_schedules:
            raise detail(501, NO_SCHEDULES)
        page, size = page_of(seen, most_rows=100)
        wanted = {"active": True, "paused": False}.get((seen.query.get("status") or [""])[0])
        search = (seen.query.get("search") or [""])[0].lower()
        rows = [
            made
            for made in reversed(self.schedules.values())
            if wanted in (None, made.enabled)
            if search in made.workflow.title.lower() or search in (made.name or "").lower()
        ]
        return {
            "schedules": [self._row(made) for made in rows[(page - 1) * size : page * size]],
            "total_count": len(rows),
            "page": page,
            "page_size": size,
        }

    def _row(self, made: Schedule) -> dict[str, Any]:
        hidden = ("temporal_schedule_id", "deleted_at")
        view = {key: value for key, value in made.view.items() if key not in hidden}
        next_run = made.next_runs(self.clock())[0] if made.enabled else None
        return {**view, "workflow_title": made.workflow.title, "next_run": next_run}

    def _get_schedule(self, seen: Seen, workflow_id: str, schedule_id: str) -> Any:
        return self._details(self._schedule_of(workflow_id, schedule_id))

    def _update_schedule(self, seen: Seen, workflow_id: str, schedule_id: str) -> Any:
        made = self._schedule_of(workflow_id, schedule_id)
        for name, value in _checked(seen.json).items():
            setattr(made, name, value)
        made.interval_seconds = None
        made.enabled = seen.json.get("enabled", made.enabled)
        return self._modified(made)

    def _enable_schedule(self, seen: Seen, workflow_id: str, schedule_id: str) -> Any:
        made = self._schedule_of(workflow_id, schedule_id)
        made.enabled = True
        return self._modified(made)

    def _disable_schedule(self, seen: Seen, workflow_id: str, schedule_id: str) -> Any:
        made = self._schedule_of(workflow_id, schedule_id)
        made.enabled = False
        return self._modified(made)

    def _modified(self, made: Schedule) -> dict[str, Any]:
        made.modified_at = max(self.clock(), made.modified_at + timedelta(microseconds=1))
        return self._details(made)

    def _delete_schedule(self, seen: Seen, workflow_id: str, schedule_id: str) -> Any:
        del self.schedules[self._schedule_of(workflow_id, schedule_id).schedule_id]
        return {"ok": True}


_OF_WORKFLOW = "/v1/workflows/([^/]+)/schedules"
SCHEDULE_ROUTES = (
    ("GET", "/v1/schedules", "_list_all_schedules"),
    ("POST", _OF_WORKFLOW, "_create_schedule"),
    ("GET", _OF_WORKFLOW, "_list_schedules"),
    ("GET", f"{_OF_WORKFLOW}/([^/]+)", "_get_schedule"),
    ("PUT", f"{_OF_WORKFLOW}/([^/]+)", "_update_schedule"),
    ("DELETE", f"{_OF_WORKFLOW}/([^/]+)", "_delete_schedule"),
    ("POST", f"{_OF_WORKFLOW}/([^/]+)/enable", "_enable_schedule"),
    ("POST", f"{_OF_WORKFLOW}/([^/]+)/disable", "_disable_schedule"),
)


def _check_parameters(workflow: Workflow, given: dict[str, Any]) -> None:
    where = f"schedule parameters for workflow {workflow.workflow_id}"
    if unknown := sorted(set(given) - set(workflow.parameters)):
        raise detail(400, f"Unknown {where}: {', '.join(unknown)}")
    if missing := sorted(set(workflow.parameters) - set(workflow.defaults) - set(given)):
        raise detail(400, f"Missing {where}: {', '.join(missing)}")


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    """Refuse what the server refuses of a schedule, and return what it stores."""
    if "timezone" not in body:
        raise complaint("missing", ["body", "timezone"], "Field required", body)
    if not croniter.is_valid(body["cron_expression"]):
        raise detail(400, "Invalid cron expression")
    runs = croniter(body["cron_expression"], utcnow())
    moments = [runs.get_next(datetime) for _ in range(300)]
    if min(later - earlier for earlier, later in pairwise(moments)) < timedelta(minutes=5):
        raise detail(400, "Cron interval must be at least 5 minutes")
    try:
        ZoneInfo(body["timezone"])
    except (ZoneInfoNotFoundError, ValueError):
        raise detail(400, f"Invalid timezone '{body['timezone']}'") from None
    given = {name: body.get(name) for name in ("cron_expression", "timezone", "parameters", "name", "description")}
    kept = {key: value for key, value in (given["parameters"] or {}).items() if value is not None}
    return {**given, "parameters": kept or None}
