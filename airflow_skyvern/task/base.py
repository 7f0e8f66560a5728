"""
The base of our operators: argument checks, and the hook of their connection.

Values that are only known when the task runs are refused when the DAG is parsed, in each argument that nothing
renders. Jinja would leave ``overwrite="{{ params.overwrite }}"`` as it is, a text, and so a true value; an XCom would
never be read. Which arguments these are is read from the signatures, less ``template_fields``.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_skyvern.compat import internals, since_3_1
from airflow_skyvern.compat.sdk import AirflowFailException, BaseOperator, BaseSensorOperator, OperatorPartial
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.task.arguments import complaint_about
from airflow_skyvern.task.rendering import ADVICE, Absent, absent_in, guarded, is_guarded
from airflow_skyvern.task.task_try import TaskTry

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.hooks import SkyvernHook


SHORTEST_SECRET = 5
"""The shortest value that is registered with Airflow's masker, which masks it within words too; as in Airflow 3."""


class ChecksArguments(BaseOperator):
    """
    An operator that checks its arguments: those that are not templated when it is made, the others when rendered.

    What is not templated is also checked when it is mapped. A template without a value is refused. Secrets among the
    rendered values are made known to Airflow, which masks them on its page of rendered templates and in logs.
    """

    fields_of_start: ClassVar[Sequence[str]] = ()
    """Templated arguments that matter only to the start of a run: a task that resumes leaves them as they are."""

    if not TYPE_CHECKING:  # for mypy it stays what Airflow declares: an attribute that can be called

        @classmethod
        def partial(cls, **kwargs: Any) -> CheckedPartial:
            """Set the common arguments of all tasks that ``expand`` creates."""
            partial = super().partial(**kwargs)
            partial.__class__ = CheckedPartial
            return partial

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """
        Render a value, and the values in it.

        :raises SkyvernConfigError: a template has no value; where the task is executed, before it has started
            anything, that is an AirflowFailException: no retry changes it.
        """
        environment = jinja_env or self.get_template_env()
        if is_guarded(environment):
            rendered = super().render_template(content, context, environment, seen_oids)
            return rendered.value if isinstance(rendered, Absent) else rendered
        names = [name for name in self.template_fields if getattr(self, name, None) is content]
        is_executed = internals.is_executed(context)  # and not rendered for a page of Airflow
        resumes = is_executed and TaskTry(context).is_resumed
        refuses = not (resumes and {*names} <= {*self.fields_of_start})
        template = self._template_of(content, seen_oids or ())
        rendered = self.render_template(template, context, guarded(environment, refuses=refuses), seen_oids)
        if absent := absent_in(" and ".join(names) or "a template", rendered):
            message = f"Task {self.task_id!r}: {', '.join(absent)}: {ADVICE}"
            if is_executed and not resumes:
                raise AirflowFailException(message)
            raise SkyvernConfigError(message)
        if is_executed:
            from airflow_skyvern.secret_values import secrets_in

            for secret in {*secrets_in(rendered)}:
                if len(secret) >= SHORTEST_SECRET:
                    since_3_1.mask_secret(secret)
        return rendered

    def _template_of(self, content: Any, _seen_oids: Collection[int]) -> Any:
        """Return the template that an argument stands for."""
        return content


class UsesConnection:
    """
    A task that calls Skyvern: its hook is loaded when it is needed, and not when a DAG is parsed.

    It must come after the operator among the bases of a class: otherwise a class without its own ``__init__`` does
    not get the DAG's ``default_args``.
    """

    skyvern_conn_id: str

    @cached_property
    def hook(self) -> SkyvernHook:
        """The hook of this task's connection."""
        from airflow_skyvern.hooks import SkyvernHook

        return SkyvernHook(self.skyvern_conn_id)


class CheckedPartial(OperatorPartial):
    """The result of ``partial``; Airflow creates the tasks, and so checks their arguments, only on the workers."""

    __slots__ = ()

    def expand(self, **mapped_kwargs: Any) -> Any:
        """Make one task per value; a value of another task is checked when that has returned it."""
        self._check({})
        for name, values in mapped_kwargs.items():
            for value in values if isinstance(values, Sequence) and not isinstance(values, str) else ():
                self._check({name: value})
        return super().expand(**mapped_kwargs)

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any:
        """Make one task per mapping of arguments."""
        self._check({})
        for arguments in kwargs if isinstance(kwargs, Sequence) else ():
            self._check(arguments if isinstance(arguments, Mapping) else {})
        return super().expand_kwargs(kwargs, strict=strict)

    def _check(self, mapped: Mapping[str, Any]) -> None:
        try:
            homes = self.kwargs.get("dag"), self.kwargs.get("task_group")
            check_untemplated(self.operator_class, {"default_args": defaults_of(*homes), **self.kwargs, **mapped})
        except SkyvernConfigError:
            self._expand_called = True  # else Airflow warns that it was not
            raise


def defaults_of(*homes: Any) -> dict[str, Any]:
    """Return what DAG and task group give each of their tasks; Airflow adds most of it on the workers if mapped."""
    return {name: value for home in homes for name, value in (getattr(home, "default_args", None) or {}).items()}


def check_untemplated(operator: type[BaseOperator], given: Mapping[str, Any]) -> None:
    """
    Refuse late values in arguments that are not rendered, and switches that are neither true nor false.

    :param given: The arguments, with those in ``default_args``.
    :raises SkyvernConfigError: names the task, the argument, and what would be right.
    """
    values = {**(given.get("default_args") or {}), **given}
    arguments = _arguments_of(operator)
    untemplated = {
        name: values[name] for name in arguments if name in values and name not in operator.template_fields
    }
    if (complaint := complaint_about(untemplated, arguments)) is not None:
        raise SkyvernConfigError(f"Task {given.get('task_id')!r}: {complaint}")


@cache
def _arguments_of(operator: type[BaseOperator]) -> dict[str, Any]:
    """Return the arguments of our classes, and of Airflow's sensor, that no author's subclass has redefined."""
    arguments: dict[str, Any] = {}
    of_authors: set[str] = set()
    for kind in operator.__mro__[: operator.__mro__.index(BaseOperator)]:
        if "__init__" not in vars(kind):
            continue
        signature = inspect.signature(vars(kind)["__init__"])
        own = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        if kind.__module__.startswith("airflow_skyvern."):
            arguments = {**own, **arguments}
        elif kind is BaseSensorOperator:  # Airflow checks its switches itself, or takes what is true
            arguments = {**dict.fromkeys(own), **arguments}
        else:
            of_authors |= own.keys()
    return {name: kind for name, kind in arguments.items() if name not in of_authors | {"self", "kwargs"}}
