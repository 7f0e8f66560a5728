"""Reads runs from Skyvern for the pages: each once for all viewers, and only what belongs to a DAG they may see."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client import api
from airflow_skyvern.client.answers import is_unreadable_pause
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient, with_own_page
from airflow_skyvern.client.session import AsyncSession, afetch_run
from airflow_skyvern.client.versions import is_missing_route
from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernRequestError,
    SkyvernServerError,
)
from airflow_skyvern.hooks import ServerHook
from airflow_skyvern.limits import PAGE_SIZE
from airflow_skyvern.runs.blocks import failing_block
from airflow_skyvern.runs.key import TASK_TAG, task_tag
from airflow_skyvern.runs.login_code import identifier_at
from airflow_skyvern.runs.login_failure import call_for_name, login_failure, named_ids
from airflow_skyvern.runs.lookup import has_no_tags
from airflow_skyvern.ui.cache import SharedCache
from airflow_skyvern.ui.lookup import RunRef
from airflow_skyvern.ui.page_data import RunData, page_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings
    from airflow_skyvern.models import Artifact, Run, RunCost, RunSummary, TimelineItem
    from airflow_skyvern.runs.login_code import CodeStep
    from airflow_skyvern.ui.lookup import TaskKey

PATIENCE = 10.0
"""Seconds that a page waits for Skyvern; a person is waiting."""

SETTINGS_MAX_AGE = 60.0
"""Seconds for which a connection is not read again. After a refused key it is read again at once."""

CLOSING_DELAY = 600.0
"""Seconds until the client of an edited connection is closed: a transfer may be in progress."""

ACTIVE_TTL = 4.0
"""Seconds for which all viewers see an active run as it was fetched."""

ENDED_TTL = 60.0
"""Seconds for a run that has ended a while ago."""

REASON_TTL = 3600.0
"""Seconds for which lists keep the reason of a run's end, which does not change."""

REASONS_PATIENCE = 4.0
"""Seconds that a list waits for the reasons of its runs; the next refresh has the others."""

MOST_REASONS_AT_ONCE = 4
"""Runs that are fetched at the same time for their reasons, in one process."""

MOST_SEEN = 2000
"""Runs whose last status is kept for the time in which Skyvern does not answer."""

TAGS_TTL = 300.0
"""Seconds for the tags of a run, which do not change."""

PARSE_IN_THREAD_BYTES = 64_000
"""Answers of this size or more are parsed in a thread: Airflow's own API shares the event loop."""

DAG_TAG = "airflow_dag_id"
PICTURES = ("screenshot_action", "screenshot_final", "screenshot_llm")
RECORDING = "recording"
DOWNLOAD = "download"


@dataclass(frozen=True)
class LastSeen:
    """
    A run as last fetched.

    :param dag_id: The DAG that started it, according to its tags.
    """

    status: str
    at: datetime
    dag_id: str | None


class Clients:
    """
    The clients of the connections that pages need, on the event loop of the API server.

    :param settings: Reads the settings of a connection.
    """

    def __init__(self, settings: Callable[[str], Any] = lambda conn_id: ServerHook(conn_id).asettings()) -> None:
        self._settings = settings
        self._sessions: dict[str, AsyncSession] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self, conn_id: str) -> AsyncSkyvernClient:
        """Return the client of a connection in its current form, or as it was up to a minute ago."""
        return await self._session(conn_id).client(SETTINGS_MAX_AGE)

    async def send(self, conn_id: str, call: Call[Any]) -> Any:
        """Send a call and read its answer, or one page of a list, large ones in a thread; notice a rotated key."""
        raw: Call[bytes] = replace(call, parse=bytes, last_page=None, fits=None)
        client = await self.get(conn_id)  # reads an old connection again
        body = await self._session(conn_id).send(raw)
        large = len(body) >= PARSE_IN_THREAD_BYTES
        result = await run_in_threadpool(call.result_of, body) if large else call.result_of(body)
        return with_own_page(call.kept(result), client.settings)

    async def run_page(self, conn_id: str, address: str | None) -> str | None:
        """Return the address of a run's page by the current connection, or by the last one if that cannot be read."""
        try:
            return (await self.get(conn_id)).settings.run_page(address)
        except (SkyvernError, AirflowNotFoundException):
            return address

    def _session(self, conn_id: str) -> AsyncSession:
        if conn_id not in self._sessions:
            connect = partial(self._connect, conn_id)
            self._sessions[conn_id] = AsyncSession(connect, _new_client, self._close_later, fresh=1.0)
        return self._sessions[conn_id]

    async def _connect(self, conn_id: str) -> Settings:
        settings: Settings = await self._settings(conn_id)
        return settings.within(PATIENCE)

    def _close_later(self, replaced: AsyncSkyvernClient) -> None:
        """Close a client whose connection was edited, once its requests in flight have been answered."""
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSING_DELAY, lambda: self._closing.add(loop.create_task(replaced.aclose())))


