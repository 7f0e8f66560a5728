"""
The request of a start, checked before it is sent: when the DAG is parsed, as far as it is known then.

https://www.skyvern.com/docs/api-reference/api-reference/workflows/run-workflow
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from airflow_skyvern.client.json_values import json_of
from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.limits import (
    LONGEST_ADDRESS,
    LONGEST_METADATA_KEY,
    LONGEST_METADATA_VALUE,
    LONGEST_RUN_MINUTES,
    MOST_FILES,
    MOST_METADATA,
)

log = logging.getLogger(__name__)

COUNTRIES = (
    *("AR", "AU", "BR", "CA", "DE", "ES", "FR", "GB", "IE", "IN"),
    *("IT", "JP", "KR", "MX", "NL", "NZ", "PH", "SA", "TR", "ZA"),
)

PROXY_LOCATIONS = (
    "RESIDENTIAL",
    *(f"RESIDENTIAL_{country}" for country in COUNTRIES),
    "RESIDENTIAL_ISP",
    *("US-CA", "US-FL", "US-NY", "US-TX", "US-WA"),
    "NONE",
)
"""The names that Skyvern 1.0.56 knows: ``skyvern.schemas.proxy_location.ProxyLocation``."""

LOOKS_NEW = re.compile(r"RESIDENTIAL_[A-Z]{2,3}|[A-Z]{2}-[A-Z]{2,3}")
"""The form of the names that Skyvern adds now and then: another country, another state."""


def _location(value: Any) -> Any:
    return checked_name(value.strip()) if isinstance(value, str) and value.strip() else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        msg = "must be a number, not a boolean"
        raise ValueError(msg)  # noqa: TRY004  pydantic turns only ValueError into a validation error
    return value


def _texts(value: Any) -> Any:
    """Metadata are texts; Jinja makes a number of ``"7"`` where a DAG renders to native objects."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
        for key, item in value.items()
    }


OLDER_NAMES = {
    "parameters": "data",
    "webhook_url": "webhook_callback_url",
    "totp_url": "totp_verification_url",
}

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Address = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ADDRESS, strip_whitespace=True)]
WholeNumber = Annotated[int, BeforeValidator(_no_bool)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_METADATA_KEY)]
MetadataValue = Annotated[str, StringConstraints(max_length=LONGEST_METADATA_VALUE)]


