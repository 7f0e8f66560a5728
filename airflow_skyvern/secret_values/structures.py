"""Finds the context of a value: the headers of a request, cookies, an entry, a pair, a table, or a row of data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_skyvern.secret_values.forms import is_mixed, is_password, is_random
from airflow_skyvern.secret_values.names import (
    HTTP_HEADERS,
    OF_CLIENT,
    USER_OPTIONS,
    is_header_of_secret,
    kind_of,
    last_word,
    words_of,
)

if TYPE_CHECKING:
    from airflow_skyvern.secret_values.names import Place

NAME_KEYS = (
    "name",
    "key",
    "header",
    "header_name",
    "field",
    "field_name",
    "param",
    "parameter",
    "k",
    "n",
    "attribute",
    "property",
)
VALUE_KEYS = ("value", "val", "v", "header_value", "field_value", "content", "data", "values")
"""The keys of an entry: a name and its value as two values of an object."""

COOKIE_KEYS = frozenset(
    {"domain", "path", "httponly", "http_only", "secure", "samesite", "same_site", "expires", "expiry", "max_age"}
)
EXCHANGE_KEYS = frozenset(
    "url request_url uri method request_headers response_headers headers status status_code http_version query_string request_body "
    "response_body post_data".split()
)
"""The keys of an object that is a request or an answer to one."""

IDENTITIES = frozenset(
    "user username user_name login login_name email e_mail mail user_id benutzer benutzername usuario utilisateur account".split()
)
QUERIES = frozenset(
    "query query_string querystring query_params params form form_data formdata post_data request_body body args arguments payload".split()
)
COLUMNS, ROWS = (
    ("columns", "headers", "header", "fields", "column_names"),
    ("rows", "data", "values", "records", "cells"),
)
PAIR = 2
CLIENT = re.compile(r"(^|/)(curl|wget|https?|xh)$")
OPTION = re.compile(r"^--?[A-Za-z][\w-]{0,40}$")
COOKIES_OF = ("cookie", "cookies", "cookie_jar")
COLUMN = re.compile(r"^[^\W\d][\w .()/-]{0,60}$")
"""The keys under which objects hold their columns and headers."""

OF_REQUESTS = re.compile(
    r"(?i)^(accept-\w+|content-(type|length|encoding)|user-agent|cache-control|x-(requested|forwarded|request)-\w+)$"
)
"""Names that only request headers have."""


class Walk:
    """Walks through a value, and reports the name and the context of each text."""

    def text(self, value: str, name: str, place: Place) -> Any:
        """Handle a text; the returned value replaces it."""
        raise NotImplementedError

    def other(self, value: Any) -> Any:
        """Handle a value that is not a text and contains none."""
        return value

    def enter(self, key: Any) -> None:
        """Begin with an item; :meth:`leave` ends it."""

    def leave(self) -> None:
        """End an item."""

    def walk(self, value: Any, name: str = "", place: Place = "") -> Any:
        """Walk through a value; lists and objects are changed in place, and only where a text is replaced."""
        if isinstance(value, str):
            return self.text(value, name, place)
        if isinstance(value, Mapping):
            self._object(value, name, place)
        elif isinstance(value, list | tuple):
            self._list(value, name, place)
        else:
            return self.other(value)
        return value

    def _object(self, value: Mapping[Any, Any], name: str, place: Place) -> None:
        keys = {_plain(str(key)): key for key in value}
        if place == "" and _are_headers(value):
            place = "headers"
        entry = _entry(keys, value)
        table = _table(keys, value)
        inner = _special_places(keys, value) if place == "" else {}
        for key, item in list(value.items()):
            if entry is not None and key == entry[1]:
                in_jar = place == "cookies" or bool(COOKIE_KEYS & keys.keys()) or last_word(name) in COOKIES_OF
                of = "cookies" if in_jar and place != "headers" else place or "entry"
                self._item(value, key, item, str(value[entry[0]]), of)
            elif table is not None and key == table[1]:
                self._rows(value, key, value[table[0]])
            elif key in inner:
                self._item(value, key, item, str(key), inner[key])
            else:
                self._item(value, key, item, *_child(key, item, keys, name, place if entry is None else ""))

    def _list(self, value: Sequence[Any], name: str, place: Place) -> None:
        if _is_pair(value) and not is_header_of_secret(name) and (place or _names_secret(value[0])):
            self._item(value, 0, value[0], "", "")
            self._item(value, 1, value[1], value[0], place or "entry")
            return
        if _is_flat(value):
            for index in range(0, len(value), PAIR):
                self._item(value, index + 1, value[index + 1], value[index], "headers")
            return
        if place == "" and _has_header(value):
            place = "headers"
        if place == "" and _is_table(value):
            self._item(value, 0, value[0], "", "")
            for index in range(1, len(value)):
                self._row(value, index, value[0])
            return
        for index, item in enumerate(value):
            self._item(value, index, item, _option_before(value, index) or name, place)

    def _rows(self, value: Any, key: Any, columns: Sequence[str]) -> None:
        self.enter(key)
        for index in range(len(value[key])):
            self._row(value[key], index, columns)
        self.leave()

    def _row(self, rows: Any, index: int, columns: Sequence[str]) -> None:
        self.enter(index)
        named: Place = "login" if IDENTITIES & {_plain(column) for column in columns} else ""
        for number, cell in enumerate(rows[index]):
            column = columns[number]
            self._item(rows[index], number, cell, column, named if last_word(column) in ("pass", "pw") else "")
        self.leave()

    def _item(self, container: Any, key: Any, item: Any, name: str, place: Place) -> None:
        self.enter(key)
        if (new := self.walk(item, name, place)) is not item:
            container[key] = new
        self.leave()


def _child(key: Any, item: Any, keys: Mapping[str, Any], name: str, place: Place) -> tuple[str, Place]:
    """Return the name and the context of an object's value under a key."""
    own = str(key)
    if isinstance(item, Mapping | list | tuple):
        return own if kind_of(own) or not kind_of(name) else name, _place_of(own, item, keys, place)
    if isinstance(item, str) and not kind_of(own) and not place and kind_of(name) and _may_be_of(name, item):
        return name, ""
    return own, place or _login(own, keys)


