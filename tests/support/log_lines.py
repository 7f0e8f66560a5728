"""A log that keeps its lines."""

from __future__ import annotations

from typing import Any


class LogLines:
    """What a Wait, a Submission or a kill logs to."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """All lines as one text."""
        return "".join(f"{line}\n" for line in self.lines)

    def info(self, msg: str, /, *args: Any) -> None:
        """Keep a line, whatever its level."""
        self.lines.append(msg % args)

    warning = info
