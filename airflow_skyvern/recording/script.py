"""From a recorded run to the text of a file for pytest. Reads and writes nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.runs.prompt_workflow import PROMPT, SCHEMA, URL, VALUES
from airflow_skyvern.schedules.dag_file import literal, no_template

if TYPE_CHECKING:
    from airflow_skyvern.recording.recorded_run import RecordedRun

TEXT = '''"""
Skyvern run {run_id}, which {ended}, as a test.

Written by `airflow-skyvern record`. The conftest.py at the root of the project needs the line
pytest_plugins = ["airflow_skyvern.testing"]. Secrets are masked; data is as it was, so read it before you commit it.
"""

import datetime
{replace}
{dag}

from airflow_skyvern.operators import {operator}
{kit}
{constants}

# Put your own DAG in the place of this one.
with DAG("recorded", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
    {operator}(
        task_id="run",
{arguments}
    )


def test_the_dag_when_the_run_{ends}(skyvern):
{scripted}
    run = dag.test()
    assert run.state == "{state}"
    (started,) = skyvern.started()
    assert {started_with}
    assert started.status == "{status}"
'''

WORDS = {
    "completed": ("completed", "completes"),
    "failed": ("failed", "fails"),
    "terminated": ("was terminated", "is_terminated"),
    "timed_out": ("timed out", "times_out"),
    "canceled": ("was canceled", "is_canceled"),
    "paused": ("waited for a person", "waits_for_a_person"),
}
"""What a run did, in the description and in the name of the test."""

WITH_OUTPUT = frozenset({"completed", "failed", "terminated"})


def script_of(run: RecordedRun) -> str:
    """Write the test."""
    ended, ends = WORDS[run.status]
    lines = list(_scripted(run))
    used = re.findall(r"\b(completed|failed|terminated|timed_out|canceled|paused|retried)\(", "\n".join(lines))
    return TEXT.format(
        run_id=re.sub(r"[^\w-]", "_", run.run_id),
        ended=ended,
        ends=ends,
        replace="from dataclasses import replace\n" if any("replace(" in line for line in lines) else "",
        dag=since_3_0.dag_import(),
        operator="SkyvernRunPromptOperator" if run.is_prompt else "SkyvernRunWorkflowOperator",
        kit=f"from airflow_skyvern.testing import {', '.join(sorted(set(used)))}\n" if used else "",
        constants="\n".join(f"{name} = {text}" for name, text in _constants(run).items()),
        arguments="\n".join(f"        {line}," for line in [*_arguments(run), *_deferral(run)]),
        scripted="\n".join(f"    {line}" for line in lines),
        state="success" if run.status == "completed" else "failed",
        started_with='started.parameters["prompt"] == PROMPT'
        if run.is_prompt
        else "started.parameters == PARAMETERS",
        status="canceled" if run.status == "paused" else run.status,
    )


def _constants(run: RecordedRun) -> dict[str, str]:
    """Return the values that the script names, as Python."""
    own: dict[str, Any]
    if run.is_prompt:
        own = {"PROMPT": str(run.parameters[PROMPT]), "URL": str(run.parameters.get(URL) or "") or None}
    else:
        own = {"WORKFLOW": run.workflow_id, "PARAMETERS": dict(run.parameters)}
    known = {
        **own,
        "OUTPUT": _output(run),
        "REASON": run.reason if run.status not in ("completed", "canceled", "paused") else None,
        "ERRORS": [dict(error) for error in run.errors] if _has_errors(run) else None,
        "FIRST_REASON": run.first_reason,
    }
    written = {name: literal(_writable(value)) for name, value in known.items() if value is not None}
    return written | ({"FILES": _files(run)} if run.files else {})


def _output(run: RecordedRun) -> Any:
    if run.status not in WITH_OUTPUT:
        return None
    return run.data if run.is_prompt else run.output


def _has_errors(run: RecordedRun) -> bool:
    """Return whether its errors are more than the functions of the kit take."""
    taken = 1 if run.status in ("failed", "terminated") else 0
    return run.status not in ("completed", "canceled", "paused") and len(run.errors) > taken


def _arguments(run: RecordedRun) -> Iterator[str]:
    """Yield the arguments of the task; Jinja must leave the recorded texts as they are."""
    if not run.is_prompt:
        given = dict(run.parameters)
        safe = _without_templates(given)
        yield "workflow_id=WORKFLOW"
        yield f"parameters={'PARAMETERS' if safe == given else literal(_writable(safe), 8)}"
        return
    for name in (PROMPT, URL):
        if text := str(run.parameters.get(name) or ""):
            yield f"{name}={name.upper() if no_template(text) == text else literal(no_template(text))}"
    if values := run.parameters.get(VALUES):
        yield f"parameters={literal(_writable(_without_templates(values)), 8)}"
    if not isinstance(run.data, str | None):
        yield f"output_schema={literal(_schema(run), 8)}"


def _deferral(run: RecordedRun) -> list[str]:
    """Defer, unless a text looks like a template: ``dag.test()`` of 2.11 renders again what it has rendered."""
    return ["deferrable=True"] if _without_templates(dict(run.parameters)) == run.parameters else []


def _schema(run: RecordedRun) -> dict[str, Any]:
    """Return the JSON Schema that a prompt was sent with; one that takes anything, if it cannot be read."""
    try:
        schema = json.loads(run.parameters[SCHEMA])
    except (TypeError, ValueError):
        return {}
    return schema if isinstance(schema, dict) else {}


def _scripted(run: RecordedRun) -> Iterator[str]:
    """Yield the lines that let the run of the test end so."""
    call = "skyvern.prompts(" if run.is_prompt else "skyvern.workflow(WORKFLOW, "
    output, files = _output(run) is not None, bool(run.files)
    plain = run.status == "completed" and not (run.asked_person or run.first_reason)
    if plain:
        given = [*["output=OUTPUT"] * output, *["files=FILES"] * files]
        yield f"{call}{', '.join(given)})".replace(", )", ")")
        return
    yield f"ending = {_ending(run, output=output)}"
    left = [*["files=FILES"] * (files and run.status != "completed"), *["errors=ERRORS"] * _has_errors(run)]
    if left and run.status != "paused":
        yield f"ending = replace(ending, {', '.join(left)})"
    if run.asked_person and run.status != "paused":
        yield "ending = paused(ending)"
    if run.first_reason:
        yield "ending = retried(ending, reason=FIRST_REASON)"
    yield f"{call}ending)"


def _ending(run: RecordedRun, *, output: bool) -> str:
    """Return the call of the kit's function for a status."""
    reason = ["REASON"] if run.reason and run.status not in ("completed", "canceled", "paused") else []
    if run.status == "completed":
        given = [*["output=OUTPUT"] * output, *["files=FILES"] * bool(run.files)]
    elif run.status in ("failed", "terminated"):
        codes = [f"error_code={literal(run.errors[0]['error_code'])}"] if len(run.errors) == 1 else []
        given = [*reason, *codes, *["output=OUTPUT"] * output]
    else:
        given = reason
    return f"{run.status}({', '.join(given)})"


def _files(run: RecordedRun) -> str:
    lines = [
        f"    {literal(name)}: {_bytes(content)},{'  # not what the run had' if name in run.placeholders else ''}\n"
        for name, content in run.files.items()
    ]
    return f"{{\n{''.join(lines)}}}"


def _bytes(content: bytes) -> str:
    text = repr(content)
    if text.startswith("b'") and '"' not in text:
        return 'b"' + text[2:-1] + '"'
    return text


def _without_templates(value: Any) -> Any:
    if isinstance(value, str):
        return no_template(value)
    if isinstance(value, Mapping):
        return {name: _without_templates(item) for name, item in value.items()}
    return [_without_templates(item) for item in value] if isinstance(value, list) else value


class _NoNumber(float):
    """A float that Python has no literal for."""

    def __repr__(self) -> str:
        return f'float("{float(self)}")'


def _writable(value: Any) -> Any:
    """Return a value whose representation is valid Python, also for values that JSON cannot express."""
    if isinstance(value, float) and not math.isfinite(value):
        return _NoNumber(value)
    if isinstance(value, Mapping):
        return {name: _writable(item) for name, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list) else value
