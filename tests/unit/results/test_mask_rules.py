"""``mask_output`` with paths, the contract that holds after masking, and the log that names what was masked."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import pytest
import yaml
from pydantic import BaseModel, Field

from airflow_skyvern.compat.sdk import DAG, AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.results.contract import contract_of
from airflow_skyvern.results.mask_rules import MaskRules
from airflow_skyvern.results.masking import OutputMasker, mask_output
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

SECRET = "s3cr3t-W4rd"
LOG = logging.getLogger("test")

OUTPUT: dict[str, Any] = {
    "invoices": [{"id": 1, "access_token": "abc-1"}, {"id": 2, "access_token": "abc-2"}],
    "accounts": [{"note": "call Jo", "balance": 12.5, "open": True, "tags": ["a", "b"]}],
    "a.b": {"password": "hunter2"},
}


def masked(value: Any, given: Any, **more: Any) -> Any:
    return mask_output(value, MaskRules.of(given), "wr_1", LOG, **more)


def output() -> Any:
    return yaml.safe_load(yaml.safe_dump(OUTPUT))


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"keep": ["invoices[].access_token"]}, {}),
        ({"keep": "invoices[].access_token"}, {}),
        ({"keep": ["$.invoices[*].access_token"]}, {}),
        ({"keep": ["invoices"]}, {}),
        ({"keep": ["*[].access_token"]}, {}),
        ({"keep": ["invoices[1]"]}, {"invoices": [{"id": 1, "access_token": "***"}, OUTPUT["invoices"][1]]}),
    ],
)
def test_what_the_author_keeps_stays(given: Any, changed: dict[str, Any]) -> None:
    assert masked(output(), given) == {**OUTPUT, "a.b": {"password": "***"}, **changed}


@pytest.mark.parametrize(
    ("add", "accounts"),
    [
        ("accounts[].note", [{**OUTPUT["accounts"][0], "note": "***"}]),
        ("accounts[].balance", [{**OUTPUT["accounts"][0], "balance": None}]),
        ("accounts", [{"note": "***", "balance": None, "open": None, "tags": ["***", "***"]}]),
        ("accounts[0].tags[1]", [{**OUTPUT["accounts"][0], "tags": ["a", "***"]}]),
        ("*[].note", [{**OUTPUT["accounts"][0], "note": "***"}]),
    ],
)
def test_what_the_author_adds_is_masked_and_a_number_becomes_null(add: str, accounts: Any) -> None:
    assert masked(output(), {"add": [add]})["accounts"] == accounts


def test_a_name_with_a_dot_is_quoted_and_the_deeper_path_wins() -> None:
    assert masked(output(), {"keep": ['["a.b"].password']})["a.b"] == {"password": "hunter2"}
    given = {"keep": ["accounts"], "add": ["accounts[].note"]}
    assert masked(output(), given)["accounts"] == [{**OUTPUT["accounts"][0], "note": "***"}]
    given = {"add": ["accounts"], "keep": ["accounts[].tags"]}
    assert masked(output(), given)["accounts"][0] == {
        "note": "***",
        "balance": None,
        "open": None,
        "tags": ["a", "b"],
    }


def test_the_rules_can_be_written_in_yaml() -> None:
    given = yaml.safe_load("keep: 'invoices[].access_token'\nadd:\n- accounts[].note\n")
    assert masked(output(), given)["invoices"] == OUTPUT["invoices"]


@pytest.mark.parametrize("kind", [SkyvernRunWorkflowOperator, SkyvernRunSensor])
@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("yes", "mask_output must be True, False, or a mapping"),
        (1, "mask_output must be True, False, or a mapping"),
        (None, "mask_output must be True, False, or a mapping"),
        (["a"], "mask_output must be True, False, or a mapping"),
        ({}, "mask_output must be True, False, or {"),
        ({"kept": ["a"]}, "has no 'kept'"),
        ({"keep": [1]}, "keep must be a list of paths"),
        ({"keep": {"a": 1}}, "keep must be a list of paths"),
        ({"keep": [""]}, "'' is not a path"),
        ({"keep": ["a..b"]}, "'a..b' is not a path"),
        ({"keep": ["a."]}, "'a.' is not a path"),
        ({"add": ["a[x]"]}, "'a.x.' is not a path"),
        ({"add": ["a[-1]"]}, "is not a path"),
        ({"keep": ["a[].b"], "add": ["a[*].b"]}, "cannot be both"),
        ({"keep": ["{{ params.path }}"]}, "mask_output is not templated"),
    ],
)
def test_a_wrong_mask_output_is_refused_at_parse(kind: Any, given: Any, complaint: str) -> None:
    arguments = {"workflow_id": "w"} if kind is SkyvernRunWorkflowOperator else {"run_id": "wr_1"}
    with DAG("d", schedule=None), pytest.raises(SkyvernConfigError, match=complaint):
        kind(task_id="t", mask_output=given, **arguments)


def test_a_mapped_task_refuses_a_wrong_mask_output_at_parse() -> None:
    with DAG("d", schedule=None), pytest.raises(SkyvernConfigError, match="mask_output must be True, False"):
        SkyvernRunWorkflowOperator.partial(task_id="t", mask_output="no").expand(workflow_id=["w"])


def test_the_log_names_each_masked_path_and_no_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    masked(output(), {"add": ["accounts[].note", "nothing.there"]})
    assert (
        'masked in the output: ["a.b"].password; accounts[].note; invoices[].access_token (2 times).' in caplog.text
    )
    assert "nothing at these paths of mask_output: nothing.there" in caplog.text
    assert not any(value in caplog.text for value in ("abc-1", "abc-2", "call Jo", "hunter2"))


def test_the_log_is_bounded_and_names_no_secret_in_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    value = {f"f{number}": {"password": "hunter2"} for number in range(500)}
    masked(
        {
            **value,
            f"https://e.com/?api_key={SECRET}\x1b[31m": {"password": "hunter2"},
            "k" * 5000: {"password": "x1"},
        },
        True,
    )
    assert "and 472 more paths" in caplog.text
    assert len(caplog.text) < 2000
    assert SECRET not in caplog.text
    assert "\x1b" not in caplog.text


class Row(BaseModel):
    id: int
    token: uuid.UUID | None = None
    password: Literal["hunter2"] | None = None
    secret: Annotated[str, Field(min_length=20)] | None = None
    api_key: str | None = Field(None, alias="apiKey")


KEY = "q8Zk3LmP0vX7tRb2Yw9Ndddd"
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "token": {"type": "string", "format": "uuid"},
            "password": {"enum": ["hunter2"]},
            "secret": {"type": "string", "minLength": 20},
        },
    },
}
ROW = {"id": 1, "token": str(uuid.uuid4()), "password": "hunter2", "secret": KEY}


@pytest.mark.parametrize(
    "schema", [list[Row], SCHEMA, {"anyOf": [SCHEMA, {"type": "null"}]}], ids=["type", "schema", "union"]
)
def test_the_contract_holds_after_masking_and_the_log_says_what_stays(
    schema: Any, caplog: pytest.LogCaptureFixture
) -> None:
    contract = contract_of(schema, str)
    value = masked(contract.validated([{**ROW, "note": "x"}, {**ROW, "id": 2}]), True, contract=contract)
    assert contract.fits(value)
    assert [(row["token"], row["password"], row["secret"]) for row in value] == [tuple(ROW.values())[1:]] * 2
    assert "looks like a secret and stays, as output_schema does not allow ***" in caplog.text
    assert "[].password (2 times)" in caplog.text
    assert KEY not in caplog.text


def test_a_field_that_the_contract_lets_be_masked_is_masked_beside_one_that_it_does_not() -> None:
    contract = contract_of(list[Row], str)
    [row] = masked(contract.validated([{**ROW, "apiKey": KEY}]), True, contract=contract)
    assert (row["api_key"], row["password"]) == ("***", "hunter2")


@pytest.mark.parametrize("given", [True, {"add": ["[].password"]}])
def test_what_is_certainly_a_secret_is_never_pushed_for_a_contract(skyvern: FakeSkyvern, given: Any) -> None:
    workflow_id = skyvern.workflow(output=[{"id": 1, "password": "hunter2"}])
    arguments = {"vendor": "x"} if given is not True else {"password": "hunter2"}
    with pytest.raises(
        AirflowFailException, match=r"\[\]\.password: what stands there is masked, and \*\*\* does not fit"
    ):
        run_task(
            lambda: SkyvernRunWorkflowOperator(
                task_id="t",
                workflow_id=workflow_id,
                parameters=arguments,
                check_parameters=False,
                output_schema=list[Row],
                mask_output=given,
                poll_interval=0.01,
                deferrable=False,
            )
        )


def test_a_secret_parameter_of_a_run_that_something_else_has_started_is_masked(skyvern: FakeSkyvern) -> None:
    word = "blue fish and chips"  # which does not look like a secret
    run_id = skyvern.run(output={"seen": f"typed {word}, sent {quote(word)}"})
    skyvern.runs[run_id].parameters["portal_password"] = word
    pushed = run_task(lambda: SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, deferrable=False))
    assert pushed == {"seen": "typed ***, sent ***"}


def test_the_operator_keeps_and_adds(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    workflow_id = skyvern.workflow(output=output())
    pushed = run_task(
        lambda: SkyvernRunWorkflowOperator(
            task_id="t",
            workflow_id=workflow_id,
            mask_output={"keep": ["invoices[].access_token"], "add": ["accounts[].note"]},
            poll_interval=0.01,
            deferrable=False,
        )
    )
    assert (pushed["invoices"], pushed["accounts"][0]["note"]) == (OUTPUT["invoices"], "***")
    assert "accounts[].note" in task_log()


@pytest.mark.parametrize("value", ["plain text", f"Bearer {SECRET}", 12, None, True, [], {}, [[]], {"a": {}}])
def test_any_value_can_be_masked(value: Any) -> None:
    assert OutputMasker().masked(value) == ("Bearer ***" if value == f"Bearer {SECRET}" else value)
