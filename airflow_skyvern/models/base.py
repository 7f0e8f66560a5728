"""What all models share: unknown fields survive, times are UTC, null is an empty list."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

T = TypeVar("T")


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


def whole(found: T) -> T:
    """
    Return what was found, with the classes of models in it built.

    Pydantic can parse with a class that is not built and print the model, but a library that serializes it with
    pydantic's own functions fails. Airflow's AI provider does so with the return values of the hook's methods.
    """
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, BaseModel) and not type(one).__pydantic_complete__:
            type(one).model_rebuild()
    return found
