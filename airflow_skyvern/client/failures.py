"""Turns a failed request into an error that says what to do: no answer, a refusal, another server."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from airflow_skyvern.client.answers import NO_SUCH_ROUTE, refusal_in, said_in
from airflow_skyvern.client.versions import feature_of
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernConnectionError,
    SkyvernCreditError,
    SkyvernRateLimitError,
    SkyvernResponseError,
    SkyvernServerError,
    sentence,
    shorten,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, UnicodeError)
HUNG_UP = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
NO_ANSWER = (httpx.HTTPError, UnicodeError)  # the latter for a host name that no resolver takes

PLAIN_HTTP = ("WRONG_VERSION_NUMBER", "record layer failure", "http request")
"""OpenSSL's messages if the answer to its greeting is not TLS; newer versions use the second."""

PLAIN_TO_TLS = ("plain HTTP request was sent to HTTPS port", "HTTP request to an HTTPS server")
"""The messages of nginx and Go if http arrives where they expect https."""

TLS_TO_PLAIN = ("illegal request line", "\\x15\\x03")
"""The message of httpx if the answer to plain http is a TLS record, which begins with a control character."""

SEE_FIELD = "see the timeout field of the Airflow connection"


def no_answer(call: Call[Any], error: Exception, settings: Settings) -> SkyvernConnectionError:
    """Make the error for a request without an answer: from whom, why, and whether the request may have arrived."""
    never_sent = isinstance(error, NEVER_SENT)
    sure = "the request was not sent" if never_sent else "the request may have arrived"
    return SkyvernConnectionError(
        f"Could not {call.what}: no answer from {settings.base_url} ({_reason(error, settings)}); {sure}. "
        f"{_advice(str(error), settings)}",
        never_sent=never_sent,
        hung_up=isinstance(error, HUNG_UP),
    )


def _reason(error: Exception, settings: Settings) -> str:
    if isinstance(error, httpx.TimeoutException):
        return _limit(error, settings)
    return f"{type(error).__name__}: {shorten(str(error))}" if str(error) else type(error).__name__


def _limit(error: httpx.TimeoutException, settings: Settings) -> str:
    """Say which time limit is over, how long it is, and which setting controls it."""
    name = type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        own = f", {SEE_FIELD}" if settings.connect_timeout == settings.timeout else ""  # else it is always 10 s
        return f"{name}: not connected within {settings.connect_timeout:g} s{own}"
    if isinstance(error, httpx.PoolTimeout):
        return f"{name}: no free connection of this process within {settings.timeout:g} s, {SEE_FIELD}"
    what = "the request was not taken" if isinstance(error, httpx.WriteTimeout) else "nothing was received"
    return f"{name}: {what} for {settings.timeout:g} s, {SEE_FIELD}"


def _advice(text: str, settings: Settings) -> str:
    scheme, _, rest = settings.base_url.partition("://")
    if scheme == "https" and any(sign.lower() in text.lower() for sign in PLAIN_HTTP):
        return (
            f"The server speaks plain http there, or the proxy does: use http://{rest} as the base URL (the host "
            "field of the Airflow connection), or the address at which it speaks https."
        )
    if scheme == "http" and any(sign in text for sign in TLS_TO_PLAIN):
        return _use_https(settings)
    return "Check the base URL, the proxy and the network of this Airflow component."


def _use_https(settings: Settings) -> str:
    address = settings.base_url.replace("http://", "https://", 1)
    return f"The server speaks https there: use {address} as the base URL (the host field of the Airflow connection)."


def refused(call: Call[Any], response: httpx.Response, body: bytes, settings: Settings) -> SkyvernAPIError:
    """Make the error for a non-2xx response: Skyvern's own refusal, or one from any server in between."""
    status, text = response.status_code, _without(call.secrets, body.decode(errors="replace"))
    known = refusal_in(status, text, call.known, call.subject)
    kind = known.kind if known else _kind_of(status, text)
    detail = _redirect(response) or detail_of(text)
    by_skyvern = kind is not SkyvernResponseError and (known is not None or said_in(text) is not None)
    who = "Skyvern" if by_skyvern else "a proxy or another server"
    nowhere = status in NO_SUCH_ROUTE and (said_in(text) is None or detail == NO_SUCH_ROUTE[status])
    advice = no_endpoint(call, settings.base_url) if nowhere else kind.advice
    error = kind(
        sentence(f"Could not {call.what}: {who} answered {status}: {detail}", advice),
        status_code=status,
        detail=detail,
        retry_after=_retry_after(response.headers.get("retry-after")),
        nothing_done=known is not None and known.nothing_done,
        transient=known.transient if known else None,
    )
    if settings.base_url.startswith("http://") and any(sign in text for sign in PLAIN_TO_TLS):
        error.args = (f"{error} {_use_https(settings)}",)
    return error


