"""A trigger that is canceled while it asks Airflow: its answer is taken nevertheless, or the triggerer would end."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync

import airflow_skyvern
from airflow_skyvern.compat import internals


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
async def test_a_question_is_asked_to_its_end_though_its_trigger_is_canceled(fails: bool) -> None:
    """The supervisor's answer is read by the event loop, for a thread: as Airflow 3.0 and 3.1 do it."""
    read: list[str] = []
    begun = asyncio.Event()
    unnoticed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unnoticed.append(context))

    async def exchange() -> str:
        read.append("question")
        begun.set()
        await asyncio.sleep(0.05)
        read.append("answer")
        if fails:
            raise RuntimeError("Airflow has no such task")
        return "deferred"

    asking = asyncio.create_task(internals.in_thread(async_to_sync(exchange)))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert read == ["question"]  # the trigger does not wait for it
    await asyncio.sleep(0.2)
    assert read == ["question", "answer"]
    assert unnoticed == []
    assert not internals._ASKED


async def test_an_answer_and_an_error_reach_the_trigger() -> None:
    assert await internals.in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await internals.in_thread(divmod, 7, 0)


@pytest.mark.slow
def test_no_other_way_leads_from_an_event_loop_to_a_blocking_question() -> None:
    root = Path(airflow_skyvern.__file__).parent
    using = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and any(name.name == "sync_to_async" for name in node.names)
    }
    assert using == {"compat/internals.py"}
