from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import (
    AirflowFailException,
    BaseOperator,
)
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from tests.support.run_workflow_tasks import START, execute, make
from tests.support.tasks import FakeTaskInstance, context_of

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


class OuterTask(BaseOperator):
    """Something that executes an operator of ours, as a function decorated with ``@task`` may."""


def inside(outer: BaseOperator) -> Any:
    context = context_of(FakeTaskInstance())
    context["ti"].task = outer
    return context


@pytest.mark.parametrize("durable", [True, False])
def test_an_operator_inside_another_task_refuses_before_anything_is_started(
    skyvern: FakeSkyvern, *, durable: bool
) -> None:
    operator = make(skyvern.workflow(), durable=durable)
    with pytest.raises(AirflowFailException, match=r"'t' was executed inside task 'outer', so nothing.*\.expand\(\)"):
        operator.execute(inside(OuterTask(task_id="outer")))
    assert skyvern.requests == []


def test_an_operator_inside_another_one_refuses_also_under_its_name(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow()
    with pytest.raises(AirflowFailException, match="inside task 't'"):
        make(workflow).execute(inside(make(workflow)))
    assert skyvern.requests == []


def test_a_context_by_hand_names_its_task_too(skyvern: FakeSkyvern) -> None:
    context: Any = {**context_of(FakeTaskInstance()), "task": OuterTask(task_id="outer")}
    with pytest.raises(AirflowFailException, match="inside task 'outer'"):
        make(skyvern.workflow()).execute(context)


@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2.11 itself executes no operator in a thread")
def test_a_subclass_may_execute_what_it_extends_also_in_a_thread(skyvern: FakeSkyvern) -> None:
    class Extended(SkyvernRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            with ThreadPoolExecutor(1) as threads:
                return {"extended": threads.submit(super().execute, context).result()}

    operator = Extended(task_id="t", workflow_id=skyvern.workflow(), poll_interval=0.01)
    context = inside(operator)
    assert "extended" in operator.execute(context)


def test_a_subclass_that_executes_twice_in_one_try_starts_one_run(skyvern: FakeSkyvern) -> None:
    class Looping(SkyvernRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            return [self._with(vendor, context) for vendor in "ABC"]

        def _with(self, vendor: str, context: Any) -> Any:
            self.parameters = {"vendor": vendor}
            return super().execute(context)

    workflow = skyvern.workflow(parameters={"vendor": "string"})
    operator = Looping(task_id="t", workflow_id=workflow, poll_interval=0.01)
    with pytest.raises(AirflowFailException, match="already started a run in this try, so nothing was started"):
        execute(operator)
    assert [start.json["parameters"] for start in skyvern.sent("POST", START)] == [{"vendor": "A"}]
