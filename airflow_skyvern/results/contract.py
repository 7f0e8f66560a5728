"""
The contract of an output: its required form, as a pydantic type or as a JSON Schema.

An error names the path and the broken rule, never the value: an output may hold anything, and the message ends in
logs and in notifications.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_origin, get_type_hints

from airflow_skyvern.exceptions import SkyvernConfigError, shorten
from airflow_skyvern.results.fitting import fitted

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as JsonSchemaError
    from jsonschema.protocols import Validator
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

MOST_PROBLEMS = 20
"""How many problems a message names."""

SAMPLES: tuple[Any, ...] = (None, True, 0, "", [], {})
"""One value of each JSON type."""

ANNOTATIONS = frozenset({
    "$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$ref", "$dynamicRef", "$recursiveRef",
    "$defs", "$comment", "$vocabulary", "definitions", "id", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "contentSchema", "then",
    "else", "minContains", "maxContains", "example", "nullable", "discriminator", "optional",
})  # fmt: skip
"""Keywords that validate nothing by themselves; the last ones come from OpenAPI and older drafts."""

MISSPELT = 0.8
"""How similar an unknown word and a keyword must be to count as a misspelling; other words are the author's own."""

SAFE_CONTEXT = frozenset({
    "gt", "ge", "lt", "le", "multiple_of", "expected", "expected_tags", "class", "class_name", "min_length",
    "max_length", "field_type", "actual_length", "pattern", "discriminator", "max_digits", "decimal_places",
    "whole_digits", "expected_schemes", "expected_version",
})  # fmt: skip
"""What pydantic's messages may quote: parts of the model. The rest may come from the value."""


class Misfit(Exception):
    """
    A value does not fit the contract.

    :param problems: The path and the description of each problem.
    """

    def __init__(self, problems: Iterator[tuple[str, str]]) -> None:
        self.problems = list(problems)
        shown = [f"{path}: {what}" if path else what for path, what in self.problems[:MOST_PROBLEMS]]
        if more := len(self.problems) - len(shown):
            shown.append(f"and {more} more")
        super().__init__("; ".join(shown))


class Contract(Protocol):
    """The required form of an output."""

    def check(self) -> None:
        """
        Check, before a run is started, that outputs can be validated.

        :raises SkyvernConfigError: it names an undefined type.
        """

    def validated(self, value: Any) -> Any:
        """
        Return the value as plain JSON.

        :raises Misfit: it does not fit.
        """

    def fits(self, value: Any) -> bool:
        """Return whether a value from :meth:`validated` is still valid after changes."""

    def json_schema(self) -> Mapping[str, Any]:
        """
        Return the contract as a JSON Schema, for a language model that has to follow it.

        :raises SkyvernConfigError: JSON Schema cannot express it.
        """


def is_type(schema: Any) -> bool:
    """Return whether this is a type, such as a pydantic model or ``list[Invoice]``: no JSON Schema, and no path."""
    return isinstance(schema, type) or get_origin(schema) is not None


def contract_of(schema: Any, read: Callable[[str], str]) -> Contract:
    """
    Create the contract from a DAG author's ``output_schema``.

    :param schema: A type that pydantic validates, a JSON Schema, or the path of a file that holds one.
    :param read: Returns the text of a file next to the DAG file.
    :raises SkyvernConfigError: it is none of these.
    """
    if is_type(schema):
        return TypeContract(schema)
    if isinstance(schema, str):
        return JsonSchemaContract(_schema_in(schema, read(schema)))
    if isinstance(schema, Mapping):
        return JsonSchemaContract(schema)
    raise SkyvernConfigError(
        "output_schema: must be a pydantic model class, a JSON Schema as a mapping, or the path of a JSON Schema "
        f"file, not {type(schema).__name__}."
    )


def check_schema(task_id: str, schema: Any, *, has_output: bool) -> None:
    """
    Check an ``output_schema`` when the DAG is parsed; a file is read when the task runs.

    :param has_output: Whether the task gets the output at all.
    :raises SkyvernConfigError: names the task and what is wrong.
    """
    if not has_output:
        raise SkyvernConfigError(
            f"Task {task_id!r}: output_schema: this task does not wait for an output; give it to the one that does."
        )
    try:
        if not isinstance(schema, str):
            contract_of(schema, str)
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: {error}") from None


