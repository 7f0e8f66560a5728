"""
What a run did and what it left behind: the blocks of its timeline, with the agent's actions, and its artifacts.

Both may hold secrets, so that each class says what may be shown.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from airflow_skyvern.models.base import NULL_AS_LIST, Answer, UtcDatetime


class Action(Answer):
    """
    One thing that the agent did in a block: a click, a text that it typed, an extraction.

    ``text`` is the typed text in clear. A password that was passed as a plain parameter is in it, and may also be in
    unknown fields, which are kept in ``model_extra``. Show only fields that you name.
    """

    action_type: str
    status: str | None = None
    step_order: int | None = None
    action_order: int | None = None
    reasoning: str | None = None
    intention: str | None = None
    text: str | None = Field(default=None, repr=False)
    screenshot_artifact_id: str | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    created_at: UtcDatetime | None = None


class Block(Answer):
    """
    One block of a run, from its timeline.

    :param status: As a run's; also ``skipped``. A block that asks a person is ``running`` while it waits.
    :param duration: Seconds, once a block that runs in a browser has ended; other blocks have none.
    :param task_id: Joins it with its artifacts (:attr:`Artifact.task_id`), for blocks that run in a browser.
    :param actions: What the agent did, newest first; empty for blocks without a browser.
    :param instructions: The question of a ``human_interaction`` block, together with the labels for yes and no.
    """

    workflow_run_block_id: str | None = None
    parent_workflow_run_block_id: str | None = None
    block_type: str
    label: str | None = None
    status: str | None = None
    description: str | None = None
    duration: float | None = None
    output: Any = None
    failure_reason: str | None = None
    error_codes: Annotated[list[str], NULL_AS_LIST] = []
    task_id: str | None = None
    url: str | None = None
    navigation_goal: str | None = None
    actions: Annotated[list[Action], NULL_AS_LIST] = []
    loop_values: list[Any] | None = None
    current_index: int | None = None
    current_value: str | None = None
    subject: str | None = None
    body: str | None = None
    recipients: Annotated[list[str], NULL_AS_LIST] = []
    instructions: str | None = None
    positive_descriptor: str | None = None
    negative_descriptor: str | None = None
    downloaded_file_count: int | None = None
    created_at: UtcDatetime | None = None
    modified_at: UtcDatetime | None = None


class TimelineItem(Answer):
    """
    One step of a run's timeline, which is sorted newest first: a block of the workflow or a thought of the agent.

    :param attempt: The attempt of the run, where its workflow has a retry policy.
    :param children: The blocks of a loop, of all its iterations, newest first.
    """

    type: str
    attempt: int | None = None
    block: Block | None = None
    thought: dict[str, Any] | None = None
    children: Annotated[list[TimelineItem], NULL_AS_LIST] = []
    created_at: UtcDatetime | None = None
    modified_at: UtcDatetime | None = None


class BlockRow(TypedDict):
    """
    What a wait reads of a block, to log it.

    A mapping, not a model: the agent's actions and the block's output, most of a timeline, are skipped unread.
    """

    block_type: str
    label: NotRequired[str | None]
    status: NotRequired[str | None]
    duration: NotRequired[float | None]
    created_at: NotRequired[str | None]
    modified_at: NotRequired[str | None]
    loop_values: NotRequired[list[Any] | None]
    current_index: NotRequired[int | None]


class TimelineRow(TypedDict):
    """What a wait reads of a step of a timeline."""

    attempt: NotRequired[int | None]
    block: NotRequired[BlockRow | None]
    children: NotRequired[list[TimelineRow] | None]


class BlockTaskRequest(TypedDict):
    """The part of a block's task request that is read; the payload may hold passwords."""

    totp_identifier: NotRequired[str | None]
    totp_verification_url: NotRequired[str | None]


class FailureCategory(TypedDict):
    """Why Skyvern thinks that a block has failed: ``AUTH_FAILURE``, ``CREDENTIAL_ERROR`` and so on."""

    category: str
    confidence_float: NotRequired[float | None]


class BlockTask(TypedDict):
    """
    What is read of the task behind a block that uses a browser.

    A mapping, not a model: its payload is skipped unread, as it may hold passwords.
    """

    request: BlockTaskRequest
    failure_category: NotRequired[list[FailureCategory] | None]


class Artifact(Answer):
    """
    Something a run left behind: recording, screenshot, download, log.

    ``uri`` and ``signed_url`` may be signed addresses: treat them as secrets, and fetch the content by id.

    :param artifact_type: ``recording``, ``screenshot_action``, ``screenshot_final``, ``download``, ``har``, …
    :param file_size: Bytes; None for a part of an archive.
    :param task_id: The task of the block that it belongs to; None for downloads.
    :param modified_at: Newer than ``created_at`` once a recording has been compressed, a second after the run's end.
    """

    artifact_id: str
    artifact_type: str
    uri: str | None = Field(default=None, repr=False)
    signed_url: str | None = Field(default=None, repr=False)
    file_size: int | None = None
    checksum: str | None = None
    task_id: str | None = None
    workflow_run_block_id: str | None = None
    run_id: str | None = None
    archived: bool | None = None
    created_at: UtcDatetime | None = None
    modified_at: UtcDatetime | None = None
