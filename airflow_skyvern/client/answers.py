"""
Lists Skyvern's known refusals in one table. For a success, the model says what it is about (``is_about``).

Proxies, gateways and load balancers answer in Skyvern's place: redirects to a login page, their own 404s as JSON,
501s, web pages with status 200; also to a request that Skyvern has carried out. So an answer counts as Skyvern's
only with the status, the form and the words that a Skyvern server has at that endpoint. Everything else may pass: a
wait continues, and a start may have started a run. A newer Skyvern may reword a refusal; then the same happens, which
is late but correct.

The words are those of Skyvern 1.0.30 to 1.0.56. Its error bodies are JSON objects with exactly one key, ``detail``
or ``error``, and no header distinguishes it from a proxy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernServerError,
)


@dataclass(frozen=True)
class Refusal:
    """
    One refusal of Skyvern.

    :param words: Its text; ``{id}`` is the id that the request is about, ``{}`` any text. None: FastAPI's list of
        errors in the request.
    :param kind: The class of the error.
    :param nothing_done: Whether the request certainly did nothing.
    :param transient: Whether the same request may succeed later, if that differs from the class.
    :param key: The key of the body that holds the words.
    """

    status: int
    words: str | None
    kind: type[SkyvernAPIError]
    nothing_done: bool = True
    transient: bool | None = None
    key: str = "detail"

    def matches(self, status: int, said: Said, subject: str | None) -> bool:
        """Return whether this was the answer to a request about this id."""
        if status != self.status or said.key != self.key:
            return False
        if self.words is None or said.words is None:
            return self.words is said.words
        found = _pattern(self.words).fullmatch(said.words)
        return found is not None and found.groupdict().get("id", subject) == subject


@dataclass(frozen=True)
class Said:
    """The content of an error body in Skyvern's form; ``words`` is None for FastAPI's list."""

    key: str
    words: str | None


NO_SUCH_ROUTE = {404: "Not Found", 405: "Method Not Allowed"}
"""
Every FastAPI server's answer for an address without an endpoint: an old Skyvern, or a gateway.
Skyvern always names a run or workflow that it does not know, so this says nothing about one.
"""

NO_TAGS = "Workflow tagging is not enabled for this organization."

EVERYWHERE = (
    Refusal(403, "Invalid credentials", SkyvernAuthError),
    Refusal(403, "Could not validate credentials", SkyvernAuthError),
    Refusal(403, "Invalid authentication method", SkyvernAuthError),
    Refusal(403, "You do not have permission to access this organization", SkyvernAuthError),
    Refusal(403, "Auth token is expired", SkyvernAuthError),
    Refusal(422, None, SkyvernRequestError),
    Refusal(429, "Rate limit exceeded{}", SkyvernRateLimitError),
    Refusal(500, "Unexpected error: {}", SkyvernServerError, nothing_done=False, key="error"),
    Refusal(503, "Database temporarily unavailable", SkyvernServerError, nothing_done=False, key="error"),
)

ANY_WORDS = (
    # Where no run is at stake, an error body in Skyvern's form is believed, whatever its words.
    *(Refusal(status, "{}", SkyvernRequestError) for status in (400, 422)),
    *(Refusal(status, "{}", SkyvernAuthError) for status in (401, 403)),
    Refusal(404, "{}", SkyvernNotFoundError),
    *(Refusal(status, "{}", SkyvernAPIError) for status in (405, 409, 410, 413, 501)),
)

CREATE_WORKFLOW = (
    Refusal(
        409,
        "Workflow creation with this idempotency key is still in progress.",
        SkyvernAPIError,
        nothing_done=False,
        transient=True,
    ),
    *ANY_WORDS,
)
"""Of a creation with a key: another one with the same key has not ended yet."""

UPDATE_WORKFLOW = (
    Refusal(
        409,
        "Concurrent update detected for workflow {id}. Please retry.",
        SkyvernAPIError,
        nothing_done=False,
        transient=True,
    ),
    Refusal(
        404,
        "Workflow not found. workflow_permanent_id={id}",
        SkyvernNotFoundError,
        nothing_done=False,
        transient=True,
    ),
    *(Refusal(status, "{}", SkyvernRequestError) for status in (400, 422)),
)
"""
Of an update that names the version it is based on: 409 where that is not the newest one any more, 404 where the
workflow was deleted. Sent again as it is, it would be refused again; based on what is there now, it may succeed.
"""

BROKEN_PARAMETER = Refusal(400, "Invalid workflow parameter. Expected parameter type: {}", SkyvernRequestError)
"""Of a start; and of each request about a run that was started nevertheless, with 7.0 for a whole number."""

GET_RUN = (
    BROKEN_PARAMETER,
    Refusal(404, "Task run not found {id}", SkyvernNotFoundError),
    Refusal(404, "Workflow not found. workflow_permanent_id={}", SkyvernNotFoundError),
)
GET_RUN_OF_DELETED_WORKFLOW = (Refusal(404, "Workflow not found for workflow run {id}", SkyvernNotFoundError),)
GET_TIMELINE = (
    *GET_RUN,
    Refusal(404, "Run not found {id}", SkyvernNotFoundError),
    Refusal(404, "Task v2 not found {id}", SkyvernNotFoundError),
    Refusal(400, "Task v2 {id} has no associated workflow run", SkyvernRequestError),
    Refusal(400, "Timeline not available for run type {}", SkyvernRequestError),
)
LIST_RUNS = (
    Refusal(400, "Invalid tag filter{}", SkyvernRequestError),
    Refusal(400, "Search pagination is limited to the first {}", SkyvernRequestError),
    Refusal(400, "Free-text run search exceeded its time limit.{}", SkyvernRequestError),
    Refusal(403, NO_TAGS, SkyvernAuthError),
    Refusal(503, "This run list could not be computed in time.{}", SkyvernServerError),
)
GET_RUN_TAGS = (
    Refusal(400, "At most {} workflow run IDs may be requested at once", SkyvernRequestError),
    Refusal(403, NO_TAGS, SkyvernAuthError),
)
START = (
    Refusal(404, "Workflow not found. workflow_permanent_id={id}", SkyvernNotFoundError),
    Refusal(404, "Workflow not found. workflow_permanent_id={id}, version={}", SkyvernNotFoundError),
    Refusal(404, "Browser session {} does not exist or is not live.", SkyvernNotFoundError),
    Refusal(404, "Browser profile {} not found for organization {}", SkyvernNotFoundError),
    Refusal(400, "Missing value for parameter {}", SkyvernRequestError),
    BROKEN_PARAMETER,
    Refusal(400, "Invalid credential ID: {}", SkyvernRequestError),
    Refusal(400, "The host in your url is blocked: {}", SkyvernRequestError),
    Refusal(400, "Invalid URL: {}", SkyvernRequestError),
    Refusal(400, "Invalid webhook_url: {}", SkyvernRequestError),
    Refusal(400, "Browser session {} is already occupied by {}", SkyvernRequestError, transient=True),
    Refusal(400, "Browser session {} does not have an address.", SkyvernRequestError),
    Refusal(410, "Browser session {}", SkyvernRequestError),
    Refusal(422, "These file ids are not available to attach{}", SkyvernRequestError),
    Refusal(503, "{}No run was created{}", SkyvernServerError),
    Refusal(503, "This run resolves to a sequential credential {}", SkyvernServerError, nothing_done=False),
)
CANCEL = (
    BROKEN_PARAMETER,
    Refusal(404, "Run not found {id}", SkyvernNotFoundError),
    Refusal(404, "WorkflowRun {id} not found", SkyvernNotFoundError),
    Refusal(404, "Task {id} not found", SkyvernNotFoundError),
    Refusal(400, "Invalid task status transition from {} to canceled for {id}", SkyvernRequestError),
    Refusal(400, "Invalid task status transition to canceled for {id} because {}", SkyvernRequestError),
    Refusal(400, "Invalid run type to cancel: {}", SkyvernRequestError),
)
CONTINUE = (Refusal(404, "Workflow run not found {id}", SkyvernNotFoundError),)
GET_WORKFLOW = (
    Refusal(404, "Workflow not found. workflow_permanent_id={id}", SkyvernNotFoundError),
    Refusal(400, "Invalid template workflow permanent id: {}", SkyvernRequestError),
)
GET_ARTIFACT = (
    Refusal(403, "Invalid or expired artifact URL", SkyvernAuthError),
    Refusal(404, "Artifact not found {id}", SkyvernNotFoundError),
    Refusal(404, "Artifact content not available", SkyvernNotFoundError),
)
GET_SCHEDULE = (
    Refusal(404, "Schedule {} not found", SkyvernNotFoundError),
    Refusal(404, "Workflow {} not found", SkyvernNotFoundError),
    Refusal(501, "Workflow schedules are disabled in this Skyvern build.{}", SkyvernAPIError),
)


def is_unreadable_pause(error: SkyvernError) -> bool:
    """Return whether Skyvern fails as it does before 1.0.48 when a run is paused."""
    if not isinstance(error, SkyvernServerError):
        return False
    return error.detail == "Unexpected error: ValueError" or "is not a valid RunStatus" in error.detail


def knows_no_pause(error: SkyvernError) -> bool:
    """Return whether a list by status was refused as the server is older than the status ``paused``."""
    if not (isinstance(error, SkyvernRequestError) and error.status_code == HTTPStatus.UNPROCESSABLE_ENTITY):
        return False
    return (
        error.detail.startswith("status.") and "'created', 'queued'" in error.detail and "paused" not in error.detail
    )


def refusal_in(status: int, body: str, known: Sequence[Refusal], subject: str | None) -> Refusal | None:
    """
    Return which refusal of Skyvern this answer is; None for one that Skyvern is not known to give.

    :param known: The refusals of the endpoint, besides those of all endpoints.
    :param subject: The id that the request is about.
    """
    said = said_in(body)
    if said is None:
        return None
    return next((one for one in (*EVERYWHERE, *known) if one.matches(status, said, subject)), None)


def said_in(body: str) -> Said | None:
    """Return the content of an error body, if it has Skyvern's form."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    if not (isinstance(parsed, dict) and len(parsed) == 1):
        return None
    ((key, value),) = parsed.items()
    if key not in ("detail", "error"):
        return None
    if isinstance(value, str):
        return Said(key, value)
    return Said(key, None) if _is_list_of_complaints(value) else None


def _is_list_of_complaints(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and {"type", "loc", "msg"} <= item.keys() for item in value)
    )


@cache
def _pattern(words: str) -> re.Pattern[str]:
    parts = re.split(r"(\{id\}|\{\})", words)
    groups = {"{id}": "(?P<id>.+?)", "{}": ".*"}
    return re.compile("".join(groups.get(part, re.escape(part)) for part in parts), re.DOTALL)


def is_null(answer: Any, _: str) -> bool:
    """Return whether an answer is Skyvern's ``null`` for an empty result."""
    return answer is None
