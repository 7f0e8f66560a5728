"""What notifications say of a run: by the real notifiers' templates, and when Skyvern or Airflow know little."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from jinja2 import Environment

from airflow_skyvern import plugin
from airflow_skyvern.compat import since_3_0, since_3_1
from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.exceptions import SkyvernRunFailed
from airflow_skyvern.notifications import skyvern_run
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.testing.fake.records import Media
from dev.peer import Peer
from tests.support.tasks import FakeTaskInstance, context_of, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

BLOCKS = [
    {"label": "log_in", "block_type": "login"},
    {"label": "pay", "block_type": "navigation", "actions": [{"action_type": "click", "screenshot": 0}]},
]
PICTURES = [Media("screenshot_action", b"\x89PNG", label="pay")]


class Failed:
    """A task that has failed, and the context of its callback."""

    def __init__(self, skyvern: FakeSkyvern, **more: Any) -> None:
        self.ti = FakeTaskInstance("pay")
        workflow = skyvern.workflow(
            plan=("running", "failed"), blocks=BLOCKS, media=PICTURES, failure_reason="no stock", **more
        )
        operator = SkyvernRunWorkflowOperator(
            task_id="pay", workflow_id=workflow, poll_interval=0.01, deferrable=False
        )
        with pytest.raises(SkyvernRunFailed) as raised:
            run_task(lambda: operator, self.ti)
        self.error = raised.value
        self.context: dict[str, Any] = {**context_of(self.ti), "task": operator, "exception": self.error, "dag": None}
        [self.run_id] = skyvern.runs


def test_a_failed_tasks_own_message_names_the_run_the_block_the_reason_and_the_link(skyvern: FakeSkyvern) -> None:
    failed = Failed(skyvern)
    assert str(failed.error) == (
        f"Skyvern run {failed.run_id} ended as failed in block pay: no stock. "
        f"See http://localhost:8080/runs/{failed.run_id}"
    )


def test_a_callback_gets_everything_about_the_run(skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch) -> None:
    section = "API" if since_3_0.is_airflow_3() else "WEBSERVER"
    monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", "https://airflow.example.com/x/")
    failed = Failed(skyvern)
    run = skyvern_run(failed.context)
    assert (run.run_id, run.status, run.failure_reason, run.failing_block) == (
        failed.run_id,
        "failed",
        "no stock",
        "pay",
    )
    assert run.app_url == f"http://localhost:8080/runs/{failed.run_id}"
    assert str(run) == f"{failed.run_id} failed in block pay: no stock"
    if since_3_1.shows_external_views():
        assert run.page_url == "https://airflow.example.com/x/dags/d/runs/manual__1/tasks/pay/plugin/skyvern"
        assert run.screenshot_url == (
            f"https://airflow.example.com/x/skyvern/ti/d/manual__1/pay/-1/tries/1/pictures/a_{failed.run_id[3:]}0"
        )


def test_the_run_of_the_error_is_not_fetched_again(skyvern: FakeSkyvern) -> None:
    failed = Failed(skyvern)
    before = len(skyvern.requests)
    run = skyvern_run(failed.context)
    assert [run.status, run.failing_block, run.failing_block, run.failure_reason] == [
        "failed",
        "pay",
        "pay",
        "no stock",
    ]
    assert len(skyvern.requests) == before + 1


def test_without_the_error_the_run_is_the_one_in_xcom(skyvern: FakeSkyvern) -> None:
    failed = Failed(skyvern)
    failed.context["exception"] = None
    run = skyvern_run(failed.context)
    assert (run.run_id, run.status, run.failing_block) == (failed.run_id, "failed", "pay")


def test_a_skyvern_that_is_away_leaves_what_airflow_knows(skyvern: FakeSkyvern) -> None:
    failed = Failed(skyvern)
    failed.context["exception"] = None
    skyvern.next("GET", ".*", *[httpx.Response(503, json={"detail": "away"})] * 4)
    run = skyvern_run(failed.context)
    assert (run.run_id, run.app_url) == (failed.run_id, f"http://localhost:8080/runs/{failed.run_id}")
    assert (run.status, run.failure_reason, run.failing_block, run.screenshot_url) == (None, None, None, None)
    assert str(run) == f"{failed.run_id} unknown"
    skyvern._scripts.clear()


@pytest.mark.parametrize("context", [{}, {"ti": None}, {"exception": ValueError("no run")}])
def test_a_context_without_a_run_raises_nothing(context: dict[str, Any]) -> None:
    run = skyvern_run(context)
    assert (run.run_id, run.status, run.page_url, run.error_codes) == (None, None, None, [])
    assert str(run) == "no run unknown"


def test_a_task_instance_that_cannot_be_asked_raises_nothing(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance()
    ti.xcom_pull = None  # type: ignore[assignment,method-assign]  # as a callback's in the DAG processor
    assert skyvern_run({"ti": ti}).run_id is None


def test_secrets_in_a_reason_are_masked(skyvern: FakeSkyvern) -> None:
    failed = Failed(skyvern)
    assert failed.error.run is not None
    reason = "GET https://shop.example/?token=s3cret-value failed, Authorization: Bearer abc.def"
    run = failed.error.run.model_copy(update={"failure_reason": reason})
    failed.context["exception"] = SkyvernRunFailed("x", run)
    assert "s3cret" not in str(skyvern_run(failed.context))


@pytest.mark.parametrize("template", ["{{ skyvern_run(context).run_id }}", "{{ skyvern_run().run_id }}"])
def test_templates_may_name_the_context_or_leave_it_out(skyvern: FakeSkyvern, template: str) -> None:
    failed = Failed(skyvern)
    environment = Environment(autoescape=False)
    environment.globals["skyvern_run"] = skyvern_run
    assert environment.from_string(template).render(failed.context) == failed.run_id


def test_the_plugin_brings_the_function_to_every_template() -> None:
    assert skyvern_run in plugin.SkyvernPlugin.macros
    assert (plugin.SkyvernPlugin.name, skyvern_run.__name__) == ("skyvern", "skyvern_run")


def real_macros() -> Any:
    """What a task's context has as ``macros``, once Airflow has loaded its plugins."""
    if since_3_0.is_airflow_3():
        try:
            from airflow.sdk.plugins_manager import integrate_macros_plugins
        except ImportError:
            from airflow.plugins_manager import integrate_macros_plugins
        integrate_macros_plugins()
        from airflow.sdk.execution_time.context import MacrosAccessor

        return MacrosAccessor()
    from airflow import macros
    from airflow.plugins_manager import integrate_macros_plugins as integrate

    integrate()
    return macros