def check_json_schema(task_id: str, schema: Any) -> None:
    """
    Check, when the DAG is parsed, that ``output_schema`` has a JSON Schema for the model: not every type has one.

    :raises SkyvernConfigError: names the task and what is wrong.
    """
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        if is_type(schema):
            contract_of(schema, str).json_schema()
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: {error}") from None
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return  # a class that the DAG file defines further down


class TypeContract:
    """
    A type that pydantic validates.

    :param kind: A model class, or anything else that pydantic's ``TypeAdapter`` accepts.
    :raises SkyvernConfigError: pydantic cannot validate it.
    """

    def __init__(self, kind: Any) -> None:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

        if (old := next(_old_models(kind), None)) is not None:
            raise SkyvernConfigError(
                f"output_schema: {old.__name__} is a model of pydantic 1 (pydantic.v1). Derive it from "
                "pydantic.BaseModel."
            )
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise SkyvernConfigError(f"output_schema: pydantic cannot validate {kind!r}: {error.message}") from error
        except Exception as error:  # what annotations and the model's own hooks raise
            raise SkyvernConfigError(
                f"output_schema: pydantic cannot validate {kind!r}: {type(error).__name__}: {error}"
            ) from error

    def check(self) -> None:
        """Validate something: while the DAG file is read, a class may name others that follow it."""
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

        try:
            if hasattr(self._adapter, "rebuild"):  # from pydantic 2.10 on
                self._adapter.rebuild(raise_errors=True)
            self._adapter.validate_python(None)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise SkyvernConfigError(f"output_schema: a type is not defined. {error.message}") from error
        except Exception:  # noqa: BLE001  a model, and the author's own validators, may refuse this value in any way
            return

    def validated(self, value: Any) -> Any:
        """
        Validate it as JSON, also with strict models: in JSON a date is a text.

        A value that fits in Python also fits in JSON too, and takes less memory to find out.
        """
        from pydantic import ValidationError

        try:
            return self._adapter.dump_python(self._fitting(value), mode="json")
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            raise Misfit((_path(detail["loc"]), _rule(detail)) for detail in details) from None
        except Exception as error:  # what the author's own validators and serializers raise
            raise Misfit(iter([("", f"the model itself failed with {type(error).__name__}")])) from error

    def fits(self, value: Any) -> bool:
        """Validate it again in its pushed form: by the names of its fields, and by their aliases."""
        from pydantic_core import to_json

        names: dict[str, Any] = {"by_alias": True, "by_name": True} if _takes_names() else {}
        try:
            self._adapter.validate_json(to_json(fitted(json.loads(to_json(value)), [], xcom=False)), **names)
        except Exception:  # noqa: BLE001  pydantic's, and what the author's own validators raise
            return False
        return True

    def json_schema(self) -> Mapping[str, Any]:
        """Return pydantic's own schema of the type."""
        from pydantic.errors import PydanticInvalidForJsonSchema

        try:
            return self._adapter.json_schema()
        except PydanticInvalidForJsonSchema as error:
            raise SkyvernConfigError(f"output_schema: it has no JSON Schema. {error.message}") from error

    def _fitting(self, value: Any) -> Any:
        from pydantic import ValidationError
        from pydantic_core import to_json

        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            return self._adapter.validate_json(to_json(fitted(value, [], xcom=False)))