def _without(secrets: Collection[str], text: str) -> str:
    """Mask secrets in a server's answer, as they are and as JSON writes them: a vault may repeat its input."""
    if not secrets:
        return text
    from airflow_skyvern.secret_values.forms import MASK

    forms = {
        *secrets,
        *(json.dumps(one, ensure_ascii=only_ascii)[1:-1] for one in secrets for only_ascii in (True, False)),
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def detail_of(body: str) -> str:
    """
    Read what the server said out of an error body.

    The API sends ``detail`` as a string or as a list, or ``error`` as a string; proxies send HTML. The list
    form echoes the request as ``input``, which may hold secrets: only the field and the message are kept.
    """
    try:
        parsed = json.loads(body)
    except ValueError:
        return f"(not JSON) {shorten(body)}" if body.strip() else "(empty body)"
    detail = (parsed.get("detail") or parsed.get("error")) if isinstance(parsed, dict) else None
    if isinstance(detail, list):
        return shorten("; ".join(_describe(item) for item in detail))
    return shorten(detail) if isinstance(detail, str) else "(no detail)"


def _describe(item: Any) -> str:
    if not isinstance(item, dict):
        return "(no detail)"
    loc = item.get("loc")
    parts = loc if isinstance(loc, list) else []
    field_path = ".".join(str(part) for part in parts if part not in ("body", "query"))
    return f"{field_path}: {item.get('msg')}" if field_path else str(item.get("msg"))


def no_endpoint(call: Call[Any], base_url: str) -> str:
    """Say why there may be no such endpoint: most of them are as old as Skyvern, and some came with a version."""
    if (feature := feature_of(call.method, call.path)) is None:
        return no_api_at(base_url)
    return (
        f"This Skyvern may be too old: {feature.what} came with version {feature.since}. If it is new enough, the "
        f"base URL (the host field of the Airflow connection) does not lead to its API: {base_url}."
    )


def no_api_at(base_url: str) -> str:
    """Say that the API is not at this address."""
    return (
        f"There is no Skyvern API at this base URL (the host field of the Airflow connection): {base_url}. It is the "
        "address of Skyvern's API, not of its web UI, and without a path unless a proxy adds one."
    )


def _kind_of(status: int, text: str) -> type[SkyvernAPIError]:
    """Choose the class for an answer that Skyvern is not known to give; all of these are transient."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return SkyvernRateLimitError
    if status == HTTPStatus.PAYMENT_REQUIRED and said_in(text) is not None:
        return SkyvernCreditError
    in_trouble = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED
    return SkyvernServerError if in_trouble else SkyvernResponseError


def unreadable(
    call: Call[Any], response: httpx.Response, size: int, error: ValueError, settings: Settings
) -> SkyvernResponseError:
    """Create the error for a success that breaks the API's promise: a web page, say, or about something else."""
    kind = response.headers.get("content-type", "no content type")
    detail = _first_problem(error)
    page = is_page(response)
    return SkyvernResponseError(
        f"Could not {call.what}: the answer ({response.status_code}, {kind}, {size} bytes) "
        f"is not what the Skyvern API promises: {'a web page' if page else shorten(detail)}. "
        f"{no_api_at(settings.base_url) if page else SkyvernResponseError.advice}",
        status_code=response.status_code,
        detail=detail,
    )


def is_page(response: httpx.Response) -> bool:
    """Return whether an answer is a web page, such as a proxy's."""
    return bool(response.headers.get("content-type", "").startswith("text/html"))


def is_page_instead_of_file(response: httpx.Response) -> bool:
    """Return whether a web page came for an artifact: Skyvern sends each, also a page, with a content-disposition."""
    return is_page(response) and "content-disposition" not in response.headers


def _first_problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field_path = ".".join(str(part) for part in first["loc"])
    return f"{field_path}: {first['msg']}" if field_path else first["msg"]


def _redirect(response: httpx.Response) -> str | None:
    if not response.has_redirect_location:
        return None
    try:
        target = urlsplit(response.headers["location"])
        shown = target._replace(netloc=target.netloc.rpartition("@")[2], query="", fragment="").geturl()
    except ValueError:
        shown = "an address that cannot be read"
    return (
        f"redirects to {shorten(shown)}; if that is a login page, a proxy asks for a login, else put the final "
        "address into the connection's base URL"
    )


def _retry_after(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