class RunOptions(BaseModel):
    """
    The rarer parameters of a run, for ``run_options``.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/run-workflow
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    max_steps: Annotated[WholeNumber, Field(ge=1)] | None = Field(default=None, exclude=True)
    """Sent as a header, see :func:`~airflow_skyvern.client.api.run_workflow`."""
    max_elapsed_time_minutes: Annotated[WholeNumber, Field(ge=1, le=LONGEST_RUN_MINUTES)] | None = None
    totp_identifier: Text | None = None
    totp_url: Address | None = None
    extra_http_headers: dict[str, str] | None = None
    cdp_connect_headers: dict[str, str] | None = None
    browser_address: Text | None = None
    browser_type: Text | None = None
    run_with: Literal["agent", "code"] | None = None
    ai_fallback: bool | None = None
    max_screenshot_scrolls: Annotated[WholeNumber, Field(ge=0)] | None = None
    start_fresh_browser: bool | None = None
    reuse_browser_session: bool | None = None
    run_metadata: (
        Annotated[dict[MetadataKey, MetadataValue], BeforeValidator(_texts), Field(max_length=MOST_METADATA)] | None
    ) = None
    file_ids: Annotated[list[Text], Field(max_length=MOST_FILES)] | None = None


class RunRequest(RunOptions):
    """
    Everything that ``POST /v1/run/workflows`` takes.

    :param workflow_version: The version to run. Default: the newest.
    :param parameters: As JSON; :meth:`of` makes it of Python's values.
    :param proxy_location: A location's name, such as ``"RESIDENTIAL"``, or a country with optional details:
        ``{"country": "US", "subdivision": "CA", "city": "San Francisco"}``. Skyvern adds names now and then: one
        that resembles one of these only causes a warning.
    """

    workflow_id: Text
    workflow_version: WholeNumber | None = Field(default=None, exclude=True)
    parameters: dict[str, JsonValue] | None = None
    title: Text | None = None
    proxy_location: Annotated[Text | dict[str, str] | None, BeforeValidator(_location)] = None
    webhook_url: Address | None = None
    browser_session_id: Text | None = None
    browser_profile_id: Text | None = None

    @model_validator(mode="after")
    def _one_browser(self) -> RunRequest:
        taken = [
            name for name in ("browser_session_id", "browser_profile_id", "browser_address") if getattr(self, name)
        ]
        if self.start_fresh_browser and taken:
            msg = f"start_fresh_browser cannot be combined with {taken[0]}; choose one of them"
            raise ValueError(msg)
        if self.browser_type and (self.browser_session_id or self.browser_address):
            msg = "browser_type cannot be combined with browser_session_id or browser_address; choose one"
            raise ValueError(msg)
        return self

    @classmethod
    def of(cls, fields: Mapping[str, Any], run_options: Any = None) -> RunRequest:
        """
        Build the request from the named parameters and the mapping of the rarer ones.

        :raises SkyvernConfigError: names every field that is wrong and what would be right.
        """
        options = {} if run_options is None else run_options
        if not isinstance(options, Mapping):
            raise SkyvernConfigError(f"run_options must be a mapping, not {type(options).__name__}.")
        if misplaced := sorted(set(options) & (set(cls.model_fields) - set(RunOptions.model_fields))):
            raise SkyvernConfigError(f"run_options: pass {', '.join(misplaced)} as an argument of its own.")
        parameters, problems = _parameters(fields.get("parameters"))
        try:
            request = cls.model_validate({**options, **fields, "parameters": parameters})
        except ValidationError as error:
            problems.extend(_explained(error))
        if problems:
            # Outside of the except clause: the original error would print the input, which may hold secrets.
            raise SkyvernConfigError("; ".join(problems))
        return request

    @classmethod
    def of_arguments(cls, fields: Mapping[str, Any], run_options: Any = None) -> RunRequest:
        """
        Build the request as :meth:`of` does; parameters and options may be JSON text.

        :raises SkyvernConfigError: names every field that is wrong and what would be right.
        """
        parameters = decoded("parameters", fields.get("parameters"))
        return cls.of({**fields, "parameters": parameters}, decoded("run_options", run_options))

    def body(self) -> dict[str, Any]:
        """Return the request's JSON, without options that were not given."""
        return self.model_dump(mode="json", exclude_none=True)

    def body_for_version(self) -> dict[str, Any]:
        """Return the JSON of a start of a certain version, whose address has older names, and knows no title."""
        body = {OLDER_NAMES.get(name, name): value for name, value in self.body().items()}
        return {name: value for name, value in body.items() if name not in ("workflow_id", "title")}


def _parameters(given: Any) -> tuple[Any, list[str]]:
    """Convert the parameters to JSON and collect the problems; the model rejects what is not a mapping."""
    if not isinstance(given, Mapping):
        return given, []
    try:
        return json_of(given, "parameters"), []
    except SkyvernConfigError as error:
        return None, [str(error)]


def _explained(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        field_path = ".".join(str(part) for part in item["loc"])
        if field in RunOptions.model_fields or item["type"] == "extra_forbidden":
            field_path = f"run_options.{field_path}"
        if item["type"] == "extra_forbidden":
            yield f"{field_path}: no such option. {_suggestion(field)}"
        else:
            message = item["msg"].removeprefix("Value error, ")
            yield f"{field_path}: {message}" if field_path else message


def _suggestion(field: str) -> str:
    known = sorted(RunOptions.model_fields)
    return did_you_mean(field, known) or f"Known options: {', '.join(known)}"


def decoded(name: str, value: Any) -> Any:
    """Read the JSON text that a template or a file gives, unless the DAG renders to native objects."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise SkyvernConfigError(
            f"{name}: must be a mapping, JSON text, a template of one, or the path of a .json file: {error}"
        ) from None


def checked_name(name: str) -> str:
    """
    Return the name of a location.

    :raises ValueError: Skyvern does not know it, and will not: says which names it knows.
    """
    if name in PROXY_LOCATIONS:
        return name
    if LOOKS_NEW.fullmatch(name):
        _warn_of_new(name)
        return name
    hint = did_you_mean(name, PROXY_LOCATIONS)
    raise ValueError(
        f"no such location. {f'{hint} ' if hint else ''}"
        f"Known names: {', '.join(PROXY_LOCATIONS)}; or a mapping such as {{'country': 'US', 'subdivision': 'CA'}}"
    )


@cache
def _warn_of_new(name: str) -> None:
    log.warning(
        "proxy_location %r is not among the names that this version of the provider knows; it is sent as it is, "
        "and Skyvern refuses the run if it does not know it either.",
        name,
    )
