"""A workflow and the parameters of its definition."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import NotRequired, TypedDict

from airflow_skyvern.models.base import NULL_AS_LIST, Answer, UtcDatetime

NOT_SETTABLE = frozenset(
    {
        *("context", "output", "aws_secret", "azure_secret", "azure_vault_credential", "onepassword", "credential"),
        *("bitwarden_login_credential", "bitwarden_sensitive_information", "bitwarden_credit_card_data"),
    }
)
"""The types of parameters whose values Skyvern itself computes or looks up."""


class WorkflowParameter(Answer):
    """
    A parameter of a workflow's definition.

    :param parameter_type: ``workflow`` for what a run's parameters set; other types Skyvern computes or looks up.
    :param workflow_parameter_type: What a value must be: ``string``, ``integer``, ``float``, ``boolean``, ``json``,
        ``file_url``, ``credential_id``.
    """

    key: str
    parameter_type: str = "workflow"
    workflow_parameter_type: str | None = None
    default_value: Any = None
    credential_ids: Annotated[list[str], NULL_AS_LIST] = []
    fallback_credential_ids: Annotated[list[str], NULL_AS_LIST] = []

    @property
    def is_settable(self) -> bool:
        """Whether a run may give it a value; if it offers several credentials, the run may choose one."""
        choices = self.credential_ids or self.fallback_credential_ids
        return self.parameter_type not in NOT_SETTABLE or bool(choices)

    @property
    def is_credential(self) -> bool:
        """Whether its value is a credential that Skyvern keeps, and a run may give it."""
        choices = self.credential_ids or self.fallback_credential_ids
        return self.workflow_parameter_type == "credential_id" or bool(choices)

    @property
    def is_required(self) -> bool:
        """Whether a run must give it a value; without a credential, a run logs in nowhere."""
        return self.default_value is None and self.workflow_parameter_type != "credential_id"


class Workflow(Answer):
    """A workflow (lately also called an agent)."""

    workflow_permanent_id: str
    workflow_id: str
    title: str
    version: int | None = None
    description: str | None = None
    workflow_definition: dict[str, Any] = {}
    created_at: UtcDatetime | None = None
    modified_at: UtcDatetime | None = None

    def is_about(self, workflow_id: str) -> bool:
        """Whether this describes that workflow."""
        return self.workflow_permanent_id == workflow_id

    @property
    def parameters(self) -> list[WorkflowParameter]:
        """
        The parameters of its definition.

        :raises ValueError: the definition has another form than this version of the provider knows.
        """
        return [WorkflowParameter.model_validate(row) for row in self.workflow_definition.get("parameters") or []]

    @property
    def has_fallback_credentials(self) -> bool:
        """Whether Skyvern may start the workflow again, as another run, when a login of a run fails."""
        parameters = self.workflow_definition.get("parameters") or []
        return any(parameter.get("fallback_credential_ids") for parameter in parameters)


class RunDefinition(TypedDict):
    """What a wait reads of a run to know the blocks of its workflow: as the workflow was when the run started."""

    workflow: NotRequired[dict[str, Any] | None]


class StartedRun(TypedDict):
    """The response of Skyvern's older endpoint to a start: only the ids."""

    workflow_id: str
    workflow_run_id: str


class RunCost(TypedDict):
    """
    The cost of a run: the agent's steps, and credits on Skyvern Cloud; a self-hosted server counts no credits.

    :param cached_credits_used: Credits for steps executed by a script that the agent wrote in an earlier run.
    """

    total_steps: NotRequired[int | None]
    credits_used: NotRequired[int | None]
    cached_credits_used: NotRequired[int | None]
