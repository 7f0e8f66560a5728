"""``mask_output``: whether secrets in an output are masked, and paths that always count as data or as secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_skyvern.exceptions import SkyvernConfigError

MaskOutput = bool | Mapping[str, Sequence[str] | str]
"""True, False, or ``{"keep": ["invoices[].session_id"], "add": ["accounts[].note"]}``."""

Mode = Literal["keep", "add"]

ANY_ITEM, ANY_NAME = "[]", "*"

STEP = re.compile(
    r"""(?x) \[ (?P<index> \d+ | \*? ) \]
    | \[ (?P<quote> ["']) (?P<quoted> (?: (?!(?P=quote)) [^\\] | \\. )* ) (?P=quote) \]
    | (?: ^ | \. ) (?P<name> [^.\[\]"'\s][^.\[\]"']* )"""
)

ADVICE = (
    'must be True, False, or {"keep": [paths], "add": [paths]} with paths such as "invoices[].session_id" in what '
    "the task returns"
)

Path = tuple[Any, ...]


@dataclass(frozen=True)
class MaskRules:
    """
    The value of ``mask_output``.

    :param on: Whether anything is masked at all.
    :param paths: The paths that are always kept or masked; the deepest path that fits applies to everything below it.
    """

    on: bool = True
    paths: tuple[tuple[Path, Mode, str], ...] = ()
    _used: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def of(cls, given: Any) -> MaskRules:
        """
        Read ``mask_output``.

        :raises SkyvernConfigError: says what is wrong and what would be right.
        """
        if isinstance(given, bool):
            return cls(on=given)
        if not isinstance(given, Mapping) or not given:
            raise SkyvernConfigError(f"mask_output {ADVICE}, not {given!r}.")
        if unknown := [name for name in given if name not in ("keep", "add")]:
            raise SkyvernConfigError(f"mask_output has no {unknown[0]!r}: it {ADVICE}.")
        paths = [*_paths(given, "keep"), *_paths(given, "add")]
        kept = {path for path, mode, _ in paths if mode == "keep"}
        if twice := next((text for path, mode, text in paths if mode == "add" and path in kept), None):
            raise SkyvernConfigError(f"mask_output: {twice!r} cannot be both in keep and in add.")
        return cls(paths=tuple(paths))

    def mode_at(self, path: list[Any]) -> Mode | None:
        """Return the author's rule for the value at a path, if any; masking wins."""
        found: Mode | None = None
        for steps, mode, text in self.paths:
            if len(steps) == len(path) and all(map(_fits, steps, path)):
                self._used.add(text)
                found = mode
        return found

    def unused(self) -> list[str]:
        """Return the paths that the output did not have."""
        return [text for _, _, text in self.paths if text not in self._used]


def check_mask_output(task_id: str, given: Any) -> None:
    """
    Check a ``mask_output`` when the DAG is parsed.

    :raises SkyvernConfigError: names the task, what is wrong, and what would be right.
    """
    try:
        MaskRules.of(given)
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: {error}") from None


def _paths(given: Mapping[str, Any], mode: Mode) -> list[tuple[Path, Mode, str]]:
    texts = given.get(mode) or ()
    if isinstance(texts, str):
        texts = (texts,)
    if not isinstance(texts, list | tuple | set | frozenset) or not all(isinstance(text, str) for text in texts):
        raise SkyvernConfigError(f"mask_output: {mode} must be a list of paths, not {given[mode]!r}; it {ADVICE}.")
    return [(steps_of(text), mode, text) for text in texts]


def steps_of(text: str) -> Path:
    """
    Read a path such as ``invoices[].session_id``, ``[0].note``, ``*.token`` or ``headers["X.Y"]``.

    :raises SkyvernConfigError: it is none.
    """
    steps: list[Any] = []
    place = 1 if text.startswith("$") and text[1:2] in (".", "[") else 0
    end = len(text)
    if place and text[1] == ".":
        text, place = text[2:], 0
        end = len(text)
    while place < end:
        found = STEP.match(text, place)
        if found is None or (found["name"] is not None and text[place] != "." and place):
            break
        steps.append(_step(found))
        place = found.end()
    if place < end or not steps:
        raise SkyvernConfigError(
            f'mask_output: {text!r} is not a path. Write names with dots between them, "[]" for each item of a list, '
            '"[0]" for one, "*" for any name, ["a.b"] for a name with dots: invoices[].session_id.'
        )
    return tuple(steps)


def _step(found: re.Match[str]) -> Any:
    if found["name"] is not None:
        return found["name"].strip()
    if found["quoted"] is not None:
        return re.sub(r"\\(.)", r"\1", found["quoted"])
    return int(found["index"]) if found["index"].isdigit() else ANY_ITEM


def _fits(step: Any, part: Any) -> bool:
    if isinstance(part, int) and not isinstance(part, bool):
        return step in (ANY_ITEM, part)
    return step in (ANY_NAME, part)
