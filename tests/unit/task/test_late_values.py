"""
Each argument of each operator and sensor is templated, or refuses what is only known when the task runs.

The arguments are those of the signatures, so a new one is in these tests without a line here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from airflow_skyvern import operators, sensors
from airflow_skyvern.assets import runs_uri, skyvern_runs
from airflow_skyvern.compat.sdk import DAG, BaseOperator, BaseSensorOperator
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.decorators import skyvern_task
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators import (
    SkyvernCloseBrowserSessionOperator,
    SkyvernCreateBrowserProfileOperator,
    SkyvernDownloadFilesOperator,
    SkyvernOpenBrowserSessionOperator,
    SkyvernRunPromptOperator,
    SkyvernRunWorkflowOperator,
    SkyvernSendTotpCodeOperator,
    SkyvernSyncCredentialsOperator,
)
from airflow_skyvern.sensors import SkyvernRunSensor

TASKS: list[type[BaseOperator]] = [
    kind
    for module in (operators, sensors)
    for kind in (getattr(module, name) for name in dir(module))
    if isinstance(kind, type) and issubclass(kind, BaseOperator) and kind.__name__.startswith("Skyvern")
]

TEMPLATE = "{{ params.late }}"

NEEDED: dict[type, dict[str, Any]] = {
    SkyvernRunWorkflowOperator: {"workflow_id": "wpid_1", "files_to": "/f", "output_to": "/o.json", "upload": {}},
    SkyvernRunPromptOperator: {"prompt": "p", "files_to": "/f", "output_to": "/o.json", "upload": {}},
    SkyvernDownloadFilesOperator: {"run_id": "wr_1", "files_to": "/f"},
    SkyvernRunSensor: {"run_id": "wr_1", "files_to": "/f", "output_to": "/o.json"},
    SkyvernOpenBrowserSessionOperator: {},
    SkyvernCloseBrowserSessionOperator: {"browser_session_id": "pbs_1"},
    SkyvernCreateBrowserProfileOperator: {"name": "n", "browser_session_id": "pbs_1"},
    SkyvernSendTotpCodeOperator: {"totp_identifier": "me@example.com", "code": TEMPLATE},
    SkyvernSyncCredentialsOperator: {"connections": ["portal"]},
}
"""What makes each argument legal beside others."""

DECORATED = [
    (SkyvernRunWorkflowOperator, {"workflow_id": "w", "files_to": "/f", "output_to": "/o.json", "upload": {}}),
    (SkyvernRunPromptOperator, {"prompt": "p", "files_to": "/f", "output_to": "/o.json", "upload": {}}),
]

INSTEAD = {"workflow_file": "workflow_id", "run_id": "browser_session_id"}
"""The argument in whose place another one is given."""


def late_values() -> dict[str, Any]:
    """What is only known when a task runs: as text, as another task's XCom, as the value of a mapped task group."""
    other = BaseOperator(task_id="other")
    return {
        "template": TEMPLATE,
        "block": "{% if params.late %}x{% endif %}",
        "XCom": other.output,
        "XCom of another key": type(other.output)(other, "x"),
        "mapped value": mapped_value(other),
        "parameter of the DAG": other.dag.param("late"),
    }


def mapped_value(other: BaseOperator) -> Any:
    """What the function of a mapped task group gets."""
    home = import_module(f"airflow.{'sdk.definitions._internal' if is_airflow_3() else 'models'}.expandinput")
    return home.MappedArgument(input=home.DictOfListsExpandInput({"late": other.output}), key="late")


def signatures() -> Iterator[tuple[type[BaseOperator], str]]:
    for kind in TASKS:
        homes = [kind, BaseSensorOperator] if issubclass(kind, BaseSensorOperator) else [kind]
        names = {name: None for home in homes for name in inspect.signature(vars(home)["__init__"]).parameters}
        yield from ((kind, name) for name in names if name not in ("self", "kwargs"))


ARGUMENTS = list(signatures())


@pytest.fixture
def late() -> Iterator[dict[str, Any]]:
    with DAG("d", schedule=None, params={"late": "x"}):
        yield late_values()


def tried(make: Callable[..., Any], name: str, value: Any) -> str | None:
    """Return the complaint."""
    try:
        make(name, value)
    except SkyvernConfigError as error:
        return str(error)
    return None


