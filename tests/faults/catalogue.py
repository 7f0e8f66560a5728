"""Everything that is done to a task execution: faults on the road, killed processes, and what users click."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from dev.fault_proxy import HTML, Answer, Exchange

if TYPE_CHECKING:
    from random import Random

Way = Literal["deferred", "worker"]
UserAction = Literal["clear", "mark_failed", "mark_success"]

SHORT, LONG = "short", "long"
FINAL = ("completed", "failed", "terminated", "timed_out", "canceled")
CLIENT_TIMEOUT = 8.0
"""Seconds after which the connection's client gives up on an answer."""


class Scene(Protocol):
    """What an effect may use of the execution that it happens to."""

    rng: Random
    asked: asyncio.Event
    """Set when the provider looks for the execution's run or cancels it."""

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
    """

    kind: str
    effect: Effect
    after: int = 0
    times: int = 1


@dataclass(frozen=True)
class Fault:
    """
    What happens to one execution.

    :param workflows: How long the runs of the first try take, then those of the later ones.
    :param when_deferred: What the user does some seconds after the task was deferred.
    """

    name: str
    hooks: tuple[Hook, ...] = ()
    ways: tuple[Way, ...] = ("deferred", "worker")
    workflows: tuple[str, ...] = (SHORT,)
    when_deferred: UserAction | None = None
    weight: int = 1
    marks: UserAction | None = field(default=None)

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


async def late_arrival(exchange: Exchange, scene: Scene) -> bool:
    """Let the request reach the server when the client has given up."""
    await asyncio.sleep(CLIENT_TIMEOUT + scene.rng.uniform(0.5, 3))
    await exchange.reply(await exchange.forward())
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


def killed_after(*, answered: bool, supervisor: bool = False, only_final: bool = False) -> Effect:
    """Kill the process when the server has acted, before it has the answer or shortly after."""

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        given = await exchange.forward()
        due = not only_final or (given.document or {}).get("status") in FINAL
        victim = await _victim(exchange, scene, supervisor=supervisor) if due else None
        if not answered:
            done = _kill(victim)
            await exchange.reply(given)
            return done
        await exchange.reply(given)
        exchange.finish()
        await asyncio.sleep(scene.rng.uniform(0, 0.15))
        return _kill(victim)

    return effect


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

BOTH: tuple[Way, ...] = ("deferred", "worker")
WORKER: tuple[Way, ...] = ("worker",)
DEFERRED: tuple[Way, ...] = ("deferred",)
TWO: tuple[str, ...] = (LONG, SHORT)


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


FAULTS: list[Fault] = [
    Fault("none", weight=3),
    *_road_faults(),
    *_cancel_faults(),
    *_kill_faults(),
    *_user_faults("clear"),
    *_user_faults("mark_failed"),
    *_user_faults("mark_success"),
    Fault("clear, completing", (Hook("get", user_while_completing("clear")),), DEFERRED, marks="clear"),
]
