"""Everything that is done to a task execution: faults on the road, killed processes, and what users click."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from dev.fault_proxy import ELSEWHERE, HTML, REFUSED, Answer, Exchange

if TYPE_CHECKING:
    from random import Random

Way = Literal[
    "deferred",
    "worker",
    "reschedule",
    "timeout",
    "own",
    "nested",
    "nested_0",
    "session",
    "session_timeout",
    "login",
    "queue",
]
Kind = Literal["workflow", "file", "prompt"]
"""What is run: a stored workflow, a workflow file, or a prompt."""

UserAction = Literal["clear", "mark_failed", "mark_success", "queue", "remove_file", "delete_dag"]

KINDS: tuple[Kind, ...] = ("workflow", "file", "prompt")
SHORT, MEDIUM, STEADY, LATE = "short", "medium", "steady", "late"
WAITS, HELD, LONG, ITEM = "waits", "held", "long", "item"
FINAL = ("completed", "failed", "terminated", "timed_out", "canceled")
CLIENT_TIMEOUT = 8.0
"""Seconds after which the connection's client gives up on an answer."""


class Scene(Protocol):
    """What an effect may use of the execution that it happens to."""

    rng: Random
    asked: asyncio.Event
    """Set when the provider looks for the execution's run or cancels it."""

    started_again: asyncio.Event
    """Set when a second start of the execution has been answered."""

    @property
    def long_workflow(self) -> str:
        """The id of a workflow that outlives every execution."""

    def note(self, text: str) -> None:
        """Write down what happened."""

    def rename_credential(self) -> None:
        """Give the name of the execution's credential to another one."""

    def by_worker(self, pid: int | None) -> bool:
        """Return whether a process is a task's, not a triggerer's."""

    async def user(self, action: UserAction) -> None:
        """Do what a user does, and return when Airflow has taken it."""

    def later(self, work: Awaitable[None]) -> None:
        """Do something beside the request."""


Effect = Callable[[Exchange, Scene], Awaitable[bool]]
"""Returns whether it has done its deed; if not, the request is passed on and the next one is tried."""


@dataclass(frozen=True)
class Hook:
    """
    An effect on the requests of one kind.

    :param after: How many of them pass first.
    :param times: To how many it happens.
    :param seconds: From the first one on, it happens for so long to every request of the execution, whatever its kind
        (at least, and at most); starts only if they are the kind.
    """

    kind: str
    effect: Effect
    after: int = 0
    times: int = 1
    seconds: tuple[float, float] | None = None

    def is_for(self, kind: str, *, begun: bool) -> bool:
        """Return whether a request of this kind is one of those."""
        return kind == self.kind or (begun and kind != "start")


@dataclass(frozen=True)
class Fault:
    """
    What happens to one execution.

    :param workflows: How long the runs of the first try take, then those of the later ones.
    :param when_deferred: What the user does some seconds after the task was deferred.
    :param row: The line of the table that it is counted in, its own by default; a line's faults are dealt as one.
    :param orders: What happens inside the task's process, by point; see ``tests/faults/dags``.
    :param patient: Whether no run of it may be canceled, not even at the task's deadline.
    :param breaks: Whether the task's templates cannot be rendered on a retry, which then does nothing at all.
    :param abandoned: Whether Airflow itself ends or forgets the task: it has no result, but nothing may be left.
    :param namesakes: How many credentials have the name that the task gives; with two, nothing may be started.
    :param runs: What may be run, where the way is to defer or to wait in the worker; else it is a stored workflow.
    """

    name: str
    hooks: tuple[Hook, ...] = ()
    ways: tuple[Way, ...] = ("deferred", "worker")
    workflows: tuple[str, ...] = (SHORT,)
    when_deferred: UserAction | None = None
    weight: int = 1
    marks: UserAction | None = field(default=None)
    row: str = ""
    orders: Mapping[str, str] = field(default_factory=dict)
    patient: bool = False
    abandoned: bool = False
    breaks: bool = False
    namesakes: int = 1
    runs: tuple[Kind, ...] = KINDS

    def strikes(self, kind: str) -> bool:
        """Return whether it happens to requests of this kind, or right before one."""
        return any(hook.kind == kind for hook in self.hooks) or f"send.{kind}" in self.orders

    @property
    def line(self) -> str:
        """The line of the table that it is counted in."""
        return self.row or self.name

    @property
    def by_user(self) -> UserAction | None:
        """What the user does, if this fault is one."""
        return self.when_deferred or self.marks