def test_airflow_finds_the_macro_of_the_installed_plugin() -> None:
    assert real_macros().skyvern.skyvern_run is skyvern_run


OF_DAG = {"skyvern_run": skyvern_run}
FORMS: dict[str, dict[str, Any] | None] = {
    "macros.skyvern.skyvern_run()": None,
    "macros.skyvern.skyvern_run(context)": None,
    "skyvern_run()": OF_DAG,
    "skyvern_run(context)": OF_DAG,
}
"""How a template names the run, and the ``user_defined_macros`` that the DAG needs for it."""


def context_in_a_dag(failed: Failed, form: str) -> dict[str, Any]:
    """The context of the failed task's callback as Airflow has it: with its DAG and its macros."""
    return {
        **failed.context,
        "macros": real_macros(),
        "dag": DAG("d", schedule=None, user_defined_macros=FORMS[form]),
    }


def text_of(form: str) -> str:
    return f"{{{{ {form}.run_id }}}} in {{{{ {form}.failing_block }}}}"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    server = Peer(tmp_path).start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_slack_notification_names_run_and_block(
    skyvern: FakeSkyvern, peer: Peer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from airflow.providers.slack.notifications.slack import SlackNotifier

    monkeypatch.setenv("AIRFLOW_CONN_SLACK", json.dumps({"conn_type": "slack", "password": "xoxb-made-up"}))
    failed = Failed(skyvern)
    notifier = SlackNotifier(slack_conn_id="slack", text=text_of(form), channel="#ops", base_url=f"{peer.url}/")
    with contextlib.suppress(Exception):  # the peer is no Slack, and says so
        notifier(context_in_a_dag(failed, form))
    [request] = [seen for seen in peer.requests if seen["path"] == "/chat.postMessage"]
    assert f"{failed.run_id} in pay" in request["body"].replace("+", " ")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_mail_names_run_and_block(
    skyvern: FakeSkyvern, peer: Peer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": peer.smtp_port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(connection))
    failed = Failed(skyvern)
    text = text_of(form)
    notifier = SmtpNotifier(
        to="ops@example.com", from_email="airflow@example.com", subject=text, html_content=text, smtp_conn_id="mail"
    )
    notifier(context_in_a_dag(failed, form))
    [mail] = peer.mails
    parsed = email.message_from_string(mail, policy=email.policy.default)
    body = parsed.get_body(("html",))
    assert body is not None
    assert [parsed["subject"], body.get_content().strip()] == [f"{failed.run_id} in pay"] * 2


@pytest.mark.parametrize("base_url", ["", "http://localhost:8080", "http://127.0.0.1:9000/x/"])
def test_a_link_on_loopback_is_there_and_the_log_says_who_reaches_it(
    base_url: str, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    run = skyvern_run(Failed(skyvern).context)
    if since_3_0.is_airflow_3():
        wanted = (base_url or "http://localhost:8080").rstrip("/")
        assert (run.page_url or "").startswith(f"{wanted}/dags/d/runs/manual__1/tasks/pay")
        [warning] = [record.message for record in caplog.records if "no other machine" in record.message]
        assert warning.endswith("Set [api] base_url to the address at which people open Airflow.")


def test_a_link_to_a_public_address_warns_of_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(
        f"AIRFLOW__{'API' if since_3_0.is_airflow_3() else 'WEBSERVER'}__BASE_URL", "https://airflow.example.com"
    )
    failed = Failed(skyvern)
    if not since_3_0.is_airflow_3():
        failed.context["ti"].log_url = "https://airflow.example.com/log"  # what Airflow 2 itself links to
    assert skyvern_run(failed.context).page_url
    assert "no other machine" not in caplog.text
