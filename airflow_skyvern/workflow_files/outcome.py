"""What was done with a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_skyvern.workflow_files.differences import Difference


@dataclass(frozen=True)
class Outcome:
    """
    What was done with a file, or would be.

    :param action: ``created``, ``updated``, ``unchanged``, ``differs``, ``refused`` or ``failed``.
    :param differences: From the earlier to the present content.
    :param message: Why it was not done.
    """

    file: str
    workflow_id: str | None = None
    version: int | None = None
    action: str = "unchanged"
    differences: Sequence[Difference] = ()
    message: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it succeeded."""
        return self.action not in ("refused", "failed")

    def as_row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "file": self.file,
            "workflow_id": self.workflow_id,
            "version": self.version,
            "action": self.action,
            "differences": [str(one) for one in self.differences],
            "message": self.message,
        }