class JsonSchemaContract:
    """
    A JSON Schema, of the draft that its ``$schema`` names; addresses in ``$ref`` are not fetched.

    :raises SkyvernConfigError: it is not a valid JSON Schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry

        plain = self._schema = json.loads(json.dumps(schema))
        kind = validator_for(plain)
        try:
            kind.check_schema(plain)
        except SchemaError as error:
            where = f" at {_path(error.absolute_path)}" if error.absolute_path else ""
            raise SkyvernConfigError(
                f"output_schema: is not a valid JSON Schema{where}: {shorten(error.message)}"
            ) from None
        _check_keywords(plain, kind)
        self._validator: Validator = kind(plain, registry=Registry(), format_checker=kind.FORMAT_CHECKER)
        _check_references(plain, kind)
        self.check()

    def json_schema(self) -> Mapping[str, Any]:
        """Return the schema itself."""
        schema: Mapping[str, Any] = self._schema
        return schema

    def check(self) -> None:
        """Validate one value of each type."""
        try:
            for sample in SAMPLES:
                self._validator.is_valid(sample)
        except RecursionError:
            raise SkyvernConfigError("output_schema: a $ref leads back to itself.") from None

    def fits(self, value: Any) -> bool:
        """Validate it again."""
        return bool(self._validator.is_valid(value))

    def validated(self, value: Any) -> Any:
        """Return the value itself: a JSON Schema changes nothing."""
        from referencing.exceptions import Unresolvable

        try:
            errors = sorted(
                self._validator.iter_errors(value), key=lambda error: [str(p) for p in error.absolute_path]
            )
        except Unresolvable as error:
            raise SkyvernConfigError(f"output_schema: $ref {error.ref!r} is not within the schema.") from None
        except RecursionError:
            raise Misfit(iter([("", "it is nested too deeply to be validated")])) from None
        if errors:
            raise Misfit((_path(error.absolute_path), _broken_rule(error)) for error in errors)
        return value


class TextContract:
    """The text that a prompt without a schema returns. Skyvern's model answers only with JSON objects."""

    def check(self) -> None:
        """Accept each text."""

    def json_schema(self) -> Mapping[str, Any]:
        """Return the schema of an object that holds the text."""
        answer = {"type": "string", "description": "The answer to the goal, in words."}
        return {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}

    def fits(self, value: Any) -> bool:
        """Accept each text."""
        return True

    def validated(self, value: Any) -> Any:
        """Return the text, or None if the run returns no text, as after a download."""
        text = value.get("answer") if isinstance(value, Mapping) else value
        if text is not None and not isinstance(text, str):
            raise Misfit(iter([("", "it holds no text")]))
        return text


@cache
def _takes_names() -> bool:
    """Return whether pydantic can validate by the names of fields that have an alias: from 2.11 on."""
    from pydantic import TypeAdapter

    return "by_name" in signature(TypeAdapter.validate_json).parameters


def _old_models(kind: Any) -> Iterator[type[Any]]:
    """Find models of pydantic 1 in a type; pydantic 2 validates with them, and cannot serialize them."""
    seen: set[int] = set()
    types = [kind]
    while types:
        found = types.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        types += get_args(found)
        if isinstance(found, type):
            old_dataclass = getattr(vars(found).get("__pydantic_model__"), "__mro__", ())
            if any(base.__module__.startswith("pydantic.v1") for base in (*found.__mro__, *old_dataclass)):
                yield found
            fields = getattr(found, "model_fields", None) or {}
            types += [field.annotation for field in fields.values()]
            types += [field.type for field in getattr(found, "__dataclass_fields__", {}).values()]
            types += _hints_of(found).values()  # of a TypedDict or a NamedTuple


def _hints_of(kind: type[Any]) -> Mapping[str, Any]:
    with suppress(Exception):  # what annotations that cannot be evaluated yet raise
        return get_type_hints(kind)
    return {}


def _check_keywords(schema: Any, kind: Any) -> None:
    """
    Find words that JSON Schema silently ignores: misspelt keywords, and an example given instead of a schema.

    :raises SkyvernConfigError: names the keyword, and the one that was probably meant.
    """
    from referencing.jsonschema import DRAFT202012, specification_with

    known = ANNOTATIONS | set(kind.VALIDATORS)
    if isinstance(schema, Mapping) and schema and not known & set(schema):
        names = ", ".join(sorted(schema))
        raise SkyvernConfigError(
            f"output_schema: {shorten(names, 200)}: not a JSON Schema keyword, so any output would fit. An object "
            'with these keys is {"type": "object", "properties": {…}, "required": […]}.'
        )
    pending = [specification_with(kind.META_SCHEMA.get("$schema", ""), default=DRAFT202012).create_resource(schema)]
    while pending:
        resource = pending.pop()
        for name in resource.contents if isinstance(resource.contents, Mapping) else ():
            if name not in known and (meant := get_close_matches(name, known, n=1, cutoff=MISSPELT)):
                raise SkyvernConfigError(f"output_schema: {name}: no such keyword. Did you mean {meant[0]}?")
        pending += resource.subresources()


