"""What all models share: unknown fields survive, times are UTC, null is an empty list."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


def _aware(moment: datetime) -> datetime:
    """Give the API's timestamps, which carry no offset, the zone they mean."""
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _list(value: Any) -> Any:
    return [] if value is None else value


def _mapping(value: Any) -> Any:
    return {} if value is None else value


UtcDatetime = Annotated[datetime, AfterValidator(_aware)]


def _flag(value: Any) -> Any:
    return False if value is None else value


Flag = Annotated[bool, BeforeValidator(_flag)]
"""Yes or no, also as a text or a number that means one of them; null is no."""
NULL_AS_LIST = BeforeValidator(_list)
NULL_AS_MAPPING = BeforeValidator(_mapping)


class Answer(BaseModel):
    """Base of everything the server says: unknown fields survive. Built at first use, for cheap imports."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)