def test_the_walk_finds_the_arguments() -> None:
    names = {(kind.__name__, name) for kind, name in ARGUMENTS}
    assert {kind for kind, _ in names} == {kind.__name__ for kind in NEEDED}
    assert len(names) > 70
    assert ("SkyvernRunSensor", "soft_fail") in names


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), ARGUMENTS, ids=lambda part: getattr(part, "__name__", part))
def test_an_argument_is_templated_or_refuses_a_late_value_by_its_name(
    late: dict[str, Any], kind: type[BaseOperator], name: str
) -> None:
    needed = {key: item for key, item in NEEDED[kind].items() if key != INSTEAD.get(name)}

    def made(name: str, value: Any) -> Any:
        return kind(task_id=f"t{id(value)}", **{**needed, name: value})

    def partial(name: str, value: Any) -> Any:
        given = {**needed, name: value}
        other = "skyvern_conn_id" if name != "skyvern_conn_id" else next(iter(kind.template_fields))
        given.pop(other, None)
        return kind.partial(task_id=f"p{id(value)}", **given).expand(**{other: ["a", "b"]})

    def defaults(name: str, value: Any) -> Any:
        given = {key: item for key, item in needed.items() if key != name}
        return kind(task_id=f"d{id(value)}", default_args={name: value}, **given)

    for what, value in late.items():
        rendered = name in kind.template_fields
        values = [value] if rendered else [value, [value], {"x": [value]}]
        for make in (made, partial, defaults):
            for given in values:
                complaint = tried(make, name, given)
                if rendered:
                    assert complaint is None, (what, make.__name__)
                else:
                    assert complaint is not None, (what, make.__name__, given)
                    assert complaint.startswith("Task "), complaint
                    assert f"{name} is not templated" in complaint, (what, complaint)


@pytest.mark.parametrize(("kind", "name"), ARGUMENTS, ids=lambda part: getattr(part, "__name__", part))
def test_a_text_that_a_mapped_task_gets_is_a_template_only_where_it_is_rendered(
    late: dict[str, Any], kind: type[BaseOperator], name: str
) -> None:
    """``expand`` over texts; over another task's XCom, Airflow makes the task with the value itself."""
    given = {key: value for key, value in NEEDED[kind].items() if key not in (name, INSTEAD.get(name))}

    def expand(name: str, value: Any) -> Any:
        return kind.partial(task_id=f"e{len(str(value))}", **given).expand(**{name: [value]})

    def expand_kwargs(name: str, value: Any) -> Any:
        return kind.partial(task_id=f"k{len(str(value))}", **given).expand_kwargs([{name: value}])

    for make in (expand, expand_kwargs):
        complaint = tried(make, name, TEMPLATE)
        assert (complaint is None) == (name in kind.template_fields), make.__name__
        assert complaint is None or f"{name} is not templated" in complaint
    kind.partial(task_id="xcom", **given).expand(**{name: late["XCom"]})


@pytest.mark.parametrize("value", ["false", "True", 1, None, []])
def test_a_switch_takes_true_and_false_only_and_says_its_name(value: Any) -> None:
    """What a mapped task gets from JSON, or a DAG from YAML: ``"false"`` would be true."""
    switches = [(kind, name) for kind, name in ARGUMENTS if signature_of(kind, name) == "bool"]
    assert len(switches) > 20
    for kind, name in switches:
        with pytest.raises(SkyvernConfigError, match=rf"^Task 't': {name} must be True or False, not"):
            kind(task_id="t", **{**NEEDED[kind], name: value})


def signature_of(kind: type[BaseOperator], name: str) -> Any:
    parameters = inspect.signature(kind).parameters
    return parameters[name].annotation if name in parameters else None


def test_what_a_mapped_task_gets_is_checked_when_it_is_made() -> None:
    """Airflow makes the task of one item with the values of that item."""
    with DAG("d", schedule=None):
        names = BaseOperator(task_id="names")
        mapped = SkyvernRunWorkflowOperator.partial(task_id="t", workflow_id="wpid_1").expand(overwrite=names.output)
    assert vars(mapped.unmap({"overwrite": True, "files_to": "/f"}))["overwrite"] is True
    with pytest.raises(SkyvernConfigError, match="overwrite must be True or False, not 'yes'"):
        mapped.unmap({"overwrite": "yes", "files_to": "/f"})
    with pytest.raises(SkyvernConfigError, match="overwrite is not templated"):
        mapped.unmap({"overwrite": TEMPLATE, "files_to": "/f"})


def test_what_a_dag_gives_all_its_tasks_is_checked_for_mapped_ones_too() -> None:
    with DAG("d", schedule=None, default_args={"overwrite": TEMPLATE, "files_to": "/f"}):
        with pytest.raises(SkyvernConfigError, match="overwrite is not templated"):
            SkyvernRunWorkflowOperator(task_id="t", workflow_id="w")
        with pytest.raises(SkyvernConfigError, match="overwrite is not templated"):
            SkyvernRunWorkflowOperator.partial(task_id="m", workflow_id="w").expand(title=["a"])


