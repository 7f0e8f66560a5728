from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.client.workflow_parameters import check_parameters, name_refused
from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernNotFoundError, SkyvernRequestError
from airflow_skyvern.models import Workflow
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.runs.parameter_check import KEEP, MOST_KEPT, Definitions, check_before_start
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern
from tests.support.tasks import FakeTaskInstance, context_of

if TYPE_CHECKING:
    from tests.unit.conftest import TaskLog

START = "/v1/run/workflows"
DEFINITION = "/v1/workflows/[^/]+"
log = logging.getLogger(__name__)


def definition(*parameters: dict[str, Any]) -> Workflow:
    made = {"workflow_permanent_id": "wpid_1", "workflow_id": "w_1", "title": "Invoices"}
    return Workflow.model_validate({**made, "workflow_definition": {"parameters": list(parameters)}})


def of_type(key: str, kind: str, default: Any = None) -> dict[str, Any]:
    return {"parameter_type": "workflow", "key": key, "workflow_parameter_type": kind, "default_value": default}


INVOICES = definition(
    of_type("vendor", "string"),
    of_type("pages", "integer", 1),
    of_type("share", "float", 0.5),
    of_type("paid", "boolean", default=False),
    of_type("rows", "json", []),
    of_type("file", "file_url", "https://example.com"),
    of_type("login", "credential_id"),
    of_type("colour", "rainbow", "red"),
    {"parameter_type": "output", "key": "fetch_output"},
    {"parameter_type": "credential", "key": "bank", "credential_id": "cred_1"},
    {"parameter_type": "credential", "key": "shop", "credential_id": "cred_1", "fallback_credential_ids": ["cred_2"]},
)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "parameters.vendor: missing, and has no default (string)"),
        ({"vendor": None}, "parameters.vendor: missing"),
        ({"vendr": "ACME"}, "parameters.vendr: no such parameter. Did you mean vendor?"),
        (
            {"zzz": 1},
            "no such parameter. The workflow has colour, file, login, pages, paid, rows, share, shop, vendor",
        ),
        ({"fetch_output": 1}, "parameters.fetch_output: cannot be set, it is of type output"),
        ({"bank": "cred_2"}, "parameters.bank: cannot be set, it is of type credential"),
        ({"pages": "s3cr3t"}, "parameters.pages: must be a whole number, not this text"),
        ({"pages": 3.7}, "parameters.pages: must be a whole number, not this number"),
        ({"pages": 7.0}, "parameters.pages: must be a whole number, not this number"),
        ({"pages": True}, "parameters.pages: must be a whole number, not true or false"),
        ({"pages": [1]}, "parameters.pages: must be a whole number, not a list"),
        ({"share": "half"}, "parameters.share: must be a number, not this text"),
        ({"paid": "yes"}, "parameters.paid: must be true or false, not this text"),
        ({"rows": "{not json"}, "parameters.rows: must be a mapping, a list or JSON text, not this text"),
        ({"rows": True}, "parameters.rows: must be a mapping, a list or JSON text, not true or false"),
        ({"file": 5}, "parameters.file: must be the address of a file, not this number"),
        ({"login": {"a": 1}}, "parameters.login: must be the name of a credential, or its id cred_…, not a mapping"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError) as caught:
        check_parameters(INVOICES, given)
    assert str(caught.value).startswith("The parameters do not fit workflow wpid_1 (Invoices); nothing was started.")
    assert complaint in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_everything_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(SkyvernConfigError) as caught:
        check_parameters(INVOICES, {"vendr": "ACME", "pages": "many"})
    assert all(f"parameters.{name}: " in str(caught.value) for name in ("vendr", "vendor", "pages"))


def test_what_skyvern_takes_is_let_through() -> None:
    given = {"vendor": 5, "pages": "7", "share": 1, "paid": "TRUE", "rows": {"a": 1}, "file": {"s3uri": "x"}}
    check_parameters(INVOICES, {**given, "login": "", "colour": 7, "shop": "cred_2"})
    check_parameters(INVOICES, {"vendor": "", "pages": None})


def test_skyverns_refusal_of_a_value_names_the_parameter() -> None:
    detail = "Invalid workflow parameter. Expected parameter type: integer. Value: many."
    error = SkyvernRequestError(f"Could not start: {detail} Correct it.", status_code=400, detail=detail)
    named = name_refused(error, {"vendor": "ACME", "pages": "many"})
    assert str(named) == f"Could not start: parameters.pages: {detail} Correct it."
    assert (named.status_code, named.detail) == (400, detail)
    assert name_refused(error, {"vendor": "ACME"}) is error
    other = SkyvernRequestError("no", detail="no")
    assert name_refused(other, {"pages": "many"}) is other


