"""``@task.skyvern``: a function returns the parameters of a run, and Skyvern carries it out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from inspect import iscoroutinefunction
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_skyvern.compat.sdk import DecoratedOperator, context_merge, determine_kwargs, task_decorator_factory
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators.run_prompt import SkyvernRunPromptOperator
from airflow_skyvern.operators.run_workflow import SkyvernRunWorkflowOperator
from airflow_skyvern.task.base import check_untemplated, defaults_of

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.compat.sdk import Context, TaskDecorator
    from airflow_skyvern.models import Run


def skyvern_task(
    python_callable: Callable[..., Any] | None = None,
    *,
    workflow_id: str | None = None,
    workflow_file: str | PurePath | None = None,
    prompt: str | None = None,
    multiple_outputs: bool = False,
    **kwargs: Any,
) -> TaskDecorator:
    """
    Make a task of a function that returns the parameters of a run: ``@task.skyvern``.

    ::

        @task.skyvern(workflow_id="wpid_123", deferrable=True)
        def invoices(vendor: str):
            return {"vendor": vendor, "month": "2026-10"}

    The function is called on the worker before the run is started or resumed, with rendered arguments and with the
    context variables that it names; its return value is not rendered. The task's value is the run's output.
    Everything else works as with the operator: :class:`~airflow_skyvern.operators.SkyvernRunPromptOperator` for
    ``prompt``, :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator` for ``workflow_id`` and
    ``workflow_file``.

    A retry resumes the earlier try's run regardless of what the function returns then: a run belongs to the task and,
    in a mapped task, to the arguments of the function.

    :param python_callable: The function; returns a mapping, or None for no parameters.
    :param workflow_id: The workflow to run. (templated)
    :param workflow_file: The file of the workflow to run instead. (templated)
    :param prompt: The prompt to run instead; ``{name}`` is replaced by the value that the function returns under that
        name. (templated)
    :param multiple_outputs: Whether each entry of the run's output becomes its own XCom. Default: False, regardless
        of the function's return annotation, which describes the parameters.
    :param kwargs: The other arguments of that operator, and of any Airflow task.
    :raises SkyvernConfigError: none or several of ``workflow_id``, ``workflow_file`` and ``prompt``, or
        ``parameters``, are given.
    """
    given = {"workflow_id": workflow_id, "workflow_file": workflow_file, "prompt": prompt}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise SkyvernConfigError("@task.skyvern: give one of workflow_id, workflow_file and prompt.")
    if "parameters" in kwargs:
        raise SkyvernConfigError("@task.skyvern: parameters: the function returns them.")
    decorator: Any = task_decorator_factory(
        python_callable=None,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_SkyvernDecoratedOperator if prompt is None else _SkyvernPromptDecoratedOperator,
        **chosen,
        **kwargs,
    )

    def decorated(function: Callable[..., Any]) -> Any:
        made = decorator(function)
        made.__class__ = _checking(made.__class__)
        return made

    return cast("TaskDecorator", decorated if python_callable is None else decorated(python_callable))


@cache
def _checking(kind: Any) -> Any:
    """Return Airflow's class for decorated functions, extended to check the arguments of a mapped task."""

    class Checking(kind):  # type: ignore[misc]  # a class that Airflow keeps to itself
        def _expand(self, *args: Any, **kwargs: Any) -> Any:
            made = super()._expand(*args, **kwargs)
            defaults = defaults_of(made.operator.dag, made.operator.task_group)
            check_untemplated(self.operator_class, {"default_args": defaults, **self.kwargs})
            return made

    return Checking


class _Decorated(DecoratedOperator, SkyvernRunWorkflowOperator):
    """Shared by both kinds: the function, called once per try, when its parameters are needed."""

    custom_operator_name = "@task.skyvern"
    _called_with: Context | None = None
    _returned: tuple[Any, ...] = ()
    """What the function has returned in this try; empty before it was called."""

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if iscoroutinefunction(python_callable):
            raise SkyvernConfigError(f"@task.skyvern: {python_callable.__name__}: must not be an async function.")
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    @staticmethod
    def xcom_push(context: Any, key: str, value: Any, *_: Any) -> None:
        """Push an XCom; 3.0 calls this method for the outputs, and its own operators have none."""
        context["ti"].xcom_push(key=key, value=value)

    def execute(self, context: Context) -> Any:
        """Start the run, publish it, and wait for its end or defer."""
        self._called_with, self._returned = context, ()
        return super().execute(context)

    def execute_in_turn(self, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Resume when the browser session is free: the function is called again."""
        self._called_with, self._returned = context, ()
        return super().execute_in_turn(context, *args, **kwargs)

    def _parameters_when_parsed(self) -> Any:
        from airflow_skyvern.client.workflow_parameters import LATER

        return LATER

    def _given_parameters(self) -> Any:
        if not self._returned and self._called_with is not None:
            self._returned = (self._call(self._called_with),)
        return self._returned[0]

    def _call(self, context: Context) -> Mapping[str, Any] | None:
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **arguments)
        if returned is None or isinstance(returned, Mapping):
            return returned
        raise SkyvernConfigError(
            f"@task.skyvern: {self.python_callable.__name__}: must return a mapping of parameters or None, not "
            f"{type(returned).__name__}."
        )

    def _request_for_key(self) -> RunRequest:
        """Build it from the function's arguments: its return value may contain a time that differs in each try."""
        from airflow_skyvern.client.run_request import RunRequest

        arguments = {"args": list(self.op_args), "kwargs": dict(self.op_kwargs)}
        return RunRequest(workflow_id=self.custom_operator_name, parameters=_comparable(arguments))


class _SkyvernDecoratedOperator(_Decorated):
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in SkyvernRunWorkflowOperator.template_fields if name != "parameters"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SkyvernRunWorkflowOperator.template_fields_renderers,
        **DecoratedOperator.template_fields_renderers,
    }

    def _parameters_of(self, run: Run) -> Mapping[str, Any] | None:
        """Return the parameters from the run: after a deferral, the function is not called again."""
        return (run.run_request or {}).get("parameters")


class _SkyvernPromptDecoratedOperator(_Decorated, SkyvernRunPromptOperator):
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in SkyvernRunPromptOperator.template_fields if name != "parameters"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SkyvernRunPromptOperator.template_fields_renderers,
        **DecoratedOperator.template_fields_renderers,
    }


def _comparable(value: Any) -> Any:
    """Return a value as JSON, or the name of its type if it has no JSON form: the type is the same in each try."""
    from airflow_skyvern.client.json_values import json_of

    if isinstance(value, dict):
        return {str(name): _comparable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    try:
        return json_of(value, "argument")
    except SkyvernConfigError:
        return type(value).__qualname__
