"""Masks the secrets of an output before it is pushed, written or logged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_skyvern.compat import internals, since_3_1
from airflow_skyvern.exceptions import shorten
from airflow_skyvern.results.fitting import flattened
from airflow_skyvern.results.mask_rules import MaskRules
from airflow_skyvern.secret_values import MASK, Place, Walk, is_secret, masked_text
from airflow_skyvern.secret_values.forms import REFERENCE

if TYPE_CHECKING:
    from airflow_skyvern.results.contract import Contract
    from airflow_skyvern.runs.wait import Log

MOST_NAMED = 30
"""How many paths a log line names."""

SHORTEST_KNOWN = 5
"""Shortest known secret that is searched for within texts; a shorter one may be part of any word."""


@dataclass
class Change:
    """
    A place where something was masked.

    :param container: The list or object that holds it.
    :param certain: Whether it is known to be a secret, or named by the author, rather than recognized by its form.
    """

    path: str
    container: Any
    key: Any
    before: Any
    after: Any
    certain: bool

    def undo(self) -> None:
        """Restore the original value."""
        self.container[self.key] = self.before

    def redo(self) -> None:
        """Mask it again."""
        self.container[self.key] = self.after


class OutputMasker(Walk):
    """
    Masks secrets that a block echoes: request headers, cookies, keys in addresses and forms, signed addresses.

    The structure stays, and so does the rest of each text. What is masked: what
    :func:`~airflow_skyvern.secret_values.is_secret` finds, what stands under a name of Airflow's
    ``[core] sensitive_var_conn_names``, what a text shows to be a secret, what Airflow knows as one, such as the
    passwords of connections, and what the author names.

    :param rules: What the author keeps and adds.
    :param known: Secrets of the run.
    """

    def __init__(self, rules: MaskRules | None = None, known: Iterable[str] = ()) -> None:
        self._rules = rules or MaskRules()
        self._names = internals.sensitive_names()
        self._redact = since_3_1.redactor()
        self._known = _spellings(known)
        self._masked_name = lru_cache(maxsize=4096)(self._masked_text)
        self._path: list[Any] = []
        self._modes: list[str] = [""]
        self._container: Any = [None]
        self.root: list[Any] = self._container
        self.changes: list[Change] = []

    def masked(self, value: Any) -> Any:
        """
        Return the value with ``***`` in the place of each secret; :attr:`changes` says where.

        Lists and mappings are changed in place: a copy of a large output would cost a third of its memory again.
        """
        self.root[0] = value
        try:
            self.root[0] = self.walk(value)
        except RecursionError:
            self._path.clear()
            self._modes[1:] = []
            self._container = self.root
            self.root[0] = self.walk(flattened(value))
        return self.root[0]

    def text(self, value: str, name: str, place: Place) -> Any:
        """Mask a text, or the secret within it."""
        if self._modes[-1] == "keep" or not value:
            return value
        if self._modes[-1] == "add":
            return self._changed(value, MASK, certain=True)
        if is_secret(name, value, place) or self._modes[-1] == "named" or self._is_named_by_airflow(name):
            if REFERENCE.match(value):
                return value
            return self._changed(value, MASK, certain=self._is_known(value))
        masked = self._masked_text(value)
        return value if masked == value else self._changed(value, masked, certain=self._is_known(value))

    def other(self, value: Any) -> Any:
        """Leave numbers and flags; if their path is to be masked, return null, so that a column keeps its type."""
        if self._modes[-1] != "add" or value is None:
            return value
        return self._changed(value, None, certain=True)

    def enter(self, key: Any) -> None:
        """Record the path, and what the author and the configuration say about it."""
        self._path.append(key)
        mode = self._rules.mode_at(self._path) if self._rules.paths else None
        named = "named" if self._names and isinstance(key, str) and self._is_named_by_airflow(key) else None
        self._modes.append(mode or (named if self._modes[-1] == "" else None) or self._modes[-1])

    def leave(self) -> None:
        """Return to the container of the item."""
        self._path.pop()
        self._modes.pop()

    def _object(self, value: Any, name: str, place: Place) -> None:
        if self._modes[-1] != "keep":
            for key in [key for key in value if isinstance(key, str) and self._masked_name(key) != key]:
                value[_free(self._masked_name(key), value)] = value.pop(key)
        super()._object(value, name, place)

    def _item(self, container: Any, key: Any, item: Any, name: str, place: Place) -> None:
        outer, self._container = self._container, container
        super()._item(container, key, item, name, place)
        self._container = outer

    def _changed(self, before: Any, after: Any, *, certain: bool) -> Any:
        key = self._path[-1] if self._path else 0
        self.changes.append(Change(_shown(self._path), self._container, key, before, after, certain))
        return after

    def _masked_text(self, text: str) -> str:
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, MASK)
        return str(self._redact(masked_text(text)))

    def _is_known(self, text: str) -> bool:
        return any(secret in text for secret in self._known) or str(self._redact(text)) != text

    def _is_named_by_airflow(self, name: str) -> bool:
        lower = name.lower()
        return any(part in lower for part in self._names)


def mask_output(
    value: Any,
    rules: MaskRules,
    run_id: str,
    log: Log,
    *,
    known: Iterable[str] = (),
    contract: Contract | None = None,
) -> Any:
    """
    Return an output with its secrets masked, and log the masked paths, never their values.

    :param contract: The required form of the output, which masking preserves.
    :raises Misfit: a certain secret is where the contract allows no mask.
    """
    masker = OutputMasker(rules, known)
    masker.masked(value)
    stay = _stay(masker.root, masker.changes, contract) if contract is not None and masker.changes else []
    _log(masker.changes, stay, rules, run_id, log)
    return masker.root[0]


def _stay(root: list[Any], changes: list[Change], contract: Contract) -> list[Change]:
    """
    Restore the values that the contract does not allow to be masked, and return them.

    Each path is tried alone, as what a type says of its parts, and where, differs from type to type.
    """
    from airflow_skyvern.results.contract import Misfit

    if contract.fits(root[0]):
        return []
    for change in changes:
        change.undo()
    by_path: dict[str, list[Change]] = {}
    for change in changes:
        by_path.setdefault(change.path, []).append(change)
    stay = (
        [same for same in by_path.values() if not _fits_masked(root, same, contract)]
        if contract.fits(root[0])
        else []
    )
    kept = {id(change) for same in stay for change in same}
    for change in changes:
        if id(change) not in kept:
            change.redo()
    if refused := {same[0].path: same[0].after for same in stay if any(change.certain for change in same)}:
        raise Misfit((path, _refusal("null" if after is None else MASK)) for path, after in refused.items())
    return [change for same in stay for change in same]


def _fits_masked(root: list[Any], same: list[Change], contract: Contract) -> bool:
    """Return whether the contract allows this to be masked, without changing anything."""
    for change in same:
        change.redo()
    fits = contract.fits(root[0])
    for change in same:
        change.undo()
    return fits


def _refusal(mask: str) -> str:
    return (
        f"what stands there is masked, and {mask} does not fit. Let output_schema allow it, or name the path in "
        "mask_output={'keep': […]}"
    )


def _log(changes: list[Change], stay: list[Change], rules: MaskRules, run_id: str, log: Log) -> None:
    kept = {id(change) for change in stay}
    if masked := [change for change in changes if id(change) not in kept]:
        log.info(
            "Skyvern run %s: masked in the output: %s. mask_output={'keep': […]} keeps what is data.",
            run_id,
            _named(masked),
        )
    if stay:
        log.warning(
            "Skyvern run %s: looks like a secret and stays, as output_schema does not allow *** there: %s. Name it "
            "in mask_output={'keep': […]} if it is data, or let output_schema allow a mask.",
            run_id,
            _named(stay),
        )
    if rules.paths and (unused := rules.unused()):
        log.warning(
            "Skyvern run %s: the output has nothing at these paths of mask_output: %s", run_id, ", ".join(unused)
        )


def _named(changes: list[Change]) -> str:
    """Name each path once, with its number of occurrences."""
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.path] = counts.get(change.path, 0) + 1
    shown = [f"{path} ({count} times)" if count > 1 else path for path, count in list(counts.items())[:MOST_NAMED]]
    return "; ".join(shown) + (f"; and {len(counts) - MOST_NAMED} more paths" if len(counts) > MOST_NAMED else "")


def _shown(path: list[Any]) -> str:
    """Return a path in the notation of ``mask_output``: all items of a list share one path."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += "[]"
        elif isinstance(part, str) and part and not set(part) & set(".[]\"*'") and part.isprintable():
            text += f".{part}" if text else part
        else:
            text += f"[{_quoted(str(part))}]"
    return shorten(text, 200) or "the output itself"


def _quoted(name: str) -> str:
    return json.dumps(shorten(name, 80))


def _spellings(known: Iterable[str]) -> tuple[str, ...]:
    """Return the forms of known secrets in a text: as they are, and encoded for an address; the longest first."""
    texts = {form for text in known if len(text) >= SHORTEST_KNOWN for form in (text, quote(text, safe=""))}
    return tuple(sorted(texts, key=len, reverse=True))


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Keep two names distinct that differ only in their masked part."""
    return name if name not in taken else f"{name} ({len(taken)})"
