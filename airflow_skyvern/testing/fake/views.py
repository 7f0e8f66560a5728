"""What the server says about workflows and runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_skyvern.testing.fake.records import FINAL, ORGANIZATION, stamp
from airflow_skyvern.testing.fake.run_details import downloaded_files, pictures

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.records import Run, Workflow


def view(run: Run) -> dict[str, Any]:
    state, made = run.state, run.workflow
    ended, looked = state["status"] in FINAL, run.step >= 0
    output = None
    if ended and state["status"] not in ("timed_out", "canceled"):
        output = made.output(run.parameters) if callable(made.output) else made.output
    files = downloaded_files(run)
    badly = ended and state["status"] not in ("completed", "canceled")
    return {
        "run_id": run.run_id,
        "output": output,
        "downloaded_files": files if looked else None,
        "recording_archived": False,
        **pictures(run),
        "failure_reason": run.failure_reason if badly else None,
        **times(run),
        "app_url": f"http://localhost:8080/runs/{run.run_id}",
        "browser_session_id": run.request.get("browser_session_id"),
        "browser_profile_id": run.request.get("browser_profile_id"),
        "max_screenshot_scrolls": None,
        "script_run": None,
        "errors": (list(made.errors) if badly else []) if looked else None,
        "step_count": 0 if looked else None,
        "run_type": "workflow_run",
        "attempts": [attempt(run)] if looked else [],
        "run_with": "agent",
        "ai_fallback": None,
        "script_id": None,
        "browser_seed_source": "fresh",
        "browser_settings_receipt": None,
        "run_request": {"workflow_id": made.workflow_id, "parameters": run.parameters, "title": made.title},
        **state,
    }


def task_view(run: Run) -> dict[str, Any]:
    """Return a run of a prompt without a workflow."""
    given = {"engine": "skyvern-1.0", "url": None, "data_extraction_schema": None, "max_steps": None, **run.request}
    own = {"run_type": "task_v1", "run_request": given, "app_url": f"http://localhost:8080/tasks/{run.run_id}"}
    return {**view(run), **own, "attempts": []}


def times(run: Run) -> dict[str, str | None]:
    state, looked = run.state, run.step >= 0
    finished = run.created_at + timedelta(seconds=7) if state["status"] in FINAL else None
    return {
        "created_at": stamp(run.created_at),
        "modified_at": stamp(run.created_at),
        "queued_at": stamp(run.created_at) if looked else None,
        "started_at": stamp(run.created_at) if looked and state["status"] != "queued" else None,
        "finished_at": stamp(finished),
    }


def attempt(run: Run) -> dict[str, Any]:
    state, when = run.state, times(run)
    return {
        "attempt_number": state["attempt"],
        "status": state["status"],
        "failure_reason": run.failure_reason if state["status"] in ("failed", "terminated") else None,
        "error_codes": [],
        "started_at": when["started_at"],
        "finished_at": when["finished_at"],
        "retry_decision": "retry" if state["retry_pending"] else None,
        "decision_reason": None,
        "next_attempt_at": state["next_attempt_at"],
        "webhook_sent_at": None,
    }


def row(run: Run) -> dict[str, Any]:
    when = times(run)
    return {
        "task_run_id": f"tr_{run.run_id[3:]}",
        "run_id": run.run_id,
        "task_run_type": "task_v1" if run.is_task else "workflow_run",
        "title": run.workflow.title,
        "started_at": when["started_at"],
        "finished_at": when["finished_at"],
        "created_at": when["created_at"],
        "workflow_permanent_id": None if run.is_task else run.workflow.workflow_id,
        "workflow_deleted": run.workflow.deleted,
        "script_run": False,
        "trigger_type": run.trigger_type,
        "created_by": None,
        **run.state,
    }


def workflow_row(run: Run) -> dict[str, Any]:
    badly = run.state["status"] in ("failed", "terminated", "timed_out")
    return {
        "workflow_run_id": run.run_id,
        "workflow_id": f"w_{run.workflow.workflow_id[5:]}",
        "workflow_permanent_id": run.workflow.workflow_id,
        "organization_id": ORGANIZATION,
        "attempts": [],
        "failure_reason": run.failure_reason if badly else None,
        "workflow_title": run.workflow.title,
        "trigger_type": run.trigger_type,
        "workflow_schedule_id": run.schedule_id,
        **times(run),
        **run.state,
    }


def _definition(block: Mapping[str, Any]) -> dict[str, Any]:
    known = {"label": block["label"], "block_type": block["block_type"]}
    children = [_definition(child) for child in block.get("children", ())]
    return {**known, "loop_blocks": children} if children else known


def workflow_view(made: Workflow, version: int | None = None) -> dict[str, Any]:
    """Return a version of a workflow; the newest if none is given."""
    view = _workflow_view(made)
    if not made.definitions:
        return view
    number = version or made.version
    sent = made.definitions[number - 1]
    definition = {"version": 1, **sent["workflow_definition"], **_stored(made, number)}
    return {**view, **sent, "workflow_definition": definition, "version": number}


def _stored(made: Workflow, number: int) -> dict[str, Any]:
    """Return parameters and blocks as the server stores them: with ids, times, and an output of each block."""
    given = made.definitions[number - 1]["workflow_definition"]
    when = {"created_at": stamp(made.created_at), "modified_at": stamp(made.created_at), "deleted_at": None}
    own = {"workflow_id": f"w_{made.workflow_id[5:]}_{number}", **when}
    rows = [
        {"description": None, f"{row['parameter_type']}_parameter_id": f"p_{number}_{index}", **row, **own}
        for index, row in enumerate(given["parameters"])
    ]
    blocks = [_stored_block(block, {row["key"]: row for row in rows}, own) for block in given["blocks"]]
    outputs = [block["output_parameter"] for block in blocks]
    return {"parameters": [*outputs, *rows], "blocks": blocks}


def _stored_block(block: Mapping[str, Any], rows: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    key = f"{block.get('label')}_output"
    output = {"parameter_type": "output", "key": key, "output_parameter_id": f"op_{key}", **own}
    stored = {"next_block_label": None, "continue_on_failure": False, "model": None, **block}
    keys = stored.pop("parameter_keys", None) or []
    if "loop_blocks" in stored:
        stored["loop_blocks"] = [_stored_block(inner, rows, own) for inner in stored["loop_blocks"]]
    return {**stored, "parameters": [rows.get(key, {"key": key}) for key in keys], "output_parameter": output}


def _workflow_view(made: Workflow) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "parameter_type": "workflow",
            "key": key,
            "workflow_parameter_type": kind,
            "default_value": made.defaults.get(key),
        }
        for key, kind in made.parameters.items()
    ]
    if made.fallback_plan:
        login = {"parameter_type": "credential", "key": "login", "credential_id": "cred_1"}
        parameters.append({**login, "fallback_credential_ids": ["cred_2"]})
    return {
        "workflow_id": f"w_{made.workflow_id[5:]}",
        "organization_id": ORGANIZATION,
        "title": made.title,
        "workflow_permanent_id": made.workflow_id,
        "version": 1,
        "is_saved_task": False,
        "description": None,
        "workflow_definition": {
            "version": 1,
            "parameters": parameters,
            "blocks": [_definition(block) for block in made.defined_blocks],
        },
        "created_at": stamp(made.created_at),
        "modified_at": stamp(made.created_at),
    }
