"""One request to Skyvern as a frozen value, and the functions that endpoints are built with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import cache
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter
from pydantic_core import from_json

from airflow_skyvern.client.answers import ANY_WORDS
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.limits import PAGE_SIZE

if TYPE_CHECKING:
    from airflow_skyvern.client.answers import Refusal
    from airflow_skyvern.exceptions import SkyvernError

T = TypeVar("T")
Fits = Callable[[Any, str], bool]
"""Returns whether a result is about an id."""


class OtherAnswer(ValueError):
    """An answer in the right form, but about something else."""


@dataclass(frozen=True)
class Feature:
    """
    Something that older servers do not have.

    :param since: The oldest version that has it.
    :param what: What it is, in the plural: "run tags".
    :param routes: The endpoints that came with it, as regular expressions of "METHOD /path".
    :param proof: A request that shows whether the server has it, whatever version it reports: refused if so.
    """

    since: str
    what: str
    routes: tuple[str, ...] = ()
    proof: Call[Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Otherwise:
    """
    How to ask a server that is too old for a call.

    :param after: Whether an error is the refusal of such a server.
    :param instead: Makes the other call; None where this one cannot be asked in another way.
    :param name: What the server refuses: it is not asked for that again. Empty: it refuses this once.
    """

    after: Callable[[SkyvernError], bool]
    instead: Callable[[Call[Any]], Call[Any] | None]
    name: str = ""


@dataclass(frozen=True)
class Call(Generic[T]):
    """
    One request to Skyvern, as a value.

    :param what: The request in words that fit after "Could not": ``"get run wr_1"``.
    :param parse: Makes the result from the bytes of the answer.
    :param repeatable: Whether sending it twice does no more than sending it once. When False, it is sent
        again only after a failure that provably did nothing.
    :param text: A body that is not JSON.
    :param headers: Headers besides those of every request.
    :param before_sending: Called when there is a connection, right before the request is written to it; an error from
        it ends the call, which has then done nothing.
    :param last_page: For paged lists, the last page that may be asked for; ``None`` for all else.
    :param known: Skyvern's known refusals for this call, see :mod:`airflow_skyvern.client.answers`.
        Give its words wherever a run is at stake; where none is, any words in Skyvern's form will do.
    :param subject: The id that the request is about.
    :param fits: Whether a result is about that id; any other result does not answer this request.
    :param within: Seconds to wait for the answer, if less than in the connection; such a call is sent once.
    :param secrets: Values in the body that no error repeats, also where a server does.
    :param slow: Seconds to wait for the answer, if more than in the connection.
    :param needs: Features that the server needs, or it would silently drop a part of the request; it is asked for its
        version first.
    :param keeps: Which rows of a list were asked for: an older server ignores filters that it does not know.
    :param otherwise: How to ask a server that is too old for this.
    """

    method: str
    path: str
    what: str
    parse: Callable[[bytes], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    files: Mapping[str, tuple[str, bytes | IO[bytes]]] | None = None
    form: Mapping[str, str] | None = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    last_page: int | None = None
    before_sending: Callable[[], object] | None = field(default=None, compare=False)
    known: tuple[Refusal, ...] = ANY_WORDS
    subject: str | None = None
    fits: Fits | None = None
    within: float | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    slow: float | None = None
    needs: tuple[Feature, ...] = ()
    keeps: Callable[[Any], bool] | None = field(default=None, compare=False)
    otherwise: Otherwise | None = field(default=None, compare=False)

    @property
    def is_address_only(self) -> bool:
        """Whether the request is its address and nothing more, as nearly always for a GET."""
        with_own_limit = self.within is not None or self.slow is not None
        return self.method == "GET" and not (with_own_limit or self.headers or self.before_sending)

    def result_of(self, body: bytes) -> T:
        """
        Make the result from the bytes of an answer.

        :raises pydantic.ValidationError: it has another form than the API promises.
        :raises OtherAnswer: it is not about what was requested.
        """
        result = self.parse(body)
        if self.fits is not None and not self.fits(result, self.subject or ""):
            raise OtherAnswer(f"it is not about {self.subject}" if self.subject else "it is something else")
        return result

    def with_query(self, query: Mapping[str, Any]) -> Call[T]:
        """Return the call with these parameters in its address, too."""
        return replace(self, query={**self.query, **query}) if query else self

    def kept(self, result: T) -> T:
        """Return the rows that were asked for, of those that have come."""
        if self.keeps is None or not isinstance(result, list):
            return result
        return [row for row in result if self.keeps(row)]  # type: ignore[return-value]  # T is a list here

    def as_answered(self) -> Call[T]:
        """
        Return the call for a list with all rows of the answer, whether or not the server knows the filters.

        For callers that compare the rows themselves; an older server ignores a filter that it does not know.
        """
        return replace(self, needs=(), keeps=None)

    def next_page(self, rows: Any) -> Call[T] | None:
        """Return the call for the rows after these, or None when these were the last."""
        page = self.query.get("page", 1)
        if self.last_page is None or len(rows) < PAGE_SIZE or page >= self.last_page:
            return None
        return replace(self, query={**self.query, "page": page + 1})


def get(
    path: str, what: str, result: Any, query: Mapping[str, Any] | None = None, *, large: bool = False, **more: Any
) -> Call[Any]:
    """Make a GET call whose answer is read as ``result``; ``large`` where it may be many megabytes."""
    parse = parser_of_large(result) if large else parser_of(result)
    return Call("GET", path, what, parse, query=query or {}, **more)


def post(
    path: str,
    what: str,
    result: Any,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    **more: Any,
) -> Call[Any]:
    """Make a POST call; ``repeatable=False`` where sending it twice would do something twice."""
    parse, headers = parser_of(result), headers or {}
    return Call("POST", path, what, parse, body=body, headers=headers, repeatable=repeatable, **more)


def put(path: str, what: str, result: Any, body: Mapping[str, Any]) -> Call[Any]:
    """Make a PUT call, which sets what sending it twice sets to the same."""
    return Call("PUT", path, what, parser_of(result), body=body)


def patch(path: str, what: str, result: Any, body: Mapping[str, Any], *, repeatable: bool = True) -> Call[Any]:
    """Make a PATCH call."""
    return Call("PATCH", path, what, parser_of(result), body=body, repeatable=repeatable)


def delete(path: str, what: str, result: Any = None, query: Mapping[str, Any] | None = None) -> Call[Any]:
    """Make a DELETE call; without ``result`` its answer has no body."""
    return Call("DELETE", path, what, parser_of(result) if result else no_body, query=query or {})


def no_body(_: bytes) -> None:
    """Read an answer that has no body."""


def given(**values: Any) -> dict[str, Any]:
    """Return the arguments that are not None: arguments left out of a request keep the server's default."""
    return {name: value for name, value in values.items() if value is not None}


