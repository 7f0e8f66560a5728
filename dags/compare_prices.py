"""An agent compares the prices of two portals in a browser, and asks a person before it orders; Airflow 3.3."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.ai.operators.agent import AgentOperator
from airflow.sdk import DAG, Param
from pydantic import BaseModel  # noqa: TID253  a DAG with a model needs it

from airflow_skyvern.hooks import SkyvernHook


class Price(BaseModel):
    """What each portal is asked for."""

    price: float
    currency: str
    in_stock: bool


skyvern = SkyvernHook()
acme = skyvern.agent(sites=["https://acme.example.com"], output_schema=Price, max_steps=15)
oak = skyvern.agent(sites=["https://oak.example.com"], output_schema=Price, max_steps=15)
order = skyvern.agent("wpid_123", parameters={"login": "portal"})

with DAG(
    "skyvern_compare_prices",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    schedule=None,
    params={"item": Param("50 sheets of A4 paper", type="string")},
    tags=["skyvern", "example"],
    doc_md=__doc__,
):
    AgentOperator(
        task_id="buy",
        llm_conn_id="pydanticai_default",
        prompt="Find out which of the two portals is cheaper for {{ params.item }}, and order it there.",
        toolsets=[
            acme.toolset("ask_acme", description="Find a price on ACME's portal."),
            oak.toolset("ask_oak", description="Find a price on Oak's portal."),
            order.toolset("order", description="Order an item on a portal.").approval_required(),
        ],
        retries=2,
    )
