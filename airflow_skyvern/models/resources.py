"""What Skyvern keeps besides workflows and runs: sessions, profiles, credentials, folders, tags, scripts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from airflow_skyvern.models.base import NULL_AS_LIST, Answer, Flag, UtcDatetime


class BrowserSession(Answer):
    """
    A browser that stays open for several runs.

    :param status: ``running`` while runs can use it.
    :param runnable_id: The run that uses it now. Right after a start it may still be None.
    :param timeout: Minutes after which Skyvern closes it.
    :param browser_profile_id: The profile with which its browser began.
    :param generate_browser_profile: Whether it keeps the data for a profile when it is closed.
    """

    browser_session_id: str
    status: str | None = None
    runnable_id: str | None = None
    timeout: int | None = None
    browser_profile_id: str | None = None
    app_url: str | None = None
    created_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    completed_at: UtcDatetime | None = None
    generate_browser_profile: Flag = False

    @property
    def is_over(self) -> bool:
        """Whether no run can use it any more."""
        return self.completed_at is not None or self.status in ("completed", "failed", "timeout")


class BrowserProfile(Answer):
    """
    Cookies and logins of a browser, kept for later runs and sessions.

    :param name: On newer servers, unique among the profiles that people have made; older servers allow duplicates.
    :param is_managed: Whether Skyvern keeps it for a workflow, and not a person.
    """

    browser_profile_id: str
    name: str
    description: str | None = None
    is_managed: Flag = False
    created_at: UtcDatetime | None = None
    modified_at: UtcDatetime | None = None
    deleted_at: UtcDatetime | None = None
    last_verified_login_at: UtcDatetime | None = None


class BrowserProfileUsage(Answer):
    """Which workflows and credentials use a profile."""

    workflows: Annotated[list[dict[str, Any]], NULL_AS_LIST] = []
    credentials: Annotated[list[dict[str, Any]], NULL_AS_LIST] = []
    recent_seeded_run_count: int = 0


class BrowserType(Answer):
    """A browser that runs can use: ``value`` for requests, ``label`` for people."""

    value: str
    label: str


class Credential(Answer):
    """
    A login, card or secret that Skyvern keeps; never with its secret values.

    :param name: Not unique.
    :param credential_type: ``password``, ``credit_card`` or ``secret``.
    :param credential: Its fields that are not secret: ``username`` and ``has_totp``, ``last_four`` or
        ``secret_label``.
    :param user_context: How to log in, in words.
    """

    credential_id: str
    name: str
    credential_type: str
    credential: dict[str, Any] = {}
    user_context: str | None = None
    vault_type: str | None = None
    browser_profile_id: str | None = None


class TotpCode(Answer):
    """A two-factor code that Skyvern has received; the code itself is not kept here."""

    totp_code_id: str
    totp_identifier: str
    expired_at: UtcDatetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_code(cls, answer: Any) -> Any:
        return {key: value for key, value in answer.items() if key not in ("code", "content")}


class Folder(Answer):
    """A folder of workflows. Titles are not unique."""

    folder_id: str
    title: str
    description: str | None = None
    workflow_count: int = 0


class Tag(Answer):
    """A tag of a workflow or a run; without a key it is a label."""

    key: str | None = None
    value: str | None = None
    set_at: UtcDatetime | None = None


class Tags(Answer):
    """The tags of a workflow or a run."""

    tags: Annotated[list[Tag], NULL_AS_LIST] = []

    def as_mapping(self) -> dict[str, str]:
        """Return the tags that have a key."""
        return {tag.key: tag.value or "" for tag in self.tags if tag.key}


class WorkflowTags(Answer):
    """The tags of several workflows, by their ids."""

    workflow_tags: dict[str, list[Tag]] = {}


class TagHistory(Answer):
    """What has been set and removed, newest first."""

    events: Annotated[list[dict[str, Any]], NULL_AS_LIST] = []


class Script(Answer):
    """Code that Skyvern has generated from a run, to run without a model."""

    script_id: str
    version: int
    run_id: str | None = None
    created_at: UtcDatetime | None = None


class WebhookTest(Answer):
    """
    What came of a webhook that Skyvern has sent as a test.

    :param status_code: What the receiver has answered; None if it was not reached.
    :param response_body: The beginning of that answer.
    :param error: Why it was not reached.
    """

    model_config = ConfigDict(extra="ignore")  # the headers that were sent are signed

    status_code: int | None = None
    response_body: str = Field(default="", repr=False)
    error: str | None = None
