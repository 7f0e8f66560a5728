"""A template without a value starts no run; what None means can be said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
import pytest

from airflow_skyvern.compat import internals
from airflow_skyvern.compat.sdk import DAG, AirflowFailException, BaseOperator
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import FakeTaskInstance, context_of

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

PARAMS = {"month": None, "vendor": "ACME", "none": "None", "row": {"a": 1, "b": None}, "rows": [None, "x"], "n": 0}


def context() -> Any:
    pulled = SimpleNamespace(xcom_pull=lambda *_, **__: None)
    return {"params": PARAMS, "ti": pulled, "run_id": "manual__1"}


def rendered(
    template: Any, name: str = "parameters", *, native: bool = False, folder: Path | None = None, **dag: Any
) -> Any:
    """Return what an argument becomes; a mapping with one entry where it is ``parameters``."""
    searchpath = [str(folder)] if folder else None
    with DAG("d", schedule=None, render_template_as_native_obj=native, template_searchpath=searchpath, **dag):
        given = {"month": template} if name == "parameters" and folder is None else template
        arguments: dict[str, Any] = {"workflow_id": "wpid_1", name: given}
        task = SkyvernRunWorkflowOperator(task_id="t", **arguments)
    task.render_template_fields(context())
    value = getattr(task, name)
    return value["month"] if isinstance(value, dict) and "month" in value else value


ABSENT = [
    "{{ params.month }}",
    "{{ ti.xcom_pull('nothing') }}",
    "from {{ params.month }} on",
    "{{ params.month ~ '-01' }}",
    "{{ ('x' ~ params.month)[:3] }}",
    "{{ '%s-01' % params.month }}",
    "{{ '%s-%s' % (params.vendor, params.month) }}",
    "{{ '%(m)s' % {'m': params.month} }}",
    "{{ '{}-01'.format(params.month) }}",
    "{{ '{m}'.format(m=params.month) }}",
    "{{ '%s' | format(params.month) }}",
    "x{{ params.month | upper }}",
    "x{{ params.month | replace('-', '') }}",
    "x{{ params.month | trim }}",
    "{{ [params.vendor, params.month] | join('-') }}",
    "x{{ params.row }}",
    "x{{ params.rows }}",
    "x{{ none }}",
    "{% if true %}x{{ params.month }}{% endif %}",
    "{% set m = params.month %}x{{ m }}",
    "{% macro m() %}x{{ params.month }}{% endmacro %}{{ m() }}",
    "{{ [params] | map(attribute='month') | join('-') }}",
    "{{ params.row.values() | join('-') }}",
    "{{ params.row.items() | join('-') }}",
    "x{{ params.row.values() }}",
    "x{{ params.rows | unique | join('-') }}",
    "x{{ params.month | pprint }}",
    "x{{ params.month | safe }}",
    "x{{ params.month | urlize }}",
    "{{ '{}-{}'.format(*params.rows) }}",
    "{{ '{a}-{b}'.format(**params.row) }}",
    "{{ '{b}'.format_map(params.row) }}",
    "{{ ('x' ~ params.month) | upper }}",
    "https://example.com/?m={{ ('x' ~ params.month) | urlencode }}",
    "month: {{ ('x' ~ params.month) | tojson }}",
    "{{ ('x' ~ params.month) | pprint }}",
    "months: {{ ['x' ~ params.month] }}",
]


@pytest.mark.slow
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("template", ABSENT)
def test_what_would_be_sent_as_the_text_none_is_refused_with_its_name(template: str, *, native: bool) -> None:
    if native and template in ABSENT[:2]:
        assert rendered(template, native=True) is None
        return
    with pytest.raises(SkyvernConfigError, match=r"^Task 't': parameters\.month: it has no value \(None\)"):
        rendered(template, native=native)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ params.month or '' }}", ""),
        ("{{ params.month | default('2026-11', true) }}", "2026-11"),
        ("{{ params.month | string }}", "None"),
        ("{{ 'x' ~ (params.month | string) }}", "xNone"),
        ("{{ params.row | tojson }}", '{"a": 1, "b": null}'),
        ("{{ {'month': params.month} | tojson }}", '{"month": null}'),
        ("None", "None"),
        ("None of the above", "None of the above"),
        ("\ufdd0 \ufdd1", "\ufdd0 \ufdd1"),
        ("{{ '\ufdd0' | urlencode }}", "%EF%B7%90"),
        ("{{ params.none }}", "None"),
        ("{{ 'None' }}", "None"),
        ("{{ params.none | lower }}", "none"),
        ("{{ params.n }}", "0"),
        ("{% if params.month %}{{ params.month }}{% endif %}", ""),
        ("{{ params.month is none }}", "True"),
        ("{{ '%d %%' % 7 }}", "7 %"),
        ("{{ 7 % 4 }}", "3"),
        ("{{ ['a', 'b'] | join('-') }}", "a-b"),
        ("{{ [{'a': 'x'}] | join('-', attribute='a') }}", "x"),
        ("{{ 'a b' | replace(' ', '-') | upper }}", "A-B"),
        ("{{ '<a>' | e }}", "&lt;a&gt;"),
        ("{{ 'abcdef' | truncate(4, true, '', 0) }}", "abcd"),
        ("{{ '{}-{n}'.format('a', n=2) }}", "a-2"),
        ("{{ '{}-{n}'.format(*['a'], **{'n': 2}) }}", "a-2"),
        ("{{ '{n}'.format_map({'n': 2}) }}", "2"),
        ("{{ params.row | join('-') }}", "a-b"),
        ("{{ 'abc' | join('-') }}", "a-b-c"),
        ("{{ [1, 2] | map('string') | join('-') }}", "1-2"),
        ("{{ params.rows | select | join('-') }}", "x"),
        ("{{ params.rows | map('default', '?', true) | join('-') }}", "?-x"),
    ],
)
def test_what_none_means_can_be_said_and_everything_else_renders_as_before(template: str, value: str) -> None:
    assert rendered(template) == value


def test_native_objects_keep_their_null() -> None:
    assert rendered("{{ params.row }}", native=True) == {"a": 1, "b": None}
    assert rendered("{{ params.rows }}", native=True) == [None, "x"]
    assert rendered({"deep": ["{{ params.month }}"]}, native=True) == {"deep": [None]}
    assert rendered("{{ params.n }}", native=True) == 0


@pytest.mark.parametrize(
    ("name", "given", "path"),
    [
        ("parameters", {"a": [{"b": "{{ params.month }}"}], "c": "{{ params.month }}"}, "parameters.month.a[0].b, "),
        ("run_options", {"run_metadata": {"month": "{{ params.month }}"}}, "run_options.run_metadata.month"),
        ("title", "for {{ params.month }}", "title"),
        ("workflow_id", "{{ params.month }}", "workflow_id"),
        ("files_to", "s3://b/{{ params.month }}", "files_to"),
        ("output_to", "s3://b/{{ params.month }}.json", "output_to"),
        ("output_from", "{{ params.month }}", "output_from"),
        ("upload", {"x": "s3://b/{{ params.month }}"}, "upload.x"),
        ("proxy_location", {"country": "{{ params.month }}"}, "proxy_location.country"),
        ("skyvern_conn_id", "{{ params.month }}", "skyvern_conn_id"),
    ],
)
def test_each_templated_argument_is_named(name: str, given: Any, path: str) -> None:
    with pytest.raises(SkyvernConfigError, match=f"^Task 't': {path}".replace("[", r"\[")):
        rendered(given, name)


def test_a_parameter_in_a_file_of_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "month.json").write_text('{"vendor": "{{ params.vendor }}", "of": {"month": "{{ params.month }}"}}')
    with pytest.raises(SkyvernConfigError, match=r"^Task 't': parameters\.of\.month: it has no value"):
        rendered("month.json", folder=tmp_path)
    (tmp_path / "month.json").write_text('{"month": {{ params.month | tojson }}}')
    assert rendered("month.json", folder=tmp_path) == '{"month": null}'


def test_a_template_of_json_is_named_by_the_parameter() -> None:
    with DAG("d", schedule=None):
        task = SkyvernRunWorkflowOperator(
            task_id="t", workflow_id="w", parameters="{{ {'month': params.month ~ '-01'} | tojson }}"
        )
    with pytest.raises(SkyvernConfigError, match=r"^Task 't': parameters\.month: it has no value"):
        task.render_template_fields(context())


@pytest.mark.parametrize("kind", [SkyvernRunSensor, SkyvernDownloadFilesOperator])
def test_a_place_without_a_value_is_refused_by_all_tasks(kind: type[Any]) -> None:
    task = kind(task_id="t", run_id="wr_1", files_to="/data/{{ params.month }}")
    with pytest.raises(SkyvernConfigError, match=r"^Task 't': files_to: it has no value"):
        task.render_template_fields(context())


@pytest.mark.parametrize("kwargs", [False, True])
def test_a_mapped_task_refuses_it_too(*, kwargs: bool) -> None:
    with DAG("d", schedule=None):
        partial = SkyvernRunWorkflowOperator.partial(task_id="t", workflow_id="w", title="for {{ params.month }}")
        given = [{"month": "{{ params.month }}"}]
        mapped = partial.expand_kwargs([{"parameters": given[0]}]) if kwargs else partial.expand(parameters=given)
    for fields, path in ((("title",), "title"), (("parameters",), r"parameters\.month")):
        task = mapped.unmap({"parameters": given[0]})
        with pytest.raises(SkyvernConfigError, match=f"^Task 't': {path}: it has no value"):
            task._do_render_template_fields(task, fields, context(), mapped.get_template_env(), set())


def test_a_finalize_of_the_dag_decides_itself() -> None:
    kwargs = {"finalize": lambda value: "" if value is None else value}
    assert rendered("x{{ params.month }}", jinja_environment_kwargs=kwargs) == "x"


def test_an_undefined_value_is_what_the_dag_says() -> None:
    with pytest.raises(jinja2.UndefinedError):
        rendered("{{ params.nothing.at_all }}")
    assert rendered("{{ nothing }}", template_undefined=jinja2.Undefined) == ""


@pytest.mark.parametrize("resumed", [False, True])
def test_an_executed_task_fails_without_a_retry_and_starts_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, *, resumed: bool
) -> None:
    """A task that resumes has started its run: what was for the start only must not fail it."""
    ti = FakeTaskInstance()
    ti.next_method = "execute_complete" if resumed else None
    given: Any = {**context_of(ti), "params": PARAMS}
    monkeypatch.setattr("airflow_skyvern.compat.sdk.get_current_context", lambda: given, raising=False)
    assert internals.is_executed(given)

    def task(**arguments: Any) -> SkyvernRunWorkflowOperator:
        with DAG("d", schedule=None):
            return SkyvernRunWorkflowOperator(task_id="t", workflow_id=skyvern.workflow(), **arguments)

    if resumed:
        kept = task(parameters={"month": "{{ params.month }}"})
        kept.render_template_fields(given)
        assert kept.parameters == {"month": "None"}
        with pytest.raises(SkyvernConfigError, match="files_to: it has no value"):
            task(files_to="/data/{{ params.month }}").render_template_fields(given)
    else:
        with pytest.raises(AirflowFailException, match=r"parameters\.month: it has no value"):
            task(parameters={"month": "{{ params.month }}"}).render_template_fields(given)
    assert skyvern.sent("POST", "/v1/run/workflows") == []


def test_the_environment_of_other_tasks_stays_as_it_is() -> None:
    with DAG("d", schedule=None) as dag:
        task = SkyvernRunWorkflowOperator(task_id="t", workflow_id="w", title="x{{ params.vendor }}")
        other = BaseOperator(task_id="other")
    shared = dag.get_template_env()
    task.render_template_fields(context(), shared)
    assert task.title == "xACME"
    assert other.render_template("{{ params.month }}", context(), shared) == "None"
