"""What becomes of a run's output: the value of its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_skyvern.models import Run


@dataclass(frozen=True)
class OutputOptions:
    """
    How the output of a run becomes the value of its task.

    :param mask: Whether secrets in it are masked.
    """

    mask: bool = True

    def value_of(self, run: Run) -> Any:
        """Return what the task pushes as its value."""
        from airflow_skyvern.results.masking import OutputMasker

        return OutputMasker().masked(run.output) if self.mask else run.output