def test_a_subclass_renders_what_it_declares_and_keeps_arguments_of_its_own() -> None:
    class Ours(SkyvernRunWorkflowOperator):
        template_fields = (*SkyvernRunWorkflowOperator.template_fields, "skip_on")

        def __init__(self, *, query: str, timeout: str = "1", **kwargs: Any) -> None:
            super().__init__(timeout=float(len(timeout)), **kwargs)
            self.query = query

    with DAG("d", schedule=None):
        other = BaseOperator(task_id="other")
        assert Ours(task_id="t", workflow_id="w", query=TEMPLATE, timeout=TEMPLATE, skip_on=other.output).timeout
        Ours.partial(task_id="m", workflow_id="w", timeout=TEMPLATE).expand(query=[TEMPLATE])
        with pytest.raises(SkyvernConfigError, match="overwrite is not templated"):
            Ours(task_id="u", workflow_id="w", query="q", overwrite=TEMPLATE, files_to="/f")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "needed"), DECORATED, ids=["workflow", "prompt"])
def test_each_argument_of_a_decorated_function_is_templated_or_refuses_a_late_value(
    late: dict[str, Any], kind: type[BaseOperator], needed: dict[str, Any]
) -> None:
    def called(function: Any) -> None:
        function()

    def mapped(function: Any) -> None:
        function.expand(x=[1])

    def mapped_with_kwargs(function: Any) -> None:
        function.partial(y=1).expand_kwargs([{"x": 1}])

    names = {name for of, name in ARGUMENTS if of is kind} - {"parameters", "workflow_id", "workflow_file", "prompt"}
    assert len(names) > 3
    for name in names:
        for what, value in late.items():
            for make in (called, mapped, mapped_with_kwargs):
                given = {**needed, name: value}
                at_once = tried(lambda *_: make(decorated(**given)), name, value)  # noqa: B023  called right here
                later = tried(lambda *_: make(decorated(**needed).override(**{name: value})), name, value)  # noqa: B023
                for complaint in (at_once, later):
                    is_refused = complaint is not None and f"{name} is not templated" in complaint
                    assert is_refused == (name not in kind.template_fields), (name, what, make.__name__, complaint)


def decorated(**given: Any) -> Any:
    def function(x: int = 0, y: int = 0) -> dict[str, int]:
        return {"x": x, "y": y}

    return skyvern_task(function, **given)


def test_what_a_dag_gives_all_its_tasks_is_checked_for_mapped_functions_too() -> None:
    with (
        DAG("d", schedule=None, default_args={"overwrite": TEMPLATE, "files_to": "/f"}),
        pytest.raises(SkyvernConfigError, match="overwrite is not templated"),
    ):
        decorated(workflow_id="w").expand(x=[1])


def test_a_task_that_was_refused_leaves_no_warning_that_it_was_not_mapped(recwarn: pytest.WarningsRecorder) -> None:
    with DAG("d", schedule=None), pytest.raises(SkyvernConfigError):
        SkyvernRunWorkflowOperator.partial(task_id="t", workflow_id="w", overwrite=TEMPLATE).expand(title=["a"])
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("function", "needed"),
    [
        pytest.param("skyvern_runs", {"workflow_id": "wpid_1", "watch": True}, id="skyvern_runs"),
        pytest.param("SkyvernWorkflowRunsTrigger", {"workflow_id": "wpid_1"}, id="SkyvernWorkflowRunsTrigger"),
        pytest.param("runs_uri", {"workflow_id": "wpid_1"}, id="runs_uri"),
        pytest.param("skyvern_retry_policy", {}, id="skyvern_retry_policy"),
    ],
)
def test_what_is_made_when_the_dag_is_parsed_refuses_late_values_by_name(
    late: dict[str, Any], function: str, needed: dict[str, Any]
) -> None:
    make = maker(function)
    parameters = inspect.signature(make).parameters.values()
    names = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]  # which a newer version has stored
    for name in names:
        for what, value in late.items():
            complaint = tried(lambda name, value: make(**{**needed, name: value}), name, value)
            assert complaint is not None, (name, what)
            assert complaint.startswith(name), (what, complaint)


def maker(function: str) -> Callable[..., Any]:
    if function == "runs_uri":
        return runs_uri
    if not is_airflow_3():
        pytest.skip("needs Airflow 3")
    if function == "skyvern_runs":
        return skyvern_runs
    if function == "SkyvernWorkflowRunsTrigger":
        from airflow_skyvern.triggers import SkyvernWorkflowRunsTrigger

        return SkyvernWorkflowRunsTrigger
    retries = pytest.importorskip("airflow_skyvern.retries", exc_type=ImportError)
    policy: Callable[..., Any] = retries.skyvern_retry_policy
    return policy