# The request for the definition.


def request_of(workflow_id: str, **parameters: Any) -> RunRequest:
    return RunRequest.of({"workflow_id": workflow_id, "parameters": parameters or None})


def check(fake: FakeSkyvern, request: RunRequest, definitions: Definitions, server: str = "here") -> None:
    with SkyvernClient(Settings(API_KEY), transport=httpx.MockTransport(fake.handle), sleep=lambda _: None) as client:
        check_before_start(client.send, request, server, log, definitions)


@pytest.mark.slow
def test_many_starts_of_one_workflow_take_one_request(fake: FakeSkyvern) -> None:
    workflow, definitions = fake.workflow(parameters={"vendor": "string"}), Definitions()
    for number in range(300):
        check(fake, request_of(workflow, vendor=f"v{number}"), definitions)
    assert len(fake.requests) == 1
    check(fake, request_of(workflow, vendor="x"), definitions, server="another organization")
    assert len(fake.requests) == 2


def test_without_parameters_there_is_nothing_to_check(fake: FakeSkyvern) -> None:
    check(fake, request_of(fake.workflow(parameters={"vendor": "string"})), Definitions())
    assert fake.requests == []


def test_a_definition_is_kept_for_some_minutes(fake: FakeSkyvern) -> None:
    now = 0.0
    workflow, definitions = fake.workflow(parameters={"vendor": "string"}), Definitions(clock=lambda: now)
    check(fake, request_of(workflow, vendor="x"), definitions)
    now = KEEP - 1
    check(fake, request_of(workflow, vendor="x"), definitions)
    assert len(fake.requests) == 1
    now = KEEP
    check(fake, request_of(workflow, vendor="x"), definitions)
    assert len(fake.requests) == 2


def test_only_so_many_definitions_are_kept() -> None:
    definitions = Definitions()
    for number in range(MOST_KEPT + 1):
        definitions.keep(number, INVOICES)
    assert definitions.get(0) is None
    assert definitions.get(1) is INVOICES


def test_nothing_is_refused_by_a_definition_that_was_kept(fake: FakeSkyvern) -> None:
    workflow, definitions = fake.workflow(parameters={"vendor": "string"}), Definitions()
    check(fake, request_of(workflow, vendor="x"), definitions)
    fake.workflows[workflow].parameters = {"vendor": "string", "month": "string"}  # edited in Skyvern meanwhile
    check(fake, request_of(workflow, vendor="x", month="2026-10"), definitions)
    with pytest.raises(SkyvernConfigError, match="Did you mean month"):
        check(fake, request_of(workflow, vendor="x", moth="2026-10"), definitions)


BROKEN = (
    httpx.Response(503, text="<html>"),
    httpx.Response(403, json={"detail": "Could not validate credentials"}),
    httpx.Response(404, json={"detail": "Not Found"}),
    httpx.Response(404, text="<html>no such page</html>"),
    httpx.Response(200, json={"something": "else"}),
    httpx.Response(200, text="<html>"),
    httpx.ReadTimeout("slow"),
    LOST,
)
ROW = {"workflow_permanent_id": "wpid_1", "workflow_id": "w_1", "title": "x"}
NEW_FORMS = tuple(
    httpx.Response(200, json={**ROW, "workflow_definition": form})
    for form in (
        {},
        {"parameters": {"vendor": "string"}},
        {"parameters": ["vendor"]},
        {"parameters": [{"name": "a"}]},
    )
)


@pytest.mark.parametrize("answer", [*BROKEN, *NEW_FORMS], ids=str)
def test_a_definition_that_cannot_be_had_prevents_no_start(
    skyvern: FakeSkyvern, answer: Any, task_log: TaskLog
) -> None:
    skyvern.next("GET", DEFINITION, answer)
    workflow = skyvern.workflow(parameters={"vendor": "string"})
    execute(workflow, {"vendr": "ACME", "vendor": "x"})
    assert len(skyvern.sent("POST", START)) == 1
    assert len(skyvern.sent("GET", DEFINITION)) == 1
    assert "The parameters are not checked before the start" in task_log()


def test_a_workflow_that_is_not_there_is_said_before_the_start(fake: FakeSkyvern) -> None:
    with pytest.raises(SkyvernNotFoundError, match="Workflow not found"):
        check(fake, request_of("wpid_0", vendor="x"), Definitions())