def _check_references(schema: Any, kind: Any) -> None:
    """
    Resolve every reference in a schema, also in parts that few outputs reach.

    :raises SkyvernConfigError: one leads nowhere, or out of the schema.
    """
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, specification_with

    specification = specification_with(kind.META_SCHEMA.get("$schema", ""), default=DRAFT202012)
    root: Resource[Any] = specification.create_resource(schema)
    pending = [(root, Registry[Any]().resolver_with_root(root))]
    while pending:
        resource, resolver = pending.pop()
        if _leads_back(resource.contents, resolver, ()):
            raise SkyvernConfigError("output_schema: a $ref leads back to itself.")
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            contents = resource.contents
            reference = contents.get(keyword) if isinstance(contents, Mapping) else None
            try:
                if isinstance(reference, str):
                    resolver.lookup(reference)
            except Unresolvable:
                raise SkyvernConfigError(f"output_schema: $ref {reference!r} is not within the schema.") from None
        pending += [(part, resolver.in_subresource(part)) for part in resource.subresources()]


def _leads_back(schema: Any, resolver: Any, above: tuple[int, ...]) -> bool:
    """Return whether a schema applies itself to the same value endlessly."""
    from referencing.exceptions import Unresolvable

    if not isinstance(schema, Mapping):
        return False
    if id(schema) in above:
        return True
    above = (*above, id(schema))
    if isinstance(reference := schema.get("$ref"), str):
        with suppress(Unresolvable):
            target = resolver.lookup(reference)
            if _leads_back(target.contents, target.resolver, above):
                return True
    parts = [schema.get(name) for name in ("not", "if", "then", "else")]
    for name in ("allOf", "anyOf", "oneOf"):
        parts += schema[name] if isinstance(schema.get(name), list) else []
    return any(_leads_back(part, resolver, above) for part in parts)


def _schema_in(path: str, text: str) -> Any:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise SkyvernConfigError(f"output_schema: {path} does not hold JSON: {error}") from None
    if not isinstance(schema, Mapping):
        raise SkyvernConfigError(f"output_schema: {path} does not hold a JSON Schema, which is an object.")
    return schema


def _path(parts: Any) -> str:
    return shorten(".".join(str(part) for part in parts), 200)


def _rule(detail: ErrorDetails) -> str:
    """Describe the error in pydantic's words, without quotes from the value or from the author's code."""
    from pydantic_core.core_schema import ErrorType

    from airflow_skyvern.secret_values import MASK

    if detail["type"] not in get_args(ErrorType):
        return f"refused by the model as {detail['type']}"
    message = detail["msg"]
    for name, part in detail.get("ctx", {}).items():
        if name not in SAFE_CONTEXT and str(part):
            message = message.replace(str(part), MASK)
    return message.removesuffix(f", {MASK}").removesuffix(f": {MASK}")


def _broken_rule(error: JsonSchemaError) -> str:
    """Describe the error in the schema's words; jsonschema's own messages quote the value."""
    rule, expected = str(error.validator), error.validator_value
    if rule in {"required", "dependentRequired"}:
        return str(error.message)  # names the property, which is in the schema
    if rule == "type":
        return f"is not of type {expected if isinstance(expected, str) else ' or '.join(expected)}"
    if rule in {"additionalProperties", "unevaluatedProperties"} and expected is False:
        return "has properties that the schema does not have"
    if rule in {"anyOf", "oneOf", "allOf", "not", "if", "contains", "propertyNames"}:
        return f"does not fit {rule} of the schema"
    return f"breaks {rule}: {shorten(json.dumps(expected, ensure_ascii=False), 100)}"