def _may_be_of(name: str, text: str) -> bool:
    """Return whether a text below a secret's name, with its own name, is a secret."""
    return is_mixed(text) or is_random(text) or (kind_of(name) == "certain" and is_password(text))


def _special_places(keys: Mapping[str, Any], value: Mapping[Any, Any]) -> dict[Any, Place]:
    """Return the part that holds only secrets: those of Kubernetes, and a browser's cookies as stored by Playwright."""
    if "api_version" in keys and "kind" in keys and value[keys["kind"]] == "Secret":
        return {keys[name]: "vault" for name in ("data", "string_data") if name in keys}
    if "cookies" in keys and "origins" in keys and _are_origins(value[keys["origins"]]):
        return {keys["cookies"]: "cookies"}
    return {}


def _are_origins(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and "origin" in item for item in value)


def _option_before(value: Sequence[Any], index: int) -> str:
    """Return the option of a command that takes an item of a list of its arguments."""
    before, item = value[index - 1] if index else None, value[index]
    if isinstance(before, str) and OPTION.match(before) and isinstance(item, str) and not item.startswith("-"):
        return before + (OF_CLIENT if before in USER_OPTIONS and CLIENT.search(str(value[0])) else "")
    return ""


def _login(name: str, keys: Mapping[str, Any]) -> Place:
    word = last_word(name)
    if word.endswith(("pass", "pw")) and IDENTITIES & keys.keys():
        return "login"
    if word in ("secret", "token") and keys.keys() & {
        "client_id",
        "app_id",
        "consumer_key",
        "token_type",
        "expires_in",
        "grant_type",
    }:
        return "login"
    return ""


