"""Finished runs as asset events: a DAG starts when a run that something else started has finished; Airflow 3."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_skyvern.client import api
from airflow_skyvern.compat import since_3_3
from airflow_skyvern.durations import LONGEST_INTERVAL, LONGEST_WAIT, SHORTEST_INTERVAL, seconds_of
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.finished_runs.poller import (
    FinishedRunsPoller,
    Subscription,
    finished_runs_poller,
    log_failure,
    retry_delay_after,
    starting_watermark,
)
from airflow_skyvern.finished_runs.uri import FinishedRun, checked_statuses, runs_uri
from airflow_skyvern.finished_runs.watermark_store import WatermarkStore
from airflow_skyvern.task.arguments import refuse_late_values
from airflow_skyvern.triggers.run import stored_as

if TYPE_CHECKING:
    from airflow_skyvern.finished_runs.watermark import ListedRun, Watermark

ACCEPTED = range(200, 300)

REFUSED_FOR_GOOD = frozenset({400, 413})
"""Answers of the receiver that will be the same the next time: an output that is too large, a wrong clock."""

MOST_REDELIVERED = 50
"""Webhooks that Skyvern is asked to send again in one poll; the next poll takes others."""


class SkyvernWorkflowRunsTrigger(BaseEventTrigger):
    """
    Watch a workflow for finished runs, regardless of who started them; for an ``AssetWatcher``.

    :func:`airflow_skyvern.assets.skyvern_runs` makes asset and watcher together. A poll makes at most one event,
    with all the runs that finished since: its payload is ``{"runs": [...]}``, each a
    :class:`~airflow_skyvern.assets.FinishedRun`. Airflow 3.3 keeps for the asset which runs were handed over; it is
    stored when an event is certainly in Airflow's database, so a triggerer that is killed repeats a run at the
    worst, and loses none. Errors are logged and the pauses grow; they never end the watch.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-runs

    :param workflow_id: The workflow to watch.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Watchers of a connection share their polls.
    :param statuses: Only runs that ended in these statuses. Default: all.
    :param poll_interval: Seconds between two polls; the shortest of the connection counts. Default: 30.
    :param lookback: Below Airflow 3.3 nothing is stored: a starting watcher reports the runs that finished in this
        many seconds before, because a restart should repeat runs rather than lose them. Default: 600.
    :param redeliver_to: Address of this Airflow's webhooks. The watcher then creates no events: it asks Skyvern to
        send each finished run's webhook there until it is accepted.
    :param newer: As with :class:`SkyvernRunTrigger`.
    :raises SkyvernConfigError: an argument is wrong.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    commit_delay: ClassVar[float] = 10.0
    """Seconds after which an event is assumed to be in Airflow's database; Airflow does not notify a trigger."""

    event_interval: ClassVar[float] = 10.0
    """
    Seconds between two events, at least. Airflow starts no DAG for an event that comes while its scheduler starts one
    for the event before; that run would wait for the next event, which may be long in coming.
    """

    def __init__(
        self,
        workflow_id: str,
        skyvern_conn_id: str = "skyvern_default",
        *,
        statuses: Iterable[str] | str | None = None,
        poll_interval: float = 30.0,
        lookback: float = 600.0,
        redeliver_to: str | None = None,
        **newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's class carries no types
        refuse_late_values(poll_interval=poll_interval, lookback=lookback, redeliver_to=redeliver_to)
        runs_uri(workflow_id, skyvern_conn_id, statuses)  # complains
        self.workflow_id = workflow_id
        self.skyvern_conn_id = skyvern_conn_id
        self.statuses = checked_statuses(statuses)
        self.poll_interval = _seconds("poll_interval", poll_interval, least=SHORTEST_INTERVAL, most=LONGEST_INTERVAL)
        self.lookback = _seconds("lookback", lookback, or_zero=True)
        self.redeliver_to = _address("redeliver_to", redeliver_to)
        self._newer = tuple(newer)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        kwargs = {
            "workflow_id": self.workflow_id,
            "skyvern_conn_id": self.skyvern_conn_id,
            "statuses": list(self.statuses),
            "poll_interval": self.poll_interval,
            "lookback": self.lookback,
            "redeliver_to": self.redeliver_to,
        }
        return stored_as(self, kwargs, self._newer)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch for ever; yield an event whenever a poll has brought finished runs."""
        watermarks = self._watermarks()
        async with finished_runs_poller(self.skyvern_conn_id) as poller:
            subscription = Subscription(self.workflow_id, await self._begin(poller, watermarks), self.poll_interval)
            self.log.info("Skyvern workflow %s: watching for finished runs", self.workflow_id)
            next_event = 0.0
            async with poller.joined(subscription):
                while True:
                    result = await subscription.result()
                    ended, mark = subscription.mark.forget(result.gone).take(
                        result.rows_of(subscription), result.latest
                    )
                    wanted = [row for row in ended if row.status in self.statuses]
                    if wanted and self.redeliver_to is not None:
                        mark = mark.without(await self._redelivered(poller, wanted, self.redeliver_to))
                    elif wanted and time.monotonic() < next_event:
                        mark = mark.without({row.run_id for row in wanted})
                    elif wanted:
                        next_event = time.monotonic() + self.event_interval
                        self.log.info("Skyvern workflow %s: %d runs have finished", self.workflow_id, len(wanted))
                        yield TriggerEvent({"runs": [await self._described(poller, row) for row in wanted]})
                        watermarks.event_sent()
                    subscription.mark = mark
                    await watermarks.write(mark)

    def _watermarks(self) -> WatermarkStore:
        identity = [self.workflow_id, self.skyvern_conn_id, self.statuses, self.redeliver_to is not None]
        return WatermarkStore(since_3_3.asset_state_store(self), identity, commit_delay=self.commit_delay)

    async def _begin(self, poller: FinishedRunsPoller, watermarks: WatermarkStore) -> Watermark:
        """Return the watermark of an earlier watcher, or one that begins now; retried for as long as that fails."""
        ended_since = None if watermarks.exists else datetime.now(timezone.utc) - timedelta(seconds=self.lookback)
        for failures in itertools.count(1):
            try:
                mark = await watermarks.read()
                return mark or await watermarks.write(
                    await starting_watermark(poller.hook, self.workflow_id, ended_since)
                )
            except Exception as error:  # noqa: BLE001  Airflow restarts a watcher that raises every 2 s, for ever
                delay = retry_delay_after(error, failures, self.poll_interval)
                log_failure(
                    f"Skyvern workflow {self.workflow_id}: cannot watch it yet, next try in {delay:.0f} s", error
                )
            await asyncio.sleep(delay)
        raise AssertionError

    async def _described(self, poller: FinishedRunsPoller, row: ListedRun) -> FinishedRun:
        return FinishedRun(
            run_id=row.run_id,
            status=row.status,
            workflow_id=self.workflow_id,
            finished_at=row.finished_at.isoformat() if row.finished_at else None,
            app_url=await poller.app_url(row),
        )

    async def _redelivered(self, poller: FinishedRunsPoller, rows: list[ListedRun], address: str) -> set[str]:
        """Let Skyvern send the webhooks of these runs, and return the ids of those that were not accepted."""
        left = {row.run_id for row in rows}
        for row in random.sample(rows, min(len(rows), MOST_REDELIVERED)):  # the same ones may fail again and again
            try:
                answer = await poller.hook.asend(api.retry_webhook(row.run_id, address))
            except SkyvernError as error:
                log_failure(f"Skyvern run {row.run_id}: its webhook could not be sent again, will try later", error)
                break
            if answer.status_code not in ACCEPTED:
                said = answer.error or f"status {answer.status_code}"
                final = answer.status_code in REFUSED_FOR_GOOD
                then = "it will not be sent again" if final else "it will be sent again"
                self.log.warning("Skyvern run %s: %s refused its webhook (%s); %s", row.run_id, address, said, then)
                if not final:
                    continue
            left.discard(row.run_id)
        return left


def _seconds(
    name: str, value: Any, *, least: float = 0.0, most: float = LONGEST_WAIT, or_zero: bool = False
) -> float:
    """Check a duration that Airflow stores as JSON: no timedelta."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or (value == 0 and not or_zero):
        raise SkyvernConfigError(f"{name} must be a number of seconds{'' if or_zero else ' above 0'}, not {value!r}.")
    return seconds_of(name, value, least=least, most=most, or_zero=or_zero)


def _address(name: str, value: str | None) -> str | None:
    parts = urlsplit(value or "https://none")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise SkyvernConfigError(f"{name} must be an address such as https://airflow.example.com/skyvern/webhooks/c.")
    return value
