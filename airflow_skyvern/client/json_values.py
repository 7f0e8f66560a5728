"""Values of Python as JSON, in one way only: the key of a mapped task's run is made of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from airflow_skyvern.exceptions import SkyvernConfigError

ADVICE = {
    "bytes": "decode it, or upload the file and pass its address",
    "timedelta": "pass its total_seconds()",
    "SecretStr": "pass its get_secret_value()",
    "generator": "make a list of it",
}
"""Advice for types that JSON does not have and that are passed now and then."""

GENERAL_ADVICE = "pass text, a number, a list or a mapping"


def json_of(value: Any, path: str, *, skip: Callable[[Any], bool] = lambda _: False) -> Any:
    """
    Return the value as JSON.

    Moments and dates become ISO 8601 text; ``Decimal``, ``UUID`` and paths text; an ``Enum`` its value; models of
    pydantic and dataclasses mappings; sets sorted lists, so that the same set is always the same JSON.

    :param path: What the value is, for messages: ``parameters``.
    :param skip: Which values to leave as they are: those that are only known when the task runs.
    :raises SkyvernConfigError: names each value that has no form in JSON, its type, and never the value itself.
    """
    problems: list[str] = []
    converted = _Conversion(problems, skip).of(value, path)
    if problems:
        raise SkyvernConfigError("; ".join(problems))
    return converted


class _Conversion:
    def __init__(self, problems: list[str], skip: Callable[[Any], bool]) -> None:
        self._problems = problems
        self._skip = skip

    def of(self, value: Any, path: str) -> Any:
        """Convert a value and all that it holds."""
        if isinstance(value, Mapping):
            return {self._name(key, path): self.of(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
            return self._list(value, path)
        if self._skip(value):
            return value
        if isinstance(value, Enum):
            return self.of(value.value, path)
        if value is None or isinstance(value, str | bool | int | float):
            return self._of_scalar(value, path)
        return self._of_other(value, path)

    def _of_scalar(self, value: Any, path: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse(path, f"{value} is not valid JSON; pass null or a number")
        return value

    def _of_other(self, value: Any, path: str) -> Any:
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, Decimal | UUID | PurePath):
            return str(value)
        if isinstance(value, AbstractSet):
            return sorted(self._list(value, path), key=lambda item: json.dumps(item, sort_keys=True, default=str))
        if isinstance(value, BaseModel):
            return self.of(value.model_dump(), path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.of({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, path)
        kind = type(value).__name__
        return self._refuse(path, f"{kind} is not valid JSON; {ADVICE.get(kind, GENERAL_ADVICE)}")

    def _list(self, values: Iterable[Any], path: str) -> list[Any]:
        return [self.of(item, f"{path}[{index}]") for index, item in enumerate(values)]

    def _name(self, key: Any, path: str) -> Any:
        plain = key.value if isinstance(key, Enum) else key
        if isinstance(plain, str) or self._skip(key):
            return plain
        return self._refuse(path, f"names are text in JSON, not {type(key).__name__}")

    def _refuse(self, path: str, reason: str) -> None:
        self._problems.append(f"{path}: {reason}")