# --- answers ---------------------------------------------------------------------------------------------


def lose(*, acted: bool, reset: bool) -> Effect:
    """Hang up, after the server acted or before."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        if acted:
            await exchange.forward()
        exchange.hang_up(reset=reset)
        return True

    return effect


def answer(
    status: int, *, html: bool = False, plain: str = "", detail: str = "as the suite asked", retry_after: str = ""
) -> Effect:
    """Answer without asking the server."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        headers = {"retry-after": retry_after} if retry_after else {}
        body = HTML if html else plain.encode() or f'{{"detail": "{detail}"}}'.encode()
        kind = "text/html" if html else "text/plain" if plain else "application/json"
        await exchange.reply(Answer(status, body, kind, headers))
        return True

    return effect


async def bad_gateway_after(exchange: Exchange, scene: Scene) -> bool:
    """Answer as a gateway that lost patience with a server that acted."""
    await exchange.forward()
    await exchange.reply(Answer(502, HTML, "text/html"))
    return True


async def half_a_body(exchange: Exchange, scene: Scene) -> bool:
    await exchange.half(await exchange.forward())
    return True


async def slow_answer(exchange: Exchange, scene: Scene) -> bool:
    """Let the server act, and answer when the client has given up."""
    given = await exchange.forward()
    await asyncio.sleep(CLIENT_TIMEOUT + 2)
    await exchange.reply(given)
    return True


def answered_after(seconds: float) -> Effect:
    """Let the server act, and answer after so long, as a browser takes that does not end."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        given = await exchange.forward()
        await asyncio.sleep(seconds)
        await exchange.reply(given)
        return True

    return effect


async def late_arrival(exchange: Exchange, scene: Scene) -> bool:
    """Let the request reach the server when the client has given up."""
    await asyncio.sleep(CLIENT_TIMEOUT + scene.rng.uniform(0.5, 3))
    await exchange.reply(await exchange.forward())
    return True


async def refused_key(exchange: Exchange, scene: Scene) -> bool:
    """Refuse the key in Skyvern's own words."""
    await exchange.reply(Answer(*REFUSED))
    return True


def once_polled(effect: Effect) -> Effect:
    """Only to what is asked about a run that was asked about before, with an answer."""

    async def later(exchange: Exchange, scene: Scene) -> bool:
        return await effect(exchange, scene) if exchange.was_polled else False

    return later


async def run_unknown_once(exchange: Exchange, scene: Scene) -> bool:
    """Say in Skyvern's own words that there is no such run, as a replica that lags behind does."""
    body = json.dumps({"detail": f"Task run not found {exchange.run_id}"}).encode()
    await exchange.reply(Answer(404, body))
    return True


async def other_run(exchange: Exchange, scene: Scene) -> bool:
    """Answer about another run, which has completed."""
    given = await exchange.forward()
    if not isinstance(given.document, dict):
        return False
    foreign = {"run_id": "wr_1000000000000000001", "status": "completed", "output": {"of": "another run"}}
    await exchange.reply(Answer(200, json.dumps({**given.document, **foreign}).encode()))
    return True


def by_gateway(given: Answer, *, acted: bool = False) -> Effect:
    """Answer as something between Airflow and Skyvern; Skyvern has acted nevertheless, or never got the request."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        if acted:
            await exchange.forward()
        await exchange.reply(given)
        return True

    return effect


def of_resumed(effect: Effect) -> Effect:
    """Let something happen to requests of workers only: those of a deferred task are its resumption's."""

    async def chosen(exchange: Exchange, scene: Scene) -> bool:
        return exchange.of_task and await effect(exchange, scene)

    return chosen


# --- what a gateway repeats, or keeps for long ------------------------------------------------------------


