"""Finds the differences between two definitions, block by block."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import shorten
from airflow_skyvern.secret_values import MASK, masked_text
from airflow_skyvern.workflow_files.form import comparable
from airflow_skyvern.workflow_files.secret_fields import is_secret_at

if TYPE_CHECKING:
    from airflow_skyvern.workflow_files.form import Form

LONGEST_VALUE = 60
"""Characters of a value that are shown."""

ABSENT = object()
NAMED_BY = {"blocks": ("block", "label"), "loop_blocks": ("block", "label"), "parameters": ("parameter", "key")}
"""The lists whose rows have names: the word for a row, and the field with its name."""


@dataclass(frozen=True)
class Difference:
    """
    One field that differs.

    :param where: The block or the parameter, or "" outside of them; a loop's blocks follow the loop.
    :param field: The field; "" if all of it is new or gone.
    :param change: The change in words, without secrets.
    :param lines: Of a long text, the lines that differ.
    """

    where: str
    field: str
    change: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = " ".join(
            filter(None, (f"{self.where}:" if self.where else "", f"{self.field}:" if self.field else ""))
        )
        return "\n".join([f"{place} {self.change}", *(f"    {line}" for line in self.lines)])


def differences(before: Form, after: Form) -> list[Difference]:
    """Return the differences, in the order of the definition: settings, parameters, blocks."""
    return list(_of_mappings("", _flat(comparable(before)), _flat(comparable(after))))


def _flat(form: Form) -> dict[str, Any]:
    settings = {key: value for key, value in form.items() if key != "workflow_definition"}
    definition = dict(form["workflow_definition"])
    rows = {name: definition.pop(name) for name in ("parameters", "blocks")}
    return {**settings, **definition, **rows}


def _of_mappings(where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if old == new:
            continue
        if name in NAMED_BY and isinstance(old, list) and isinstance(new, list):
            yield from _of_rows(where, name, old, new)
        else:
            yield _of_values(where, name, old, new)


def _of_rows(where: str, name: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    kind, key = NAMED_BY[name]
    old, new = ({str(row.get(key)): row for row in rows} for rows in (before, after))
    for label in old:
        if label not in new:
            yield Difference(_place(where, kind, label), "", "removed")
    for label, row in new.items():
        if label not in old:
            yield Difference(_place(where, kind, label), "", f"added{_of_kind(row)}")
        elif old[label] != row:
            yield from _of_mappings(_place(where, kind, label), old[label], row)
    yield from _of_order(
        where, name, [label for label in old if label in new], [label for label in new if label in old]
    )


def _place(where: str, kind: str, label: str) -> str:
    return f"{where} / {label}" if where else f"{kind} {label}"


def _of_kind(row: Mapping[str, Any]) -> str:
    kind = row.get("block_type") or row.get("workflow_parameter_type") or row.get("parameter_type")
    return f" ({kind})" if kind else ""


def _of_order(where: str, name: str, before: Sequence[str], after: Sequence[str]) -> Iterator[Difference]:
    if list(before) != list(after):
        yield Difference(where, name, f"another order: {', '.join(before)} → {', '.join(after)}")


def _of_values(where: str, name: str, old: Any, new: Any) -> Difference:
    if (isinstance(old, str) and isinstance(new, str)) and ("\n" in old + new or len(old + new) > 2 * LONGEST_VALUE):
        return Difference(where, name, "changed", tuple(_changed_lines(name, old, new)))
    if old is ABSENT:
        return Difference(where, name, f"added: {_shown(name, new)}")
    if new is ABSENT:
        return Difference(where, name, f"removed: {_shown(name, old)}")
    return Difference(where, name, f"{_shown(name, old)} → {_shown(name, new)}")


def _changed_lines(name: str, old: str, new: str) -> Iterator[str]:
    if is_secret_at(name, old) or is_secret_at(name, new):
        return
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
    yield from (line for line in lines if not line.startswith(("---", "+++")))


def _shown(name: str, value: Any) -> str:
    if is_secret_at(name, value):
        return MASK
    text = json.dumps(value, ensure_ascii=False, default=str)
    return masked_text(text if len(text) <= LONGEST_VALUE else shorten(text, LONGEST_VALUE))