# In the operator.


def execute(workflow: str, parameters: Any, ti: FakeTaskInstance | None = None, **more: Any) -> Any:
    given = {"task_id": "t", "workflow_id": workflow, "poll_interval": 0.01, "timeout": 20}
    operator = SkyvernRunWorkflowOperator(**{**given, **more}, parameters=parameters)
    return operator.execute(context_of(ti or FakeTaskInstance()))


@pytest.mark.parametrize("durable", [True, False])
def test_a_misspelled_name_fails_at_once_and_nothing_is_started(skyvern: FakeSkyvern, *, durable: bool) -> None:
    workflow = skyvern.workflow(parameters={"vendor": "string"}, defaults={"vendor": "ACME"})
    with pytest.raises(AirflowFailException, match=r"parameters.vendr: no such parameter. Did you mean vendor"):
        execute(workflow, {"vendr": "Globex"}, durable=durable)
    assert skyvern.sent("POST", ".*") == []


BLOCKS = [
    {"label": "read", "block_type": "extraction"},
    {"label": "each", "block_type": "for_loop", "children": [{"label": "detail", "block_type": "task"}]},
]


@pytest.mark.parametrize("parameters", [None, {"vendor": "ACME"}])
@pytest.mark.parametrize(
    ("output_from", "advice"),
    [("raed", "Did you mean read"), ("detial", "Did you mean detail"), ("xyz", "It has: read, each, detail")],
)
def test_the_output_of_a_block_that_is_not_there_costs_no_run(
    skyvern: FakeSkyvern, parameters: Any, output_from: str, advice: str
) -> None:
    workflow = skyvern.workflow(blocks=BLOCKS, parameters={"vendor": "string"}, defaults={"vendor": "ACME"})
    with pytest.raises(AirflowFailException, match=f"output_from: workflow {workflow} has no block .*{advice}"):
        execute(workflow, parameters, output_from=output_from)
    assert skyvern.sent("POST", ".*") == []


@pytest.mark.parametrize("output_from", ["read", "read_output", "detail", "extracted_information"])
def test_the_output_of_each_block_may_be_wanted(skyvern: FakeSkyvern, output_from: str) -> None:
    workflow = skyvern.workflow(blocks=BLOCKS, output={output_from: 1})
    assert execute(workflow, None, output_from=output_from) == 1


def test_the_check_can_be_turned_off(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(parameters={"vendor": "string"}, defaults={"vendor": "ACME"})
    execute(workflow, {"vendr": "Globex"}, check_parameters=False)
    assert [seen.method for seen in skyvern.requests if seen.path.startswith("/v1/workflows/wpid")] == []
    assert len(skyvern.runs) == 1


def test_without_the_check_skyverns_refusal_names_the_parameter(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(parameters={"pages": "integer"})
    with pytest.raises(AirflowFailException, match=r"400: parameters\.pages: Invalid .* type: integer\. Value: many"):
        execute(workflow, {"pages": "many"}, check_parameters=False)


def test_a_retry_resumes_its_run_although_the_workflow_has_changed_since(skyvern: FakeSkyvern) -> None:
    """The run is active: whether its parameters still fit is no question any more."""
    workflow, ti = skyvern.workflow(parameters={"vendor": "string"}), FakeTaskInstance()
    ti.max_tries = 1
    execute(workflow, {"vendor": "ACME"}, ti, wait_for_completion=False)
    skyvern.workflows[workflow].parameters = {"seller": "string"}
    before = len(skyvern.sent("GET", DEFINITION))
    ti.try_number = 2
    execute(workflow, {"vendor": "ACME"}, ti, wait_for_completion=False)
    assert len(skyvern.runs) == 1
    assert len(skyvern.sent("GET", DEFINITION)) == before


def test_a_task_that_is_killed_during_the_check_starts_nothing(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(parameters={"vendor": "string"})
    operator = SkyvernRunWorkflowOperator(task_id="t", workflow_id=workflow, parameters={"vendor": "ACME"})
    skyvern.next("GET", DEFINITION, operator.on_kill)
    with pytest.raises(Exception, match="The task was killed"):
        operator.execute(context_of(FakeTaskInstance()))
    assert skyvern.sent("POST", START) == []


def test_parameters_of_python_are_sent_as_json(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(parameters={"vendors": "json"})
    execute(workflow, {"vendors": {"B", "A"}})
    assert json.loads(skyvern.sent("POST", START)[0].content)["parameters"] == {"vendors": ["A", "B"]}
