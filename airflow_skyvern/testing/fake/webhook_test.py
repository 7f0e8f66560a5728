"""The fake's test of webhooks: it sends one, as the server does, so that what answers can be anything on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime, timezone
from typing import Any

import httpx

from airflow_skyvern.testing.fake.records import stamp

SHOWN = 2048
"""Characters of the receiver's answer that the server repeats."""


def sent_as_test(webhook_url: str, api_key: str) -> dict[str, Any]:
    """Send a made-up webhook about a task, signed with the key, and say what came of it."""
    body = json.dumps(_sample()).encode()
    headers = {
        "content-type": "application/json",
        "x-skyvern-signature": hmac.new(api_key.encode(), body, hashlib.sha256).hexdigest(),
    }
    result = {"status_code": None, "latency_ms": 3, "response_body": "", "headers_sent": headers, "error": None}
    try:
        answer = httpx.post(webhook_url, content=body, headers=headers, trust_env=False, timeout=10)
    except httpx.NetworkError as error:
        return {**result, "error": f"Could not reach URL: {error}"}
    return {**result, "status_code": answer.status_code, "response_body": answer.text[:SHOWN]}


def _sample() -> dict[str, Any]:
    now = stamp(datetime.now(timezone.utc))
    times = dict.fromkeys(("created_at", "modified_at", "queued_at", "started_at", "finished_at"), now)
    return {"run_id": "tsk_sample_123456789", "run_type": "task_v1", "status": "completed", **times}
