"""Questions of a task to its supervisor, over a real connection: which answer is to which question."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FrameType
from typing import Any
from uuid import UUID

import pytest

from airflow_skyvern.compat import tries
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.compat.tries import Standing
from airflow_skyvern.task.task_try import UNKNOWN, TaskTry

if not is_airflow_3():
    pytest.skip("tasks of Airflow 2 ask the database", allow_module_level=True)

import msgspec

comms: Any = import_module("airflow.sdk.execution_time.comms")
task_runner: Any = import_module("airflow.sdk.execution_time.task_runner")

GONE = {"error": "API_SERVER_ERROR", "detail": {"status_code": 404, "message": "gone"}, "type": "ErrorResponse"}
NO_STATES = {"task_states": {"manual__1": {"t": "running"}}, "type": "TaskStatesResult"}
ACTIVE = {"inactive_assets": [], "type": "InactiveAssetsResult"}
Answer = tuple[dict[str, Any] | None, dict[str, Any] | None]
"""Body and error."""


class Supervisor:
    """Answers each question after what happens meanwhile, in the order in which they come."""

    def __init__(self, connection: socket.socket, answer: Callable[[str], Answer]) -> None:
        self.asked: list[str] = []
        self._connection, self._answer = connection, answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while head := self._connection.recv(4):
            length = int.from_bytes(head, "big")
            number, message, *_ = msgspec.msgpack.decode(self._connection.recv(length, socket.MSG_WAITALL))
            self.asked.append(message["type"])
            body, error = self._answer(message["type"])
            self._connection.sendall(comms._ResponseFrame(id=number, body=body, error=error).as_bytes())


@pytest.fixture
def task_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, Any]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms.CommsDecoder(socket=ours), raising=False)
        ids = {"dag_id": "d", "run_id": "manual__1", "task_id": "t", "map_index": -1}
        yield theirs, task_runner.RuntimeTaskInstance.model_construct(id=UUID(int=7), try_number=1, **ids)


def test_a_signal_during_a_question_does_not_mix_up_the_answers(task_side: tuple[socket.socket, Any]) -> None:
    """A task that was stopped for long is told to end while it asks whether it is still the current one."""
    connection, ti = task_side
    said: list[str | None] = []
    handled = threading.Event()

    def handle(_: int, __: FrameType | None) -> None:
        context: Any = {"ti": ti}
        said.append(TaskTry(context).state_within(0.5))
        handled.set()

    def answer(question: str) -> Answer:
        if question != "ValidateInletsAndOutlets":
            return NO_STATES, None
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        handled.wait(5)
        return None, GONE

    supervisor = Supervisor(connection, answer)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert tries.standing(ti) is Standing.OVERTAKEN
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert said == [UNKNOWN]
    assert supervisor.asked[0] == "ValidateInletsAndOutlets"


def test_the_answer_to_another_question_proves_nothing(task_side: tuple[socket.socket, Any]) -> None:
    connection, ti = task_side
    Supervisor(connection, lambda _: (NO_STATES, None))
    with pytest.raises(RuntimeError, match="Airflow answered another question: TaskStatesResult"):
        tries.standing(ti)


@pytest.mark.parametrize(
    ("answer", "standing"), [((ACTIVE, None), Standing.CURRENT), ((None, GONE), Standing.OVERTAKEN)]
)
def test_what_airflow_says_of_a_try(task_side: tuple[socket.socket, Any], answer: Answer, standing: Standing) -> None:
    connection, ti = task_side
    Supervisor(connection, lambda question: answer if question == "ValidateInletsAndOutlets" else (NO_STATES, None))
    assert tries.standing(ti) is standing
