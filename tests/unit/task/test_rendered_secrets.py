"""What Airflow shows and logs of a task's rendered arguments hides the secrets that the output hides."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import airflow
import pytest

from airflow_skyvern.compat import since_3_0, since_3_1
from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.results.masking import OutputMasker
from tests.support.tasks import FakeTaskInstance, context_of

SECRET = "zebra-passphrase-7"


def shown(task: Any) -> str:
    """What Airflow stores of the rendered arguments, by its own function, in the process of the task."""
    if since_3_0.is_airflow_3():
        runner = import_module("airflow.sdk.execution_time.task_runner")
        if hasattr(runner, "_serialize_rendered_fields"):
            return json.dumps(runner._serialize_rendered_fields(task))
    redact: Any = since_3_1.redactor()
    return json.dumps({name: redact(getattr(task, name), name) for name in task.template_fields}, default=str)


def rendered(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Any:
    with DAG("d", schedule=None):
        task = SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", **arguments)
    context = {**context_of(FakeTaskInstance()), "params": {"s": SECRET}}
    monkeypatch.setattr("airflow_skyvern.compat.sdk.get_current_context", lambda: context, raising=False)
    task.render_template_fields(context)  # type: ignore[arg-type]  # what templates read
    return task


@pytest.mark.skipif(airflow.__version__.startswith("3.0."), reason="3.0 stores rendered arguments unmasked")
@pytest.mark.parametrize(
    "arguments",
    [
        {"run_options": {"extra_http_headers": {"Cookie": "sid={{ params.s }}"}}},
        {"run_options": {"extra_http_headers": {"X-Auth": "{{ params.s }}"}}},
        {"run_options": {"cdp_connect_headers": {"X-Api-Key": "{{ params.s }}"}}},
        {"run_options": {"totp_url": "https://otp.example.com/now?key={{ params.s }}"}},
        {"run_options": '{"extra_http_headers": {"Cookie": "sid={{ params.s }}"}}'},
        {"parameters": {"passcode": "{{ params.s }}"}},
        {"parameters": {"login": {"otp_seed": "{{ params.s }}"}}},
        {"parameters": {"headers": [{"name": "Authorization", "value": "{{ params.s }}"}]}},
        {"parameters": {"page": "https://me:{{ params.s }}@example.com/"}},
        {"parameters": "{{ {'otp_seed': params.s} | tojson }}"},
        {"webhook_url": "https://example.com/?token={{ params.s }}"},
        {"title": "Authorization: Bearer {{ params.s }}"},
    ],
)
def test_a_secret_among_the_arguments_is_hidden_and_sent(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    task = rendered(monkeypatch, **arguments)
    assert SECRET not in shown(task)
    assert SECRET in str([getattr(task, name) for name in task.template_fields])


def test_what_the_request_knows_as_a_secret_is_masked_in_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(monkeypatch, parameters={"passcode": "{{ params.s }}"})
    assert OutputMasker().masked({"note": f"typed {SECRET}"}) == {"note": "typed ***"}


def test_what_is_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"vendor": "ACME", "author": "Jo Miller", "credential": "cred_12345", "passcode": "1234"}
    assert json.loads(shown(rendered(monkeypatch, parameters=given)))["parameters"] == given


def test_nothing_is_made_known_by_a_page_of_airflow_that_renders_a_template() -> None:
    with DAG("d", schedule=None):
        task = SkyvernRunWorkflowOperator(task_id="t", workflow_id="w", parameters={"passcode": "of-a-page-1"})
    task.render_template_fields({})
    assert since_3_1.redactor()("of-a-page-1") == "of-a-page-1"