def repeated(*, answered: bool) -> Effect:
    """
    Send a start to the server twice, the second time on the gateway's own account.

    :param answered: Whether the task gets the first answer; then the second run outlives its task, as one of minutes
        would outlive the search that a task does at its end: the suite's runs are too short for that. Else the task
        has to search, and may take either run.
    """

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        changed = {"workflow_id": scene.long_workflow} if answered else {}
        given = await exchange.forward() if answered else await exchange.repeat()
        twin = await exchange.repeat(**changed)
        scene.note(f"the gateway repeats the start: {(twin.document or {}).get('run_id')}")
        await exchange.reply(given if answered else Answer(502, HTML, "text/html"))
        return True

    return effect


async def arrives_beside_the_next(exchange: Exchange, scene: Scene) -> bool:
    """Let a start arrive after everything has been done to find it, beside the next start of the task."""
    exchange.hang_up(reset=True)

    async def arrive() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(scene.started_again.wait(), 150)
            late = await exchange.repeat(workflow_id=scene.long_workflow)
            scene.note(f"the first start arrives: {(late.document or {}).get('run_id')}")

    scene.later(arrive())
    return True


# --- kills -----------------------------------------------------------------------------------------------


async def _victim(exchange: Exchange, scene: Scene, *, supervisor: bool) -> int | None:
    """Return the task process that sent a request, or its supervisor; None when a triggerer sent it."""
    pid = await asyncio.to_thread(exchange.client_pid)
    if pid is None or not scene.by_worker(pid):
        return None
    return _parent(pid) if supervisor else pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _kill(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def killed_before(*, arrives_late: bool, supervisor: bool = False) -> Effect:
    """Kill the process while the server knows nothing of its request; which is lost, or arrives later."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        if not _kill(await _victim(exchange, scene, supervisor=supervisor)):
            return False
        if arrives_late:
            await asyncio.sleep(scene.rng.uniform(1, 6))
            await exchange.reply(await exchange.forward())
        else:
            exchange.hang_up(reset=True)
        return True

    return effect


def killed_after(
    *, answered: bool, supervisor: bool = False, only_final: bool = False, then: UserAction | None = None
) -> Effect:
    """Kill the process when the server has acted, before it has the answer or shortly after; then a user acts."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        given = await exchange.forward()
        due = not only_final or (given.document or {}).get("status") in FINAL
        victim = await _victim(exchange, scene, supervisor=supervisor) if due else None
        if not answered:
            done = _kill(victim)
            await exchange.reply(given)
            if done:
                exchange.was_for_nobody()
            return done
        await exchange.reply(given)
        exchange.finish()
        await asyncio.sleep(scene.rng.uniform(0, 0.15))
        if not _kill(victim):
            return False
        exchange.was_for_nobody()
        if then is not None:
            scene.later(scene.user(then))
        return True

    return effect


async def killed_and_renamed(exchange: Exchange, scene: Scene) -> bool:
    """Kill the task once its run is there, and give the name of its credential to another one."""
    if not await killed_after(answered=True)(exchange, scene):
        return False
    await asyncio.to_thread(scene.rename_credential)
    return True


def stopped(*, supervisor: bool) -> Effect:
    """End the task's process in order, as a shutdown of the worker does; a retry is to come."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        victim = await _victim(exchange, scene, supervisor=supervisor)
        given = await exchange.forward()
        if victim is not None and (given.document or {}).get("status") not in FINAL:
            _signal(victim, signal.SIGTERM)
            await exchange.reply(given)
            return True
        await exchange.reply(given)
        return False

    return effect


async def stalled(exchange: Exchange, scene: Scene) -> bool:
    """Suspend the task and its supervisor past the heartbeat timeout; they wake up beside the retry."""
    task = await _victim(exchange, scene, supervisor=False)
    given = await exchange.forward()
    if task is None or (given.document or {}).get("status") in FINAL:
        await exchange.reply(given)
        return False
    victims = [_parent(task), task]
    for pid in victims:
        _signal(pid, signal.SIGSTOP)
    await exchange.reply(given)
    scene.later(_wake(victims))
    return True


async def _wake(pids: list[int]) -> None:
    await asyncio.sleep(50)
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- users -----------------------------------------------------------------------------------------------


def user_while_unanswered(action: UserAction) -> Effect:
    """The user acts while the answer to the start is on its way."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        given = await exchange.forward()
        await scene.user(action)
        await asyncio.sleep(scene.rng.uniform(1, CLIENT_TIMEOUT - 2))
        await exchange.reply(given)
        return True

    return effect


def user_before_arrival(action: UserAction) -> Effect:
    """The user acts while the start is on its way to the server; it arrives once the kill looks for its run."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        scene.asked.clear()
        await scene.user(action)
        try:
            await asyncio.wait_for(scene.asked.wait(), CLIENT_TIMEOUT - 1)
        except asyncio.TimeoutError:
            return False
        await exchange.reply(await exchange.forward())
        return True

    return effect


def user_while_running(action: UserAction) -> Effect:
    """The user acts while the worker waits."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        scene.later(scene.user(action))
        await exchange.reply(await exchange.forward())
        return True

    return effect


def user_while_completing(action: UserAction) -> Effect:
    """The user acts while the resumed task fetches the result."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        given = await exchange.forward()
        if (given.document or {}).get("status") in FINAL and scene.by_worker(
            await asyncio.to_thread(exchange.client_pid)
        ):
            await scene.user(action)
            await asyncio.sleep(3)
            await exchange.reply(given)
            return True
        await exchange.reply(given)
        return False

    return effect


# --- the list --------------------------------------------------------------------------------------------

ROAD: dict[str, Effect] = {
    "FIN after the server acted": lose(acted=True, reset=False),
    "RST after the server acted": lose(acted=True, reset=True),
    "FIN before it acted": lose(acted=False, reset=False),
    "RST before it acted": lose(acted=False, reset=True),
    "502 HTML after it acted": bad_gateway_after,
    "half a body": half_a_body,
    "answer too late": slow_answer,
    "request too late": late_arrival,
    "429": answer(429),
    "500": answer(500),
    "502 HTML": answer(502, html=True),
    "503 HTML": answer(503, html=True),
    "503 nothing created": answer(503, detail="No run was created; retry this request.", retry_after="1"),
}
NOT_SKYVERNS: dict[str, Effect] = {
    "404 of an ingress": answer(404, plain="404 page not found"),
    "403 of a WAF": answer(403, html=True),
    "408": answer(408, plain="Request Timeout"),
}
"""4xx that Skyvern has not given: they say nothing about a run."""


def _json(code: int, /, **body: object) -> Answer:
    return Answer(code, json.dumps(body).encode())


GATEWAY: dict[str, Answer] = {
    "302 to a login page": Answer(302, b"", "text/html", {"location": f"{ELSEWHERE}/login?rd=%2Fv1%2Fruns"}),
    "303 to a login page": Answer(303, b"", "text/html", {"location": f"{ELSEWHERE}/sso"}),
    "304": Answer(304, b"", "text/html"),
    "307": Answer(307, b"", "text/html", {"location": f"{ELSEWHERE}/moved"}),
    "401 HTML": Answer(401, HTML, "text/html", {"www-authenticate": 'Basic realm="gateway"'}),
    "403 HTML": Answer(403, HTML, "text/html"),
    "404 HTML": Answer(404, HTML, "text/html"),
    "405 HTML": Answer(405, HTML, "text/html"),
    "404 of Spring": _json(404, timestamp="2026-11-29T10:00:00Z", status=404, error="Not Found", path="/v1/runs"),
    "404 Not Found": _json(404, detail="Not Found"),
    "501": Answer(501, HTML, "text/html"),
    "501 JSON": _json(501, message="Unsupported method"),
    "400 of another product": _json(400, error="invalid_request", error_description="no upstream for this host"),
    "404 of another product": _json(404, error="service_unknown", request_id="c0ffee"),
    "422 of another product": _json(422, error={"code": 7, "message": "unprocessable"}),
    "200 HTML": Answer(200, b"<html><form action='/login'>Sign in</form></html>", "text/html"),
    "200 {}": _json(200),
}
"""What something between Airflow and Skyvern answers; nothing of it says anything about a run."""

BOTH: tuple[Way, ...] = ("deferred", "worker")
WORKER: tuple[Way, ...] = ("worker",)
DEFERRED: tuple[Way, ...] = ("deferred",)
TWO: tuple[str, ...] = (LONG, SHORT)
STORED: tuple[Kind, ...] = ("workflow",)


def _user_faults(action: UserAction) -> list[Fault]:
    said = action.replace("_", " ")
    workflows = TWO if action == "clear" else (LONG,)
    get = [
        Fault(f"{said}, start unanswered", (Hook("start", user_while_unanswered(action)),), marks=action),
        Fault(f"{said}, start not arrived", (Hook("start", user_before_arrival(action)),), marks=action),
        Fault(f"{said}, running", (Hook("get", user_while_running(action), after=1),), WORKER, marks=action),
        Fault(f"{said}, deferred", ways=DEFERRED, when_deferred=action, weight=2),
    ]
    return [Fault(**{**vars(fault), "workflows": workflows}) for fault in get]


def _road_faults() -> list[Fault]:
    starts = [Fault(f"start: {name}", (Hook("start", effect),)) for name, effect in ROAD.items()]
    gets = [
        Fault(f"get: {name}", (Hook("get", effect, after=after, times=3),))
        for (name, effect), after in zip(ROAD.items(), [0, 1, 2] * len(ROAD), strict=False)
        if name != "503 nothing created"
    ]
    lost = Hook("start", ROAD["RST after the server acted"])
    finds = [
        Fault(f"start lost, find: {name}", (lost, Hook("find", ROAD[name], times=3)))
        for name in ("RST before it acted", "502 HTML", "half a body", "429")
    ]
    return [*starts, *gets, *finds]


def _cancel_faults() -> list[Fault]:
    return [
        Fault(
            f"mark failed, cancel: {name}",
            (Hook("cancel", ROAD[name]),),
            DEFERRED,
            (LONG,),
            when_deferred="mark_failed",
        )
        for name in ("RST before it acted", "502 HTML after it acted", "answer too late", "503 HTML")
    ]


def _kill_faults() -> list[Fault]:
    task: list[tuple[str, str, Effect, tuple[Way, ...]]] = [
        ("before the POST", "start", killed_before(arrives_late=False), BOTH),
        ("before the POST arrives", "start", killed_before(arrives_late=True), BOTH),
        ("POST unanswered", "start", killed_after(answered=False), BOTH),
        ("POST answered", "start", killed_after(answered=True), BOTH),
        ("while waiting", "get", killed_after(answered=True), WORKER),
        ("completing", "get", killed_after(answered=False, only_final=True), BOTH),
        ("completed", "get", killed_after(answered=True, only_final=True), BOTH),
    ]
    supervisor: list[tuple[str, str, Effect, tuple[Way, ...]]] = [
        ("before the POST arrives", "start", killed_before(arrives_late=True, supervisor=True), BOTH),
        ("POST answered", "start", killed_after(answered=True, supervisor=True), BOTH),
        ("while waiting", "get", killed_after(answered=True, supervisor=True), WORKER),
        ("completing", "get", killed_after(answered=True, supervisor=True, only_final=True), BOTH),
    ]
    stops = [
        Fault("task SIGTERM while waiting", (Hook("get", stopped(supervisor=False), after=1),), WORKER, weight=2),
        Fault("supervisor SIGTERM while waiting", (Hook("get", stopped(supervisor=True), after=1),), WORKER),
        Fault("worker suspended past its heartbeat", (Hook("get", stalled, after=1),), WORKER),
    ]
    road = [Fault(f"get: {name}", (Hook("get", effect, times=3),), weight=2) for name, effect in NOT_SKYVERNS.items()]
    return (
        stops
        + road
        + [
            Fault(f"{what} killed {when}", (Hook(kind, effect),), ways, weight=2)
            for what, kills in (("task", task), ("supervisor", supervisor))
            for when, kind, effect, ways in kills
        ]
    )


def _gateway_faults() -> list[Fault]:
    lost = Hook("start", killed_after(answered=True))
    half_a_minute = (25.0, 30.0)
    faults = []
    for name, given in GATEWAY.items():
        answered, acted = by_gateway(given), by_gateway(given, acted=True)
        # Row, what comes first, kind, effect, how many pass, seconds, ways, workflow.
        places: list[tuple[str, tuple[Hook, ...], Hook, tuple[Way, ...], str]] = [
            ("start, acted", (), Hook("start", acted), BOTH, SHORT),
            ("start, not arrived", (), Hook("start", answered), BOTH, SHORT),
            ("start, acted, 25 s", (), Hook("start", acted, seconds=half_a_minute), BOTH, MEDIUM),
            ("parameter check", (), Hook("workflow", answered), BOTH, SHORT),
            ("search", (lost,), Hook("find", answered), BOTH, MEDIUM),
            ("search, 25 s", (lost,), Hook("find", answered, seconds=half_a_minute), BOTH, MEDIUM),
            ("tags", (lost,), Hook("tags", answered), BOTH, MEDIUM),
            ("poll", (), Hook("get", answered, after=1), WORKER, SHORT),
            ("poll, 25 s", (), Hook("get", answered, after=1, seconds=half_a_minute), BOTH, MEDIUM),
            ("resumption", (), Hook("get", of_resumed(answered)), DEFERRED, SHORT),
            ("resumption, 25 s", (), Hook("get", of_resumed(answered), seconds=half_a_minute), DEFERRED, SHORT),
            ("sensor, 25 s", (), Hook("get", answered, after=1, seconds=half_a_minute), ("reschedule",), MEDIUM),
        ]
        faults += [
            Fault(f"gateway, {place}: {name}", (*before, hook), ways, (workflow,), row=f"gateway, {place}")
            for place, before, hook, ways, workflow in places
        ]
        faults += [
            Fault(
                f"gateway, cancel, {did}: {name}",
                (Hook("cancel", effect),),
                DEFERRED,
                (LONG,),
                when_deferred="mark_failed",
                row="gateway, cancel",
            )
            for did, effect in (("acted", acted), ("not arrived", answered))
        ]
    polled_before = Hook("get", run_unknown_once, after=1)
    return [
        *faults,
        Fault("one answer about another run", (Hook("get", other_run, after=1),), WORKER),
        Fault("resumed, one answer about another run", (Hook("get", of_resumed(other_run)),), DEFERRED),
        Fault("one 404 of Skyvern, worker", (polled_before,), WORKER, (MEDIUM,)),
        Fault("one 404 of Skyvern, deferred", (Hook("get", run_unknown_once),), DEFERRED, (MEDIUM,)),
    ]


def _stall_faults() -> list[Fault]:
    """
    Task and supervisor stand still right before a request leaves, until the retry has acted.

    ``send``: the client has the request, and has done nothing with it. ``transport``: it has done all but write it.
    """
    lost = Hook("start", ROAD["RST after the server acted"])
    killed = Hook("start", killed_after(answered=True))
    cases: list[tuple[str, str, tuple[Hook, ...], tuple[Way, ...], str]] = [
        ("start", "send.start", (), BOTH, MEDIUM),
        ("start, connecting", "transport.start", (), BOTH, MEDIUM),
        ("parameter check", "send.workflow", (), BOTH, MEDIUM),
        ("search after a lost start", "send.find", (lost,), BOTH, MEDIUM),
        ("search of a retry", "send.find", (killed,), BOTH, STEADY),
        ("tags", "send.tags", (killed,), BOTH, STEADY),
        ("poll", "send.get", (), WORKER, MEDIUM),
        ("fetch at resumption", "send.get", (), DEFERRED, SHORT),
        ("cancel at the deadline", "send.cancel", (), BOTH, LATE),
    ]
    return [
        Fault(f"stalled before the {what}", hooks, ways, (workflow, MEDIUM), orders={point: "stop"}, patient=True)
        for what, point, hooks, ways, workflow in cases
    ]


def _sigterm_faults() -> list[Fault]:
    """The task is asked to end when it does not know its run yet, or has just been resumed; a retry is to come."""
    killed = Hook("start", killed_after(answered=True))
    whom = ("task", "supervisor", "group")
    before = [
        Fault(
            f"SIGTERM before the search, {who}",
            (killed,),
            BOTH,
            (MEDIUM,),
            row="SIGTERM before the search",
            orders={"retry": who},
            patient=True,
        )
        for who in whom
    ]
    cases: list[tuple[str, str, dict[str, str]]] = [
        ("ended", SHORT, {}),
        ("deadline", LATE, {}),
        ("error", MEDIUM, {"trigger": "fail"}),
    ]
    resumed = [
        Fault(
            f"SIGTERM at resumption, {reason}, {who}",
            (),
            DEFERRED,
            (workflow, MEDIUM),
            row=f"SIGTERM at resumption, {reason}",
            orders={**more, "resume": who},
            patient=True,
        )
        for reason, workflow, more in cases
        for who in whom
    ]
    return before + resumed


def _key_faults() -> list[Fault]:
    killed = Hook("start", killed_after(answered=True))
    for_a_while = (20.0, 60.0)
    return [
        Fault("key refused, retry", (killed, Hook("find", refused_key, seconds=for_a_while)), BOTH, (MEDIUM,)),
        Fault("key refused, worker", (Hook("get", refused_key, after=1, seconds=for_a_while),), WORKER, (MEDIUM,)),
        Fault("key refused, resumption", (Hook("get", of_resumed(refused_key), seconds=for_a_while),), DEFERRED),
        Fault(
            "key refused, sensor",
            (Hook("get", once_polled(refused_key), seconds=for_a_while),),
            ("reschedule",),
            (MEDIUM,),
        ),
    ]


def _airflow_faults() -> list[Fault]:
    """What Airflow does to a DAG run, a DAG or its file."""
    killed = Hook("start", killed_after(answered=True, then="queue"))
    completed = Hook("get", killed_after(answered=True, only_final=True, then="queue"))
    lost = Hook("start", killed_after(answered=True))
    own: tuple[Way, ...] = ("own",)
    return [
        Fault("DAG run queued, run active", (killed,), BOTH, (MEDIUM,), patient=True),
        Fault("DAG run queued, run completed", (completed,), BOTH, patient=True),
        Fault("DAG run timed out between tries", (lost,), ("timeout",), (LONG,), abandoned=True),
        Fault("DAG run timed out, deferred", (), ("timeout",), (LONG,), abandoned=True),
        Fault("retries render badly", (lost,), BOTH, (LONG,), abandoned=True, breaks=True),
        Fault("DAG file removed", (), own, (LONG,), when_deferred="remove_file", abandoned=True),
        Fault("DAG deleted", (), own, (LONG,), when_deferred="delete_dag", abandoned=True),
    ]


def _session_faults() -> list[Fault]:
    """The task is in a browser session; what is done to opening and closing is done to its setup and teardown."""
    within: tuple[Way, ...] = ("session",)
    opening = {
        "RST after the server acted": ROAD["RST after the server acted"],
        "RST before it acted": ROAD["RST before it acted"],
        "502 HTML": ROAD["502 HTML"],
        "404 of Spring, acted": by_gateway(GATEWAY["404 of Spring"], acted=True),
        "task killed, unanswered": killed_after(answered=False),
        "task killed, answered": killed_after(answered=True),
    }
    closing = {
        "RST after the server acted": ROAD["RST after the server acted"],
        "502 HTML": ROAD["502 HTML"],
        "answer after 40 s": answered_after(40.0),
        "302 to a login page": by_gateway(GATEWAY["302 to a login page"]),
        "task killed": killed_before(arrives_late=False),
    }
    in_use = {
        "start lost": Hook("start", ROAD["RST after the server acted"]),
        "task killed, POST answered": Hook("start", killed_after(answered=True)),
        "supervisor killed, POST answered": Hook("start", killed_after(answered=True, supervisor=True)),
        "turn: 502 HTML": Hook("session", ROAD["502 HTML"]),
    }
    return [
        Fault("session", ways=within, weight=2),
        *(Fault(f"session opens, {name}", (Hook("open", effect),), within) for name, effect in opening.items()),
        *(Fault(f"session closes, {name}", (Hook("close", effect),), within) for name, effect in closing.items()),
        *(Fault(f"session in use, {name}", (hook,), within) for name, hook in in_use.items()),
        Fault("session in use, clear", ways=within, workflows=TWO, when_deferred="clear"),
        Fault("session in use, mark failed", ways=within, workflows=(LONG,), when_deferred="mark_failed"),
        Fault("session in use, DAG run timed out", ways=("session_timeout",), workflows=(LONG,), abandoned=True),
    ]


def _login_faults() -> list[Fault]:
    """The task gives a credential by its name, beside which there are others that a search finds, too."""
    login: tuple[Way, ...] = ("login",)
    names = {name: ROAD[name] for name in ("RST before it acted", "502 HTML", "half a body", "429")}
    names |= {name: by_gateway(GATEWAY[name]) for name in ("200 {}", "200 HTML", "404 of Spring")}
    return [
        Fault("credential", ways=login, weight=2),
        *(
            Fault(f"credential, names: {name}", (Hook("credentials", effect),), login)
            for name, effect in names.items()
        ),
        Fault("credential, start lost", (Hook("start", ROAD["RST after the server acted"]),), login),
        Fault("credential, renamed beside a killed task", (Hook("start", killed_and_renamed),), login, (MEDIUM,)),
        Fault("credential, two of the name", ways=login, namesakes=2),
        Fault("credential, clear", ways=login, workflows=TWO, when_deferred="clear"),
    ]


def _twin_faults() -> list[Fault]:
    return [
        Fault("start repeated by a gateway, answered", (Hook("start", repeated(answered=True)),), runs=STORED),
        Fault(
            "start repeated by a gateway, 502",
            (Hook("start", repeated(answered=False)),),
            workflows=(MEDIUM,),
            runs=STORED,
        ),
        Fault("start arrives after lost_start_timeout", (Hook("start", arrives_beside_the_next),), runs=STORED),
    ]


def _making_faults() -> list[Fault]:
    """What befalls the creation of a workflow, of a file or for prompts, and the update to another version."""
    gateway = {
        f"{name}, {did}": by_gateway(given, acted=acted)
        for name, given in GATEWAY.items()
        for did, acted in (("acted", True), ("not arrived", False))
    }
    kills = {
        "killed before it arrives": killed_before(arrives_late=True),
        "killed, unanswered": killed_after(answered=False),
        "killed, answered": killed_after(answered=True),
    }
    made: list[tuple[str, tuple[Kind, ...]]] = [("create", ("file", "prompt")), ("update", ("file",))]
    faults = [
        Fault(f"{kind}, {row}: {name}", (Hook(kind, effect),), row=f"{kind}, {row}", runs=runs)
        for kind, runs in made
        for row, effects in (("road", ROAD), ("gateway", gateway), ("task killed", kills))
        for name, effect in effects.items()
    ]
    stalls = [
        Fault(f"stalled before the {kind}", (), BOTH, (MEDIUM,), orders={f"send.{kind}": "stop"}, runs=runs)
        for kind, runs in made
    ]
    return faults + stalls


NESTED = [
    Fault("A, B, C in one task, which fails once", ways=("nested",), workflows=(ITEM,)),
    Fault("A, B, C in one task", ways=("nested_0",), workflows=(ITEM,)),
]

FAULTS: list[Fault] = [
    Fault("none", weight=3),
    *_gateway_faults(),
    *_stall_faults(),
    *_sigterm_faults(),
    *_key_faults(),
    *_airflow_faults(),
    *_twin_faults(),
    *_session_faults(),
    *_login_faults(),
    *_making_faults(),
    *NESTED,
    *_road_faults(),
    *_cancel_faults(),
    *_kill_faults(),
    *_user_faults("clear"),
    *_user_faults("mark_failed"),
    *_user_faults("mark_success"),
    Fault("clear, completing", (Hook("get", user_while_completing("clear")),), DEFERRED, marks="clear"),
]
