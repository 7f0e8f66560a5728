"""The example, dags/compare_prices.py: both prices are read, and nothing is ordered before a person agrees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults

from airflow_skyvern.testing import completed
from tests.agents.scripted import Task, model_of
from tests.support.snippets import example_bag

if TYPE_CHECKING:
    from airflow_skyvern.testing.skyvern import Skyvern

EXAMPLE = Path(__file__).parents[2] / "dags" / "compare_prices.py"


async def test_compare_prices(skyvern: Skyvern, tmp_path: Path) -> None:
    (dag,) = example_bag(EXAMPLE, tmp_path).dags.values()
    prices = {"https://acme.example.com": 5.0, "https://oak.example.com": 4.5}
    skyvern.prompts(lambda given: completed({"price": prices[given["url"]], "currency": "EUR", "in_stock": True}))
    skyvern.credential("portal")
    skyvern.workflow(
        "wpid_123",
        parameters={"login": "credential_id", "portal": "string", "item": "string"},
        output={"order": "4711"},
    )
    asked = [("ask_acme", {"prompt": "The price of paper"}), ("ask_oak", {"prompt": "The price of paper"})]
    order = [("order", {"portal": "Oak", "item": "paper"})]
    agent = Agent(
        model_of(asked, order), toolsets=dag.get_task("buy").toolsets, output_type=[str, DeferredToolRequests]
    )
    task = Task()
    with task.runs():
        pause = await agent.run("Buy paper where it is cheaper.")
    assert isinstance(pause.output, DeferredToolRequests)
    (request,) = pause.output.approvals
    assert (request.tool_name, len(skyvern.started())) == ("order", 2)
    assert skyvern.started("wpid_123") == []
    task.ti.next_method = "resume_after_tool_approval"
    with task.resumes():
        done = await agent.run(
            message_history=pause.all_messages(),
            deferred_tool_results=DeferredToolResults(approvals={request.tool_call_id: True}),
        )
    assert "4711" in str(done.output)
    (ordered,) = skyvern.started("wpid_123")
    assert (ordered.parameters["portal"], ordered.parameters["item"]) == ("Oak", "paper")