def _new_client(settings: Settings) -> AsyncSkyvernClient:
    return AsyncSkyvernClient(settings, retry=RetryPolicy(attempts=1))


class RunReader:
    """
    Reads runs for the pages.

    :param clients: The clients of the connections.
    """

    def __init__(self, clients: Clients | None = None) -> None:
        self.clients = clients or Clients()
        self._pages: SharedCache[RunData] = SharedCache(_ttl_of)
        self._tags: SharedCache[Mapping[str, str]] = SharedCache(lambda _: TAGS_TTL, capacity=5000)
        self._artifacts: SharedCache[Mapping[str, Artifact]] = SharedCache(lambda _: ACTIVE_TTL)
        self._recordings: SharedCache[Mapping[str, Artifact]] = SharedCache(lambda _: ACTIVE_TTL)
        self._lists: SharedCache[Sequence[RunSummary]] = SharedCache(lambda _: ACTIVE_TTL)
        self._schedules: SharedCache[str | None] = SharedCache(lambda _: TAGS_TTL)
        self._names: SharedCache[str] = SharedCache(lambda _: TAGS_TTL, capacity=5000)
        self._code_identifiers: SharedCache[str] = SharedCache(lambda _: TAGS_TTL)
        self._reasons: SharedCache[str] = SharedCache(lambda _: REASON_TTL, capacity=5000)
        self._free = asyncio.Semaphore(MOST_REASONS_AT_ONCE)
        self._seen: dict[RunRef, LastSeen] = {}
        self.untagged: set[str] = set()
        """Connections whose Skyvern has no run tags."""

    async def run(self, ref: RunRef) -> RunData:
        """Return the page of a run."""
        return await self._pages.get(ref, lambda: self._fetch(ref))

    def last_seen(self, ref: RunRef) -> LastSeen | None:
        """Return a run as last fetched by this process, for use while Skyvern does not answer."""
        return self._seen.get(ref)

    async def reason(self, ref: RunRef) -> str:
        """Return why a run ended badly."""
        return await self._reasons.get(ref, lambda: self._fetch_reason(ref))

    async def reasons(self, refs: Iterable[RunRef]) -> dict[RunRef, str]:
        """Return why runs ended badly: reasons that arrive within some seconds now, the others next time."""
        wanted = list(refs)
        waiting = [asyncio.ensure_future(self.reason(ref)) for ref in wanted]
        for one in waiting:
            one.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
        if waiting:
            await asyncio.wait(waiting, timeout=REASONS_PATIENCE)
        return {
            ref: one.result()
            for ref, one in zip(wanted, waiting, strict=True)
            if one.done() and one.exception() is None
        }

    async def dag_of(self, ref: RunRef) -> str | None:
        """Return the DAG that started a run, from its tags; None if it has none of ours."""
        return (await self._tags.get(ref, lambda: self._fetch_tags(ref))).get(DAG_TAG)

    async def artifacts(self, ref: RunRef) -> Mapping[str, Artifact]:
        """Return the run's artifacts, by id."""
        return await self._artifacts.get(ref, lambda: self._fetch_artifacts(ref))

    async def artifact(self, ref: RunRef, artifact_id: str, kinds: Sequence[str]) -> Artifact | None:
        """Return an artifact of this run and of one of these kinds; None for any other."""
        found = (await self.artifacts(ref)).get(artifact_id)
        return found if found is not None and found.artifact_type in kinds else None

    async def recording(self, ref: RunRef) -> Artifact | None:
        """Return the newest recording of a run; not from a list that was fetched before the run had one."""
        left_behind = await self._recordings.get(ref, lambda: self._fetch_artifacts(ref))
        found = [item for item in left_behind.values() if item.artifact_type == RECORDING and not item.archived]
        return max(found, key=lambda item: str(item.created_at), default=None)

    async def code_identifier(self, ref: RunRef, step: CodeStep) -> str:
        """Return the destination of a code for a step of a run; empty while Skyvern does not report it."""

        async def fetch() -> str:
            return await identifier_at(partial(self.clients.send, ref.skyvern_conn_id), step) or ""

        try:
            return await self._code_identifiers.get((ref, step.task_id), fetch)
        except (SkyvernError, ValidationError):
            return ""

    async def listed(self, conn_id: str, call: Call[Any]) -> Sequence[RunSummary]:
        """Return a list of runs."""
        key = (conn_id, call.path, repr(sorted(call.query.items())))
        return await self._lists.get(key, lambda: self.clients.send(conn_id, call))

    async def tags(self, conn_id: str, run_ids: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """Return the tags of runs; tags that are not cached take one request per hundred."""
        unknown = [run_id for run_id in run_ids if RunRef(conn_id, run_id) not in self._tags]
        for start in range(0, len(unknown), PAGE_SIZE):
            some = unknown[start : start + PAGE_SIZE]
            answer = await self._all_tags(conn_id, some)
            for run_id in some:
                self._tags.put(RunRef(conn_id, run_id), answer.get(run_id, {}))
        return {run_id: await self._known_tags(RunRef(conn_id, run_id)) for run_id in run_ids}

    async def run_of_try(self, key: TaskKey, conn_id: str, ended_at: datetime) -> RunRef | None:
        """
        Find the run of a finished try by the tag of its task instance: the newest run that existed by then.

        Airflow stores nothing about an earlier try that was not deferred.
        """
        tag = task_tag(key.dag_id, key.run_id, key.task_id, key.map_index, since_3_0.installation())
        rows = await self.listed(conn_id, api.find_runs({TASK_TAG: tag}).as_answered())
        carried = await self.tags(conn_id, [row.run_id for row in rows])
        for row in sorted(rows, key=lambda row: str(row.created_at), reverse=True):
            ours = carried.get(row.run_id, {}).get(TASK_TAG) == tag  # a server may ignore the filter
            if ours and row.created_at is not None and row.created_at <= ended_at:
                return RunRef(conn_id, row.run_id)
        return None

    async def _known_tags(self, ref: RunRef) -> Mapping[str, str]:
        return await self._tags.get(ref, lambda: self._fetch_tags(ref))

    async def _fetch_reason(self, ref: RunRef) -> str:
        async with self._free:
            return (await self.run(ref)).reason

    async def _remember(self, ref: RunRef, run: Run) -> None:
        self._seen.pop(ref, None)
        self._seen[ref] = LastSeen(run.status, datetime.now(timezone.utc), await self.dag_of(ref))
        while len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    async def _fetch(self, ref: RunRef) -> RunData:
        run, timeline = await asyncio.gather(
            afetch_run(partial(self.clients.send, ref.skyvern_conn_id), ref.run_id), self._fetch_timeline(ref)
        )
        pictures: list[str] = []
        if timeline is None:
            artifacts = (await self.artifacts(ref)).values()
            found = [item for item in artifacts if item.artifact_type in PICTURES[:2]]
            pictures = [
                item.artifact_id for item in sorted(found, key=lambda item: str(item.created_at), reverse=True)
            ]
        await self._remember(ref, run)
        schedule_id = await self._schedules.get(ref, lambda: self._fetch_schedule(ref, run))
        cost, sizes, names = await asyncio.gather(
            self._fetch_cost(ref, run), self._sizes(ref, run), self._names_in(ref, run)
        )
        login = await self._login_failure(ref, run, timeline or [])
        # Requested after the run: a browser session's recording has an address, but no artifact to fetch.
        has_recording = run.is_final and bool(run.recording_url) and await self.recording(ref) is not None
        return await run_in_threadpool(
            lambda: page_of(
                run,
                timeline or [],
                pictures,
                schedule_id,
                has_recording=has_recording,
                cost=cost,
                sizes=sizes,
                names=names,
                login_failure=login,
            )
        )

    async def _names_in(self, ref: RunRef, run: Run) -> Mapping[str, str]:
        """Return the names of a run's browser profile and credentials, by their ids, if Skyvern has them."""
        ids = named_ids(run)
        names = await asyncio.gather(
            *(self._names.get((ref.skyvern_conn_id, one), self._name_of(ref, one)) for one in ids)
        )
        return {one: name for one, name in zip(ids, names, strict=True) if name}

    def _name_of(self, ref: RunRef, wanted: str) -> Callable[[], Awaitable[str]]:
        async def fetch() -> str:
            try:
                found = await self.clients.send(ref.skyvern_conn_id, call_for_name(wanted))
            except (SkyvernError, ValidationError):  # it was deleted, say
                return ""
            return str(found.name)

        return fetch

    async def _login_failure(self, ref: RunRef, run: Run, timeline: Sequence[TimelineItem]) -> str:
        """Return why a run's login failed, if that is why the run ended badly."""
        if not run.is_final or run.succeeded:
            return ""

        loop = asyncio.get_running_loop()

        def send(call: Call[Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(self.clients.send(ref.skyvern_conn_id, call), loop).result()

        block = failing_block(timeline)
        what = await run_in_threadpool(login_failure, send, run, block)
        return f"Block {block.label}: {what}." if what and block is not None and block.label else what

    async def _fetch_cost(self, ref: RunRef, run: Run) -> RunCost:
        """Return the cost of a run, once it is over; empty if Skyvern does not report it."""
        if not run.is_final:
            return {}
        try:
            found: RunCost = await self.clients.send(ref.skyvern_conn_id, api.get_run_cost(ref.run_id))
        except (SkyvernError, ValidationError):
            return {}
        return found

    async def _sizes(self, ref: RunRef, run: Run) -> Mapping[str, int]:
        """Return the sizes of downloaded files if the run itself does not report them."""
        if all(file.file_size is not None for file in run.downloaded_files):
            return {}
        found = (await self.artifacts(ref)).values()
        return {artifact.artifact_id: artifact.file_size for artifact in found if artifact.file_size is not None}

    async def _fetch_timeline(self, ref: RunRef) -> list[TimelineItem] | None:
        """Return the timeline; None if none exists: a task (400), a deleted workflow, a pause before 1.0.48."""
        try:
            found: list[TimelineItem] = await self.clients.send(ref.skyvern_conn_id, api.get_run_timeline(ref.run_id))
        except (SkyvernRequestError, SkyvernNotFoundError):
            return None
        except SkyvernServerError as error:
            if not is_unreadable_pause(error):
                raise
            return None
        return found

    async def _fetch_schedule(self, ref: RunRef, run: Run) -> str | None:
        """Return the schedule that started the run; only lists of runs contain it, and runs of tasks have none."""
        workflow_id = (run.run_request or {}).get("workflow_id")
        if not workflow_id or run.created_at is None or await self.dag_of(ref) is not None:
            return None
        until = run.created_at + timedelta(seconds=1)
        try:
            rows = await self.clients.send(
                ref.skyvern_conn_id,
                api.list_workflow_runs(workflow_id, created_at_start=run.created_at, created_at_end=until),
            )
        except SkyvernError:
            return None
        return next((row.workflow_schedule_id for row in rows if row.run_id == ref.run_id), None)

    async def _fetch_artifacts(self, ref: RunRef) -> Mapping[str, Artifact]:
        found = await self.clients.send(ref.skyvern_conn_id, api.list_run_artifacts(ref.run_id))
        return {artifact.artifact_id: artifact for artifact in found}

    async def _fetch_tags(self, ref: RunRef) -> Mapping[str, str]:
        return (await self._all_tags(ref.skyvern_conn_id, [ref.run_id])).get(ref.run_id, {})

    async def _all_tags(self, conn_id: str, run_ids: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """Fetch tags; they are empty if the organization or the server has no run tags."""
        try:
            found = await self.clients.send(conn_id, api.get_run_tags(run_ids))
        except SkyvernAPIError as error:
            if has_no_tags(error) or is_missing_route(error):
                self.untagged.add(conn_id)
                return {}
            raise
        self.untagged.discard(conn_id)
        return {run_id: found.of(run_id) for run_id in run_ids}


def _ttl_of(page: RunData) -> float:
    return ENDED_TTL if page.has_ended else ACTIVE_TTL
