"""Formats a run's output for its page: masked, and limited to a readable length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_skyvern.results.masking import OutputMasker
from airflow_skyvern.ui.concealment import LONGEST_TEXT

if TYPE_CHECKING:
    from airflow_skyvern.ui.concealment import Concealment

MOST_VALUES = 1000
"""Values of an output on a page; a table may have a million."""

LONGEST_OUTPUT = 30_000
"""Characters of an output on a page."""

DEEPEST = 20
"""Levels of nesting on a page."""

LEFT_OUT = "…"
"""Marks omitted parts."""


def output_text(output: Any, conceal: Concealment) -> str:
    """Return the output of a run as text, or as JSON if it is not a text; empty if there is none."""
    if output in (None, "", {}, []):
        return ""
    shown = _concealed(OutputMasker().masked(_Excerpt(MOST_VALUES).of(output)), conceal)
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, indent=2, default=str)
    return text if len(text) <= LONGEST_OUTPUT else f"{text[:LONGEST_OUTPUT]}\n{LEFT_OUT}"


@dataclass
class _Excerpt:
    """Copies the beginning of a value."""

    left: int

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if isinstance(value, str):
            return value[: 4 * LONGEST_TEXT]
        if not isinstance(value, Mapping | list):
            return value
        if depth >= DEEPEST or (value and self.left <= 0):
            return LEFT_OUT
        if isinstance(value, list):
            copied = [self.of(item, depth + 1) for item in self._first(value)]
            return [*copied, *self._rest(len(value) - len(copied))]
        found = {str(name): self.of(item, depth + 1) for name, item in self._first(value.items())}
        return {**found, **dict.fromkeys(self._rest(len(value) - len(found)), LEFT_OUT)}

    def _first(self, items: Any) -> Any:
        """Yield items while there is space; each takes some of it."""
        for item in islice(items, MOST_VALUES):
            if self.left <= 0:
                return
            yield item

    def _rest(self, count: int) -> list[str]:
        return [f"{LEFT_OUT} and {count} more"] if count > 0 else []


def _concealed(value: Any, conceal: Concealment) -> Any:
    if isinstance(value, str):
        return conceal.text(value)
    if isinstance(value, Mapping):
        return {conceal.name(name): _concealed(item, conceal) for name, item in value.items()}
    return [_concealed(item, conceal) for item in value] if isinstance(value, list) else value
