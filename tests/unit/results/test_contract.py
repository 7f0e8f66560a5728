"""What an output has to look like, what is said of one that does not fit, and that no value is said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib import import_module
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.results.contract import Misfit, contract_of

SECRET = "s3cr3t-W4rd"


class Line(BaseModel):
    item: str
    price: Decimal


class Invoice(BaseModel):
    number: str = Field(pattern="^INV-")
    due: date
    lines: list[Line] = []


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    due: date


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


@dataclass
class Row:
    total: float


class NoModel:
    """A class that pydantic knows nothing of."""


class Quoting(BaseModel):
    """Its validators put the value into their messages, as people do."""

    iban: str = ""
    bic: str = ""
    tax_number: str = ""
    vat_number: str = ""

    @field_validator("iban")
    @classmethod
    def check_iban(cls, value: str) -> str:
        raise ValueError(f"{value} is no IBAN")

    @field_validator("bic")
    @classmethod
    def check_bic(cls, value: str) -> str:
        raise PydanticCustomError("bic", "{value} is no BIC", {"value": value})

    @field_validator("tax_number")
    @classmethod
    def check_tax_number(cls, value: str) -> str:
        raise AssertionError(f"{value} is no tax number")

    @field_validator("vat_number")
    @classmethod
    def check_vat_number(cls, value: str) -> str:
        raise PydanticCustomError("vat", f"{value} is no VAT number")


JSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["number", "lines"],
    "additionalProperties": False,
    "properties": {
        "number": {"type": "string", "pattern": "^INV-"},
        "due": {"type": "string", "format": "date"},
        "currency": {"enum": ["EUR", "USD"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "maxItems": 2},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
    },
    "$defs": {"line": {"type": "object", "properties": {"price": {"type": ["number", "null"], "minimum": 0}}}},
}


INVOICE = {"number": "INV-1", "due": "2026-11-26"}


def no_file(path: str) -> str:
    raise AssertionError(path)


def problems(schema: Any, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(Misfit) as misfit:
        contract_of(schema, no_file).validated(value)
    assert SECRET not in str(misfit.value)
    return misfit.value.problems


@pytest.mark.parametrize(
    ("schema", "value", "pushed"),
    [
        (Invoice, {**INVOICE, "more": 1}, {**INVOICE, "lines": []}),
        (Strict, {"due": "2026-11-26"}, {"due": "2026-11-26"}),
        (list[Line], [{"item": "a", "price": 1.5}], [{"item": "a", "price": "1.5"}]),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Row, {"total": 1}, {"total": 1.0}),
        (Line | None, None, None),
        (JSON_SCHEMA, {**INVOICE, "lines": [{"price": None}]}, {**INVOICE, "lines": [{"price": None}]}),
    ],
)  # fmt: skip
def test_what_fits_becomes_plain_json(schema: Any, value: Any, pushed: Any) -> None:
    validated = contract_of(schema, no_file).validated(value)
    assert validated == pushed
    assert json.loads(json.dumps(validated)) == pushed


def test_each_path_of_a_model_is_named_and_no_value() -> None:
    value = {"number": SECRET, "due": SECRET, "lines": [{"item": 5, "price": 1}, {"price": SECRET}]}
    assert problems(Invoice, value) == [
        ("number", "String should match pattern '^INV-'"),
        ("due", "Input should be a valid date or datetime"),
        ("lines.0.item", "Input should be a valid string"),
        ("lines.1.item", "Field required"),
        ("lines.1.price", "Input should be a valid decimal"),
    ]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Pets, {"pet": {"kind": SECRET}}),
        (Strict, {"due": SECRET, "more": SECRET}),
        (Invoice, SECRET),
        (Invoice, [SECRET]),
        (dict[str, int], {"a": SECRET}),
        (Quoting, {"iban": SECRET, "bic": SECRET, "tax_number": SECRET, "vat_number": SECRET}),
    ],
)
def test_pydantics_words_quote_no_value(schema: Any, value: Any) -> None:
    assert all(what for _, what in problems(schema, value))


def test_a_validator_of_the_author_is_named_by_its_field() -> None:
    found = problems(Quoting, {"iban": SECRET, "vat_number": SECRET})
    assert found == [("iban", "Value error"), ("vat_number", "refused by the model as vat")]


def test_each_path_of_a_json_schema_is_named_and_no_value() -> None:
    value = {
        "number": SECRET, "due": SECRET, "currency": SECRET, "more": SECRET, "note": SECRET,
        "lines": [{"price": SECRET}, {"price": -1}, SECRET],
    }  # fmt: skip
    assert problems(JSON_SCHEMA, value) == [
        ("", "has properties that the schema does not have"),
        ("currency", 'breaks enum: ["EUR", "USD"]'),
        ("due", 'breaks format: "date"'),
        ("lines", "breaks maxItems: 2"),
        ("lines.0.price", "is not of type number or null"),
        ("lines.1.price", "breaks minimum: 0"),
        ("lines.2", "is not of type object"),
        ("note", "does not fit anyOf of the schema"),
        ("number", 'breaks pattern: "^INV-"'),
    ]
    assert problems(JSON_SCHEMA, {"number": "INV-1"}) == [("", "'lines' is a required property")]


def test_a_message_names_twenty_problems_and_counts_the_rest() -> None:
    with pytest.raises(Misfit, match=r"^0: Input .*; 19: Input [^;]*; and 5 more$"):
        contract_of(list[int], no_file).validated(["x"] * 25)


def test_a_json_schema_is_read_from_a_file() -> None:
    contract = contract_of("invoice.json", {"invoice.json": json.dumps(JSON_SCHEMA)}.__getitem__)
    assert contract.validated({"number": "INV-1", "lines": []}) == {"number": "INV-1", "lines": []}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "invoice.json does not hold JSON"),
        ("[1]", "does not hold a JSON Schema"),
        ('{"type": "objct"}', "at type: 'objct' is"),
    ],
)
def test_a_file_that_holds_no_schema_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        contract_of("invoice.json", lambda _: text)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (5, "must be a pydantic model class, a JSON Schema as a mapping, or the path of a JSON Schema file, not int"),
        ({"type": "objct"}, "is not a valid JSON Schema at type: 'objct'"),
        (
            {"invoice": "string", "amount": 0},
            "amount, invoice: not a JSON Schema keyword, so any output would fit",
        ),
        ({"type": "object", "propertes": {}}, r"propertes: no such keyword. Did you mean properties\?"),
        ({"items": {"type": "object", "requierd": ["a"]}}, r"requierd: no such keyword. Did you mean required\?"),
        ({"$defs": {"A": {"enums": [1]}}, "$ref": "#/$defs/A"}, r"enums: no such keyword. Did you mean enum\?"),
        (NoModel, "pydantic cannot validate .*NoModel"),
    ],
)
def test_a_schema_that_is_none_is_found_when_the_dag_is_parsed(schema: Any, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=f"^Task 't': output_schema: {complaint}"):
        SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", output_schema=schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"requierd": {"x-unit": "EUR"}}, "examples": [{"tpye": 1}], "default": {"itmes": 1}},
        {"type": "object", "order": ["a"], "ui": {"tpye": "x"}, "example": {}, "nullable": True},
        {"$schema": "http://json-schema.org/draft-04/schema#", "id": "a", "definitions": {}, "dependencies": {}},
        {"enum": [{"propertes": 1}], "const": {"requierd": 1}},
    ],
    ids=str,
)
def test_own_words_in_a_schema_and_names_of_data_are_no_misspelt_keywords(schema: dict[str, Any]) -> None:
    SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", output_schema=schema)


def test_a_schema_for_a_task_that_gets_no_output_is_found_when_the_dag_is_parsed() -> None:
    with pytest.raises(SkyvernConfigError, match="this task does not wait for an output"):
        SkyvernRunWorkflowOperator(task_id="t", workflow_id="w", output_schema=Invoice, wait_for_completion=False)


def test_no_address_in_a_schema_is_fetched() -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    with pytest.raises(SkyvernConfigError, match=r"\$ref 'http://127.0.0.1:9/schema.json' is not within the schema"):
        contract_of(schema, no_file).validated({})


def serialization() -> Any:
    """What Airflow stores of a DAG: the class that writes it was renamed in 3.2."""
    serialized_objects: Any = import_module("airflow.serialization.serialized_objects")
    return getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG


@pytest.mark.parametrize("schema", [Invoice, list[Invoice], JSON_SCHEMA, "invoice.json"], ids=str)
def test_a_dag_with_any_schema_is_stored_and_read_again(schema: Any) -> None:
    arguments: dict[str, Any] = {"workflow_id": "wpid_1", "output_schema": schema}
    with DAG("d", schedule=None) as dag:
        one = SkyvernRunWorkflowOperator(task_id="one", **arguments)
        SkyvernRunWorkflowOperator.partial(task_id="many", **arguments).expand(parameters=[{"a": 1}])
    stored = [json.dumps(serialization().to_dict(dag), sort_keys=True) for _ in range(2)]
    assert stored[0] == stored[1]  # else Airflow would see a new version of the DAG at every parse
    again = serialization().from_dict(json.loads(stored[0]))
    assert set(again.task_dict) == {"one", "many"}
    assert one.output_schema is schema  # what the worker runs comes from the DAG file


def test_a_mapped_task_gets_the_class_itself() -> None:
    with DAG("d", schedule=None) as dag:
        SkyvernRunWorkflowOperator.partial(task_id="t", workflow_id="w", output_schema=Invoice).expand(title=["a"])
    task: Any = dag.task_dict["t"]
    assert task.unmap({"title": "a"}).output_schema is Invoice
