"""
Makes file names safe: pure functions of the names that Skyvern, or the site that a run visited, gives.

A name has no path, no control characters, none of the characters that addresses, globs or Windows shares read
differently, and at most 255 bytes. Unicode is kept, in its composed form.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

MOST_BYTES = 255
"""The longest name that common file systems take, in bytes of UTF-8."""

LONGEST_EXTENSION = 20
"""Bytes of the longest ending that counts as an extension, with its dot."""

DEFAULT_NAME = "file"

RESERVED = frozenset({"CON", "PRN", "AUX", "NUL"} | {f"{port}{n}" for port in ("COM", "LPT") for n in range(10)})
"""Names that Windows takes for devices, with any extension."""

PLACEHOLDERS = ("index", "name", "extension", "skyvern_run_id")
"""The placeholders that ``file_name`` may hold in braces."""

RUN_ID = "{skyvern_run_id}"
"""The placeholder for Skyvern's run id in names and addresses; ``{{ run_id }}`` is Airflow's id of the DAG run."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LIKE_RUN_ID = re.compile(r"\{\s*(?:skyvern\w*|run_?id)\s*\}", re.IGNORECASE)
_AMBIGUOUS = re.compile(r'[?#*:"<>|%\[\]]')
_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Co", "Zl", "Zp"})
_BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def safe_name(name: str | None, default: str = DEFAULT_NAME) -> str:
    """
    Return the last part of a path as a safe name.

    :param default: The name for a path without one, or with only unsafe characters.
    """
    last = re.split(r"[/\\]", name or "")[-1]
    text = unicodedata.normalize("NFC", last)
    visible = "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE and c not in _BIDI)
    text = _AMBIGUOUS.sub("_", visible).strip(". \t\u00a0")
    stem, extension = split_extension(text or default)
    if stem.partition(".")[0].upper() in RESERVED:
        stem = f"_{stem}"
    return _shortened(stem, extension)


def split_extension(name: str) -> tuple[str, str]:
    """Split a name into its stem and its extension with the dot; a longer ending is not an extension."""
    extension = PurePosixPath(name).suffix
    if not extension or len(extension.encode()) > LONGEST_EXTENSION:
        return name, ""
    return name[: -len(extension)], extension


def with_run_id(template: str, run_id: str) -> str:
    """Return an address or a name with Skyvern's id of the run in it."""
    return template.replace(RUN_ID, run_id)


def misspelt_run_id(address: str) -> str | None:
    """Return a misspelt placeholder for the run's id, which would name one folder for all runs."""
    return next((found for found in _LIKE_RUN_ID.findall(address) if found != RUN_ID), None)


def before_run_id(address: str) -> str:
    """Return the part of a folder's address that is known before the run: everything above the run's id."""
    known, found, _ = address.partition(RUN_ID)
    return known.rpartition("/")[0] if found else address


def file_names(given: Sequence[str | None], template: str | None = None, run_id: str = "") -> list[str]:
    """
    Return a safe, unique name for each file, also where names ignore upper and lower case.

    :param given: The names that Skyvern has for the files.
    :param template: ``file_name`` after Jinja: ``{index}`` counts from 1, ``{name}`` is the file's own name
        without its extension, ``{extension}`` its extension with the dot, ``{skyvern_run_id}`` the id of the run.
    """
    template = None if template is None else with_run_id(template, run_id)
    taken: set[str] = set()
    names = []
    for index, name in enumerate(given, 1):
        safe = safe_name(name)
        chosen = numbered(safe if template is None else filled(template, index, safe), taken)
        taken.add(chosen.casefold())
        names.append(chosen)
    return names


def filled(template: str, index: int, name: str) -> str:
    """Return the name of a file according to ``file_name``."""
    stem, extension = split_extension(name)
    values = {"index": str(index), "name": stem, "extension": extension}
    text = _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)
    return safe_name(re.sub(r"[/\\]", "_", text))


def unknown_placeholders(template: str) -> list[str]:
    """Return the texts in braces in ``file_name`` that are not placeholders; Jinja's braces do not count."""
    without_jinja = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", template, flags=re.DOTALL)
    return [found for found in _PLACEHOLDER.findall(without_jinja) if found not in PLACEHOLDERS]


def numbered(name: str, taken: Iterable[str]) -> str:
    """Return the name, with a number where it is taken: ``invoice.pdf``, ``invoice-2.pdf``."""
    known = set(taken)
    stem, extension = split_extension(name)
    candidate, number = name, 1
    while candidate.casefold() in known:
        number += 1
        candidate = _shortened(stem, f"-{number}{extension}")
    return candidate


def _shortened(stem: str, ending: str) -> str:
    room = MOST_BYTES - len(ending.encode())
    return stem.encode()[:room].decode(errors="ignore") + ending