def paged(
    path: str, what: str, row: Any, query: Mapping[str, Any], *, last_page: int = 1_000_000, **more: Any
) -> Call[Any]:
    """Make a call for all pages of a list; ``last_page`` is the last one that the server allows."""
    given = {key: value for key, value in query.items() if value}
    return Call(
        "GET",
        path,
        what,
        parser_of(list[row]),
        query={**given, "page": 1, "page_size": PAGE_SIZE},
        last_page=last_page,
        **more,
    )


@cache
def parser_of(result: Any) -> Callable[[bytes], Any]:
    """Return a parser that turns the bytes of an answer into a ``result``; built once per type."""
    return TypeAdapter(result).validate_json


@cache
def parser_of_large(result: Any) -> Callable[[bytes], Any]:
    """
    Return a parser that turns the bytes of an answer, which may be large, into a ``result``.

    pydantic's own way keeps a second tree of all values while it makes those of Python: measured, 7.7 instead of 4.5
    times the size of an answer of many rows.
    """
    adapter = TypeAdapter(result)

    def parse(body: bytes) -> Any:
        try:
            value = from_json(body)
        except ValueError:
            value = _read_otherwise(body)
            if value is None:
                return adapter.validate_json(body)  # says what is wrong, as for every other answer
        return adapter.validate_python(value)

    return parse


def _read_otherwise(body: bytes) -> Any:
    """Return the value of an answer that pydantic cannot read; None if it is not JSON."""
    from airflow_skyvern.client.uncommon_json import read

    try:
        return read(body)
    except (ValueError, RecursionError):
        return None


def path_segment(part: str) -> str:
    """Quote an id for a path: it may hold any character."""
    return quote(part, safe="")


def check_at_most(most: int, given: Sized, what: str) -> None:
    """
    Check a number of things before they are sent.

    :raises SkyvernConfigError: Skyvern takes fewer at once.
    """
    if len(given) > most:
        raise SkyvernConfigError(f"{what}: Skyvern takes at most {most} at once, not {len(given)}.")
