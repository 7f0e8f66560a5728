"""
Finds errors in a definition before it is sent to Skyvern, which silently accepts misspelt keys.

Unknown types of blocks and parameters only cause warnings: Skyvern adds some now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.workflow_files import fields
from airflow_skyvern.workflow_files.secret_fields import secrets_of

if TYPE_CHECKING:
    from airflow_skyvern.workflow_files.fields import Fields
    from airflow_skyvern.workflow_files.text import WorkflowFile

ADVICE = (
    "A definition is stored in Git and readable by everybody in Skyvern. Put the secret into a credential of Skyvern "
    "and name its id (cred_…), or make it a parameter and give its value in the DAG, from a connection or a variable "
    "of Airflow: {{ conn.portal.password }}"
)


def check(file: WorkflowFile, *, keys: bool = True) -> list[str]:
    """
    Check a definition, and return the warnings.

    :param keys: Whether a key that this version does not know is an error; else it is a warning.
    :raises SkyvernConfigError: names everything that is wrong and what would be right; never the value of a secret.
    """
    raw = file.raw
    unknown, obsolete = list(_unknown_keys(raw)), list(_obsolete_keys(raw))
    problems = [*(unknown if keys else ()), *_missing(raw), *_names(raw), *_references(raw)]
    if secrets := list(secrets_of(raw)):
        problems.append(f"{', '.join(secrets)}: holds a secret. {ADVICE}")
    if problems:
        raise SkyvernConfigError(f"{file.name}: {'; '.join(problems)}")
    return [f"{file.name}: {warning}" for warning in (*_unknown_types(raw), *obsolete, *(() if keys else unknown))]


def blocks_of(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all blocks of a definition, a loop's blocks after the loop."""
    yield from _with_inner(raw["workflow_definition"]["blocks"])


def _with_inner(blocks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        yield block
        yield from _with_inner(block.get("loop_blocks") or ())


def _mappings(raw: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Fields]]:
    """Yield each mapping with known fields: its name, its content, its allowed fields."""
    definition = raw["workflow_definition"]
    yield "", raw, fields.of_root()
    yield "workflow_definition", definition, fields.of_definition()
    yield from _settings(definition)
    for parameter in definition["parameters"]:
        if (known := fields.of_parameter(str(parameter.get("parameter_type")))) is not None:
            yield f"parameter {parameter.get('key')}", parameter, known
    for block in blocks_of(raw):
        if (known := fields.of_block(str(block.get("block_type")))) is not None:
            yield f"block {block.get('label')}", block, known
            yield from _conditions(f"block {block.get('label')}", block)


def _settings(definition: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Fields]]:
    if isinstance(settings := definition.get("browser_settings"), Mapping):
        yield "browser_settings", settings, fields.BROWSER_SETTINGS
    if isinstance(policy := definition.get("retry_policy"), Mapping):
        yield "retry_policy", policy, fields.RETRY_POLICY
        rules = policy.get("retry_on")
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, Mapping):
                yield "retry_policy, retry_on", rule, fields.RETRY_RULE


def _conditions(where: str, block: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Fields]]:
    branches = block.get("branch_conditions")
    for branch in branches if isinstance(branches, list) else ():
        if isinstance(branch, Mapping):
            yield f"{where}, branch_conditions", branch, fields.BRANCH
            if isinstance(criteria := branch.get("criteria"), Mapping):
                yield f"{where}, criteria", criteria, fields.CRITERIA
    if isinstance(condition := block.get("condition"), Mapping):
        yield f"{where}, condition", condition, fields.CRITERIA


def _unknown_keys(raw: Mapping[str, Any]) -> Iterator[str]:
    for where, given, known in _mappings(raw):
        for key in given:
            if key not in known and key not in fields.OBSOLETE:
                yield _named(where, key, f"no such key. {_hint(str(key), known)}")


def _obsolete_keys(raw: Mapping[str, Any]) -> Iterator[str]:
    for where, given, known in _mappings(raw):
        for key in given:
            if key in fields.OBSOLETE - set(known):
                yield _named(where, key, "Skyvern does not read this key any more")


def _unknown_types(raw: Mapping[str, Any]) -> Iterator[str]:
    for parameter in raw["workflow_definition"]["parameters"]:
        if (kind := str(parameter.get("parameter_type"))) not in fields.parameter_types():
            yield _type(f"parameter {parameter.get('key')}", "parameter_type", kind, fields.parameter_types())
    for block in blocks_of(raw):
        if (kind := str(block.get("block_type"))) not in fields.block_types():
            yield _type(f"block {block.get('label')}", "block_type", kind, fields.block_types())


def _type(where: str, key: str, kind: str, known: Iterable[str]) -> str:
    return _named(where, key, f"{kind} is not a type that this version of the provider knows. {_hint(kind, known)}")


def _missing(raw: Mapping[str, Any]) -> Iterator[str]:
    definition = raw["workflow_definition"]
    for number, parameter in enumerate(definition["parameters"], 1):
        for key in ("parameter_type", "key"):
            if not isinstance(parameter.get(key), str):
                yield f"parameter {number}: {key}: is missing"
    for number, block in enumerate(blocks_of(raw), 1):
        for key in ("block_type", "label"):
            if not isinstance(block.get(key), str):
                yield f"block {number}: {key}: is missing"
    for where, given, known in _mappings(raw):
        for key, default in known.items():
            if default == fields.REQUIRED and given.get(key) is None and key not in ("block_type", "label"):
                yield _named(where, key, "is missing")


def _names(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield names that are not identifiers, as Skyvern's templates require, and duplicate names."""
    labels = [label for block in blocks_of(raw) if isinstance(label := block.get("label"), str)]
    keys = [key for row in raw["workflow_definition"]["parameters"] if isinstance(key := row.get("key"), str)]
    for kind, names in (("block", labels), ("parameter", keys)):
        for name in dict.fromkeys(names):
            if not name.isidentifier():
                yield f"{kind} {name!r}: the name must be letters, digits and underscores, and not begin with a digit"
            if names.count(name) > 1:
                yield f"{kind} {name}: appears {names.count(name)} times"


def _references(raw: Mapping[str, Any]) -> Iterator[str]:
    definition = raw["workflow_definition"]
    labels = [str(block.get("label")) for block in blocks_of(raw)]
    keys = [*(str(row.get("key")) for row in definition["parameters"]), *(f"{label}_output" for label in labels)]
    for block in blocks_of(raw):
        where = f"block {block.get('label')}"
        names = block.get("parameter_keys")
        yield from _absent(where, "parameter_keys", names if isinstance(names, list) else (), keys)
        yield from _absent(where, "next_block_label", [block.get("next_block_label")], labels)
    for row in definition["parameters"]:
        yield from _absent(
            f"parameter {row.get('key')}", "source_parameter_key", [row.get("source_parameter_key")], keys
        )
    yield from _absent("workflow_definition", "finally_block_label", [definition.get("finally_block_label")], labels)


def _absent(where: str, key: str, names: Iterable[Any], known: list[str]) -> Iterator[str]:
    for name in names:
        if name is not None and name not in known:
            yield _named(where, key, f"there is no {name}. {_hint(str(name), known)}")


def _named(where: str, key: Any, what: str) -> str:
    return f"{where}: {key}: {what}" if where else f"{key}: {what}"


def _hint(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    return did_you_mean(name, names) or f"Known: {', '.join(names) or 'none'}"
