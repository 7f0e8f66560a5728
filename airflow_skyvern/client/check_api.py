"""Endpoints for the check of a set-up, in addition to the endpoints that tasks use."""

from __future__ import annotations

from airflow_skyvern.client import answers
from airflow_skyvern.client.calls import Call, get, post
from airflow_skyvern.models import RunSummary
from airflow_skyvern.models.resources import WebhookTest

PAGE_SECONDS = 10.0
"""For a page to answer: a person would not wait longer either."""


def send_test_webhook(webhook_url: str) -> Call[WebhookTest]:
    """
    Let Skyvern send a made-up webhook, signed as a real one, and say what was answered.

    It is about a run that is of no workflow, so no event comes of it. Skyvern waits for the answer for up to a
    minute. No part of the public API.

    :param webhook_url: Where to.
    """
    body = {"webhook_url": webhook_url, "run_type": "task"}
    return post("/v1/internal/test-webhook", "test a webhook", WebhookTest, body=body, repeatable=False)


def newest_run() -> Call[list[RunSummary]]:
    """List the newest run of the organization."""
    return get("/v1/runs", "list the newest run", list[RunSummary], {"page_size": 1}, known=answers.LIST_RUNS)


def open_page() -> Call[int]:
    """Open the page at the base URL, as a browser would; no redirect is followed."""
    return Call("GET", "", "open a page of Skyvern's UI", len, within=PAGE_SECONDS)
