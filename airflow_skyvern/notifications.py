"""
Details of a task's Skyvern run, for the templates of any notifier.

``{{ macros.skyvern.skyvern_run().failure_reason }}`` works in every template of a callback. With
``user_defined_macros={"skyvern_run": skyvern_run}`` in the DAG it is ``{{ skyvern_run(context).failure_reason }}``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import pass_context

from airflow_skyvern.compat import internals, since_3_0, since_3_1
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Block, Run

T = TypeVar("T")

log = logging.getLogger(__name__)


@pass_context
def skyvern_run(context: Any, _: Any = None) -> NotifiedRun:
    """
    Return the run of the task that a notification is about.

    :param context: The context that Airflow gives to a callback. In a template it may be left out: Jinja passes it.
    """
    return NotifiedRun(context)


class NotifiedRun:
    """
    A run as a notification needs it; what is not known is None, and nothing raises.

    The run is fetched from Skyvern once, when you read a value that Airflow does not have. While Skyvern cannot be
    reached, ``run_id``, ``app_url`` and ``page_url`` are still available. Secrets in texts are masked.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __str__(self) -> str:
        """Say how the run ended, at which block, and why: ``wr_1 failed in block pay: no stock``."""
        where = f" in block {self.failing_block}" if self.failing_block else ""
        reason = f": {self.failure_reason}" if self.failure_reason else ""
        return f"{self.run_id or 'no run'} {self.status or 'unknown'}{where}{reason}"

    @cached_property
    def run_id(self) -> str | None:
        """The id of the run."""
        return self._run_of_error.run_id if self._run_of_error else _text(self._pushed_run_id)

    @cached_property
    def app_url(self) -> str | None:
        """The address of the run in Skyvern."""
        if self._run_of_error and self._run_of_error.app_url:
            return self._run_of_error.app_url
        return _text(self._pushed(xcom.APP_URL))

    @cached_property
    def page_url(self) -> str | None:
        """
        The address of the task's page in Airflow, on 3.1 and newer at the run.

        It begins with ``[api] base_url``, on 2.11 ``[webserver] base_url``. Where that is not set, or is on
        localhost, only readers on Airflow's own machine reach it, and the log says so.
        """
        address = _safely(lambda: since_3_1.task_page(self._ti) or None)
        if address and internals.is_loopback(address):
            log.warning(
                "The link to Airflow in a notification leads to %s, which no other machine reaches. "
                "Set [%s] base_url to the address at which people open Airflow.",
                address,
                since_3_0.base_url_setting()[0],
            )
        return address

    @property
    def status(self) -> str | None:
        """How the run ended, or how it is."""
        return self._run.status if self._run else None

    @property
    def failure_reason(self) -> str | None:
        """Why it failed, in Skyvern's words."""
        return _masked(self._run.failure_reason) if self._run else None

    @property
    def error_codes(self) -> list[str]:
        """The codes of its errors, as its workflow defines them."""
        return self._run.error_codes if self._run else []

    @property
    def failing_block(self) -> str | None:
        """The label of the block at which it failed."""
        return self._block.label if self._block else None

    @cached_property
    def screenshot_url(self) -> str | None:
        """Address in Airflow of the failing block's last screenshot; anyone who may see the run's page may see it."""
        from airflow_skyvern.runs.blocks import last_screenshot

        block = self._block
        shot = last_screenshot(block) if block else None
        return _safely(lambda: since_3_1.picture_address(self._ti, shot) or None) if shot else None

    @property
    def _ti(self) -> Any:
        return self._context.get("ti") or self._context.get("task_instance")

    @cached_property
    def _run_of_error(self) -> Run | None:
        """The run that the task's error carries."""
        error = self._context.get("exception")
        while isinstance(error, BaseException):
            if (run := getattr(error, "run", None)) is not None:
                return run  # type: ignore[no-any-return]  # of our errors only
            error = error.__cause__
        return None

    @cached_property
    def _run(self) -> Run | None:
        if self._run_of_error is not None:
            return self._run_of_error
        run_id = self.run_id
        return _safely(lambda: self._hook.fetch_run(run_id)) if run_id else None

    @cached_property
    def _block(self) -> Block | None:
        from airflow_skyvern.runs.blocks import failing_block

        run = self._run
        if run is None or not run.is_final or run.succeeded:
            return None
        return _safely(lambda: failing_block(self._hook.get_run_timeline(run.run_id)))

    @cached_property
    def _hook(self) -> SkyvernHook:
        from airflow_skyvern.client.retry import RetryPolicy
        from airflow_skyvern.hooks import SkyvernHook

        return SkyvernHook(self._conn_id, retry=RetryPolicy(attempts=1))

    @property
    def _pushed_run_id(self) -> Any:
        """The run that the task has pushed; for a task that runs an agent, the run of its newest tool call."""
        announced = self._pushed(xcom.CONNECTION_AND_RUN_KEY)
        calls = announced.get("calls") if isinstance(announced, dict) else None
        return calls[-1].get("run_id") if calls else self._pushed(xcom.RUN_ID)

    @property
    def _conn_id(self) -> str:
        """The connection that the task has used: in the context, the argument may still be a template."""
        pushed = self._pushed(xcom.CONNECTION_AND_RUN_KEY)
        if isinstance(pushed, dict) and pushed.get("skyvern_conn_id"):
            return str(pushed["skyvern_conn_id"])
        return str(getattr(self._context.get("task"), "skyvern_conn_id", None) or "skyvern_default")

    def _pushed(self, key: str) -> Any:
        ti = self._ti
        if ti is None:
            return None
        return _safely(
            lambda: ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=internals.map_index_for_lookups(ti))
        )


def _safely(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Exception as error:  # noqa: BLE001  whatever it is: a notification without a detail is better than none
        log.warning("A notification lacks a detail of its Skyvern run. %s", error)
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _masked(text: str | None) -> str | None:
    from airflow_skyvern.secret_values import masked_text

    return masked_text(text) if text else None
