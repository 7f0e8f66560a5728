"""
The endpoints around prompts ("tasks") and generated scripts, as values; see :mod:`airflow_skyvern.client.api`.

A task knows no tags: one whose start was not answered cannot be found for certain, and may run. It has no timeline
and no retry policy. An operator that runs a prompt makes a workflow of it, which has all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_skyvern.client.calls import Call, get, given, paged, path_segment, post
from airflow_skyvern.client.versions import RUN_OPTIONS, TASK_OPTIONS, needed
from airflow_skyvern.models import BlockTask, Run, Script


def run_task(
    prompt: str,
    url: str | None = None,
    data_extraction_schema: Mapping[str, Any] | list[Any] | str | None = None,
    max_steps: int | None = None,
    engine: str | None = None,
    title: str | None = None,
    **options: Any,
) -> Call[Run]:
    """
    Start a run of a prompt. Its id begins with ``tsk_``; :func:`~airflow_skyvern.client.api.get_run` gets it.

    What it cannot promise: where the answer is lost, the run may exist, and nothing finds it. Canceling one that is
    over is an error (400).

    :param prompt: What to do, in words.
    :param url: The page to begin at. Default: the model chooses one.
    :param data_extraction_schema: JSON Schema of the data that the output holds.
    :param max_steps: Steps after which the run fails.
    :param engine: ``skyvern-1.0``, ``skyvern-2.0``, ``openai-cua``, ``anthropic-cua`` and so on. Default: Skyvern's.
    :param options: What else the API takes, by its names.

    https://www.skyvern.com/docs/api-reference/api-reference/agent/run-task
    """
    body = given(
        prompt=prompt,
        url=url,
        data_extraction_schema=data_extraction_schema,
        max_steps=max_steps,
        engine=engine,
        title=title,
        **options,
    )
    return post("/v1/run/tasks", "start a task", Run, body=body, repeatable=False, needs=needed(body, TASK_OPTIONS))


def run_login_task(
    credential_type: str = "skyvern",
    credential_id: str | None = None,
    url: str | None = None,
    prompt: str | None = None,
    **options: Any,
) -> Call[Run]:
    """
    Start a run that logs in: Skyvern makes a workflow of one block of it.

    :param credential_type: Where the credential is: ``skyvern``, ``bitwarden``, ``1password`` or ``azure_vault``.
    :param credential_id: The credential, if it is Skyvern's own.
    :param options: What else the API takes, by its names.

    https://www.skyvern.com/docs/api-reference/api-reference/agent/login
    """
    body = given(credential_type=credential_type, credential_id=credential_id, url=url, prompt=prompt, **options)
    return post(
        "/v1/run/tasks/login", "start a login", Run, body=body, repeatable=False, needs=needed(body, RUN_OPTIONS)
    )


def run_download_task(navigation_goal: str, url: str | None = None, **options: Any) -> Call[Run]:
    """
    Start a run that downloads files: Skyvern makes a workflow of one block of it.

    :param navigation_goal: What to download, in words.
    :param options: What else the API takes, by its names.

    https://www.skyvern.com/docs/api-reference/api-reference/agent/download-files
    """
    body = given(navigation_goal=navigation_goal, url=url, **options)
    return post(
        "/v1/run/tasks/download_files",
        "start a download",
        Run,
        body=body,
        repeatable=False,
        needs=needed(body, RUN_OPTIONS),
    )


def get_block_task(task_id: str) -> Call[BlockTask]:
    """
    Get what the task behind a block of a workflow waits for, and why Skyvern thinks that it has failed.

    Not in Skyvern's public description of its API.
    """
    return get(f"/api/v1/tasks/{path_segment(task_id)}", f"get the task {task_id} of a block", BlockTask)


def list_scripts() -> Call[list[Script]]:
    """List the scripts that Skyvern has generated, all pages."""
    return paged("/v1/scripts", "list scripts", Script, {})


def get_script(script_id: str) -> Call[Script]:
    """Get a script."""
    return get(f"/v1/scripts/{path_segment(script_id)}", f"get script {script_id}", Script)