def _place_of(name: str, item: Any, keys: Mapping[str, Any], place: Place) -> Place:
    word = _plain(name)
    if word.endswith(("headers", "header")):
        return "headers"
    exchange = len(EXCHANGE_KEYS & keys.keys()) >= PAIR
    if word.endswith(("cookies", "cookie", "cookie_jar")) and (exchange or _are_cookies(item)):
        return "cookies"
    if word in QUERIES and (exchange or word.startswith(("query", "form", "post"))):
        return "query"
    return place if kind_of(name) and place == "headers" else ""


def _entry(keys: Mapping[str, Any], value: Mapping[Any, Any]) -> tuple[Any, Any] | None:
    """Return the keys of the name and of the value in an object that is an entry."""
    found = next((keys[key] for key in NAME_KEYS if key in keys and isinstance(value[keys[key]], str)), None)
    of = next((keys[key] for key in VALUE_KEYS if key in keys), None)
    return None if found is None or of is None else (found, of)


def _table(keys: Mapping[str, Any], value: Mapping[Any, Any]) -> tuple[Any, Any] | None:
    """Return the keys of the columns and of the rows in an object that is a table."""
    columns = next((keys[key] for key in COLUMNS if key in keys and _are_texts(value[keys[key]])), None)
    rows = next((keys[key] for key in ROWS if key in keys), None)
    if columns is None or rows is None or not isinstance(value[rows], list):
        return None
    return (columns, rows) if _are_rows(value[rows], len(value[columns])) else None


def _is_table(value: Sequence[Any]) -> bool:
    """Return whether the first of several rows names columns, one of them of secrets."""
    if len(value) < PAIR or not _are_texts(value[0]) or len(value[0]) < PAIR or not _are_rows(value, len(value[0])):
        return False
    names = value[0]
    if len(names) == PAIR:  # or each row is a name and its value
        return all(kind_of(name) or _plain(name) in IDENTITIES for name in names)
    return any(map(kind_of, names)) and all(COLUMN.match(name) for name in names)


def _names_secret(name: str) -> bool:
    return is_header_of_secret(name) or bool(kind_of(name))


def _is_pair(value: Sequence[Any]) -> bool:
    if len(value) != PAIR or not isinstance(value[0], str) or not isinstance(value[1], str | list):
        return False
    return bool(COLUMN.match(value[0]))


def _are_rows(value: Sequence[Any], columns: int) -> bool:
    return all(isinstance(row, list) and len(row) == columns for row in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _is_flat(value: Sequence[Any]) -> bool:
    """Return whether header names and their values alternate in a list, as in Node.js."""
    if len(value) < 2 * PAIR or len(value) % PAIR or not all(isinstance(item, str) for item in value):
        return False
    names = value[::PAIR]
    return any(OF_REQUESTS.match(name) or name == "Accept" for name in names) and any(map(is_header_of_secret, names))


def _has_header(value: Sequence[Any]) -> bool:
    """Return whether a list of entries or pairs contains headers."""
    return any(map(_is_plain_header, value[:100]))


def _is_plain_header(item: Any) -> bool:
    name = None
    if isinstance(item, Mapping):
        found = _entry({_plain(str(key)): key for key in item}, item) if len(item) <= 2 * PAIR else None
        name = item[found[0]] if found else None
    elif isinstance(item, list | tuple) and len(item) == PAIR:
        name = item[0]
    return isinstance(name, str) and name.lower() in HTTP_HEADERS


def _are_headers(value: Mapping[Any, Any]) -> bool:
    """Return whether an object maps names of headers to their values."""
    names = [key for key in value if isinstance(key, str)]
    return any(map(is_header_of_secret, names)) and any(
        OF_REQUESTS.match(name) or (name.lower() == "accept" and "/" in str(value[name])) for name in names
    )


def _are_cookies(item: Any) -> bool:
    """Return whether all items of a list are objects with the name, the value, and an attribute of a cookie."""
    return (
        isinstance(item, list)
        and all(
            {"name", "value"} <= item.keys() and COOKIE_KEYS & {_plain(str(key)) for key in item}
            for item in item
            if isinstance(item, Mapping)
        )
        and any(isinstance(one, Mapping) for one in item)
    )


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    return words_of(name).strip("_").lower()
