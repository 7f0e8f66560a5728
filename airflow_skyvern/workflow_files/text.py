"""
Reads workflow files, and writes them so that the same workflow always gives the same bytes.

The first line of a pulled file records Skyvern's state at that time; it is a comment, and Skyvern's own import
accepts the file unchanged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.workflow_files.form import digest_of, form_of

SUFFIXES = (".yaml", ".yml", ".json")
BASE = re.compile(r"\A# airflow-skyvern: pulled sha256:([0-9a-f]{16})\r?\n")
WIDTH = 110
"""Characters of a line, after which a long text continues in the next one."""

LONG = 80
"""Length from which a text becomes a block, even if it is a single line."""


@dataclass(frozen=True)
class WorkflowFile:
    """
    A workflow file.

    :param name: Its name, without the folder: Skyvern's workflow is tagged with it.
    :param raw: Its content.
    :param base: The digest of Skyvern's content when it was pulled; None for a file that does not record it.
    """

    name: str
    raw: Mapping[str, Any]
    base: str | None = None
    text: str = field(default="", repr=False, compare=False)

    @cached_property
    def form(self) -> dict[str, Any]:
        """Its content, without Skyvern's default values."""
        return form_of(self.raw)

    @cached_property
    def digest(self) -> str:
        """The name of its content."""
        return digest_of(self.form)

    @property
    def title(self) -> str:
        """The title of the workflow."""
        return str(self.raw["title"])


def read(path: Path) -> WorkflowFile:
    """
    Read a file of a workflow.

    :raises SkyvernConfigError: it cannot be read, or holds no workflow; the message names file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SkyvernConfigError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise SkyvernConfigError(f"{path}: is not UTF-8.") from None
    return parsed(path.name, text)


def parsed(name: str, text: str) -> WorkflowFile:
    """
    Parse a text.

    :param name: The name of the file, whose extension gives the format: ``.yaml``, ``.yml`` or ``.json``.
    :raises SkyvernConfigError: it holds no workflow.
    """
    if not name.lower().endswith(SUFFIXES):
        raise SkyvernConfigError(f"{name}: a workflow file ends in {', '.join(SUFFIXES)}.")
    raw = _json(name, text) if name.lower().endswith(".json") else _yaml(name, text)
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise SkyvernConfigError(f"{name}: must hold a mapping with title and workflow_definition.")
    _check_shape(name, raw)
    base = BASE.match(text)
    return WorkflowFile(name, raw, base[1] if base else None, text)


def written(name: str, form: Mapping[str, Any]) -> str:
    """Return the text of a file that holds a workflow which was just pulled."""
    if name.lower().endswith(".json"):
        return json.dumps(form, indent=2, ensure_ascii=False) + "\n"
    return f"# airflow-skyvern: pulled sha256:{digest_of(form)}\n{_dumped(form)}"


def with_base(text: str, digest: str) -> str:
    """Return a text of YAML with another first line, and nothing else of it changed."""
    line = f"# airflow-skyvern: pulled sha256:{digest}\n"
    return line + BASE.sub("", text, count=1)


def store(path: Path, text: str) -> None:
    """Write a file as a whole, or leave it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()  # next to the link's target, which may be on another file system
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(text.encode())
        if target.exists():
            partial.chmod(target.stat().st_mode & 0o7777)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _check_shape(name: str, raw: Mapping[str, Any]) -> None:
    """Check what all other code relies on; errors in blocks and parameters are left to the checks."""
    definition = raw.get("workflow_definition")
    if not isinstance(raw.get("title"), str) or not raw["title"].strip():
        raise SkyvernConfigError(f"{name}: title: is missing. Give the workflow's title, as a text.")
    if not isinstance(definition, dict):
        raise SkyvernConfigError(f"{name}: workflow_definition: is missing: a mapping with parameters and blocks.")
    for part in ("parameters", "blocks"):
        rows = definition.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SkyvernConfigError(f"{name}: workflow_definition.{part}: must be a list of mappings.")
    _check_loops(name, definition["blocks"])


def _check_loops(name: str, blocks: list[dict[str, Any]]) -> None:
    for block in blocks:
        if (inner := block.get("loop_blocks")) is None:
            continue
        if not isinstance(inner, list) or not all(isinstance(row, dict) for row in inner):
            raise SkyvernConfigError(f"{name}: loop_blocks of {block.get('label')}: must be a list of mappings.")
        _check_loops(name, inner)


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(name, pairs))
    except ValueError as error:
        raise SkyvernConfigError(f"{name}: is not JSON: {error}.") from None


def _unique(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise SkyvernConfigError(f"{name}: {next(key for key in keys if keys.count(key) > 1)!r} appears twice.")
    return found


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads as Skyvern does: a text that looks like a date stays a text. A duplicate key is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012  as in its base class
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  as in its base class
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.MarkedYAMLError(problem=f"{twice!r} appears twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _yaml(name: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SkyvernConfigError(f"{name}{line}: is not YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SkyvernConfigError(f"{name}: is not YAML: {error}.") from None


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Writes long texts as blocks of lines, and no anchors."""

    def ignore_aliases(self, _: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: FBT001, FBT002
        return super().increase_indent(flow, indentless=False)  # of lists, as in Skyvern's export

    def analyze_scalar(self, scalar: str) -> Any:
        """Let a text with spaces before a line's end be a block, too, which YAML allows and PyYAML avoids."""
        analysis = super().analyze_scalar(scalar)
        analysis.allow_block = analysis.allow_block or _fits_block(scalar)
        return analysis


def _fits_block(text: str) -> bool:
    return "\n" in text and all(char in "\n\t" or (char.isprintable() and char != "\ufeff") for char in text)


def _text(dumper: yaml.SafeDumper, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=_style(value))


def _style(value: str) -> str | None:
    """Return a text's style: quoted if it has line ends that YAML would change."""
    if any(char in value for char in "\r\x85\u2028\u2029\ufeff"):
        return '"'
    return "|" if "\n" in value else ">" if len(value) > LONG and " " in value else None


_Dumper.add_representer(str, _text)


def _dumped(form: Mapping[str, Any]) -> str:
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": WIDTH}
    text: str = yaml.dump(dict(form), Dumper=_Dumper, **options)
    try:
        is_same = yaml.load(text, _Loader) == form  # noqa: S506  a SafeLoader
    except yaml.YAMLError:
        is_same = False
    return text if is_same else yaml.safe_dump(dict(form), **{**options, "allow_unicode": False})
