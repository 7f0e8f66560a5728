"""
Lists what each version of Skyvern added: the only table of the differences between the servers that people run.

A server that is older than an option silently drops it, so a call says what it ``needs``, and the server is asked for
its version before such a call is sent: once per client, and never for a call that needs nothing. The versions are the
oldest in which each was seen, on servers or in their source (1.0.30 to 1.0.56). A version that is not a number, such
as the git hash of Skyvern's images, says nothing about age; such a server is believed.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_skyvern.client.answers import NO_SUCH_ROUTE
from airflow_skyvern.client.calls import Call, Feature, get
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernError,
    SkyvernRequestError,
    SkyvernTooOld,
)
from airflow_skyvern.models import ServerVersion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")

FLOOR = "1.0.48"
"""The oldest version that has everything but a few options; below it the main path works, and nothing is wrong."""

NEWEST = "1.0.56"

TELLS_ITS_VERSION = "1.0.40"
"""Older ones have no endpoint for it."""


_RUN, _WORKFLOW, _SESSION, _PROFILE = (
    rf"/v1/{kind}/[^/]+" for kind in ("runs", "workflows", "browser_sessions", "browser_profiles")
)
TAGS_PROBE: Call[Any] = get(
    "/v1/runs", "find out whether runs can be found by tag", Any, {"tags": ":x", "page_size": 1}
)
BAD_TAG = "Invalid tag filter"
"""The refusal of a tag without a name by a server with run tags; an older server answers with runs."""

SESSION_RUNS = Feature("1.0.36", "lists of a browser session's runs", (f"GET {_SESSION}/workflow_runs",))
PROFILE_RESETS = Feature("1.0.40", "resets of a workflow's browser profile", ("POST /v1/agents/.+/reset_profile",))
VERSION = Feature(TELLS_ITS_VERSION, "answers about the server's version", ("GET /v1/version",))
SCHEDULES = Feature("1.0.40", "schedules")
WORKFLOW_RUNS = Feature("1.0.40", "lists of one workflow's runs", (f"GET {_WORKFLOW}/runs",))
BULK_CANCEL = Feature("1.0.40", "cancels of many runs at once", ("POST /v1/runs/cancel",))
RETRY_RUN = Feature("1.0.40", "repetitions of a run (retry_run)", (r"POST /v1/workflows/runs/[^/]+/retry",))
WORKFLOW_TAGS = Feature("1.0.40", "tags of workflows", (rf"\w+ {_WORKFLOW}/tags(/.*)?", "POST /v1/workflow-tags"))
SEARCHES = Feature("1.0.40", "searches for credentials and browser profiles")
PROFILE_CHANGES = Feature(
    "1.0.40", "changes of browser sessions and profiles", (f"PATCH {_SESSION}", f"PATCH {_PROFILE}")
)
NEW_PROFILES = Feature("1.0.40", "profiles that a browser session leaves (generate_browser_profile)")
RUN_LIMITS = Feature("1.0.40", "limits of a run's duration (max_elapsed_time_minutes)")
CDP_HEADERS = Feature("1.0.40", "headers for your own browser (cdp_connect_headers)")
RUN_TAGS = Feature("1.0.48", "run tags", ("GET /v1/run-tags", rf"\w+ {_RUN}/tags(/.*)?"), proof=TAGS_PROBE)
PAUSES = Feature("1.0.48", "approvals (the pauses of runs)")
MASKED_SECRETS = Feature("1.0.48", "secrets of a workflow that stay masked (mask_secrets)")
PROFILES_OF_TASKS = Feature("1.0.48", "browser profiles for tasks without a workflow (browser_profile_id)")
FRESH_BROWSERS = Feature("1.0.48", "fresh browsers (start_fresh_browser)")
SESSION_PAGES = Feature("1.0.48", "pages that a new browser session opens (url)")
PROFILE_USAGE = Feature("1.0.48", "the usage of browser profiles", (f"GET {_PROFILE}/usage",))
UPLOADS = Feature("1.0.55", "uploads to a server that stores files itself", ("DELETE /v1/files/[^/]+",))
RETENTION = Feature("1.0.55", "uploads that are deleted after some days (retention_days)")
FILE_IDS = Feature("1.0.55", "files for a run (file_ids)")
FILES_BY_ID = Feature("1.0.55", "files of runs, unless the server keeps them in an object store")
RETRY_POLICIES = Feature("1.0.55", "retry policies of workflows")
BROWSER_TYPES = Feature("1.0.55", "kinds of browsers (browser_type)", ("GET /v1/browser_types",))
REUSED_SESSIONS = Feature("1.0.55", "browser sessions that a later run takes over (reuse_browser_session)")
EXTENDED_SESSIONS = Feature("1.0.55", "longer browser sessions (extend)", (f"POST {_SESSION}/extend",))
SINGLE_CREATION = Feature("1.0.55", "prompts, and idempotency keys of workflows")
CANCELED_SCHEDULES = Feature("1.0.55", "schedules that fire once", (rf"POST {_WORKFLOW}/schedules/[^/]+/cancel",))
WORKFLOW_FILES = Feature("1.0.56", "workflow files")
CLEAN_REFUSALS = Feature("1.0.56", "refused starts that leave no failed run behind")

FEATURES: Mapping[str, Feature] = {name: value for name, value in globals().items() if isinstance(value, Feature)}

RUN_OPTIONS = {
    "max_elapsed_time_minutes": RUN_LIMITS,
    "cdp_connect_headers": CDP_HEADERS,
    "start_fresh_browser": FRESH_BROWSERS,
    "browser_type": BROWSER_TYPES,
    "reuse_browser_session": REUSED_SESSIONS,
    "file_ids": FILE_IDS,
}
"""The options of a start that an older server silently drops."""

TASK_OPTIONS = {**RUN_OPTIONS, "browser_profile_id": PROFILES_OF_TASKS}
"""The same of a start of a task without a workflow."""

SETTINGS = {
    "max_elapsed_time_minutes": RUN_LIMITS,
    "cdp_connect_headers": CDP_HEADERS,
    "mask_secrets": MASKED_SECRETS,
    "browser_type": BROWSER_TYPES,
    "reuse_browser_session": REUSED_SESSIONS,
}
"""The same of the settings of a workflow."""


def needed_by_definition(definition: Mapping[str, Any]) -> tuple[Feature, ...]:
    """Return the features that the server needs to keep all of a workflow's definition."""
    own = definition.get("workflow_definition")
    has_policy = isinstance(own, dict) and own.get("retry_policy") is not None
    given = [name for name, value in definition.items() if value is not None]
    return (*needed(given, SETTINGS), *([RETRY_POLICIES] if has_policy else []))


def needed(options: Iterable[str], by_option: Mapping[str, Feature]) -> tuple[Feature, ...]:
    """Return the features that the server needs for these options."""
    return tuple(by_option[name] for name in options if name in by_option)


def feature_of(method: str, path: str) -> Feature | None:
    """Return the feature that an endpoint came with; None for those that all versions have."""
    asked = f"{method} {path}"
    return next(
        (one for one in FEATURES.values() if any(re.fullmatch(route, asked) for route in one.routes)),
        None,
    )


def numbers(text: str) -> tuple[int, ...]:
    """Return a version's numbers; empty for a text that is not a version."""
    found = re.match(r"v?(\d+(?:\.\d+)+)", text.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def missing_in(version: str) -> list[Feature]:
    """Return the features that a version lacks, in the order in which they came; none if it is not a number."""
    return [one for one in FEATURES.values() if is_older(version, one.since)]


def is_missing_route(error: SkyvernError) -> bool:
    """Return whether this error, from Skyvern or a proxy, says that the server has no such endpoint."""
    return isinstance(error, SkyvernAPIError) and NO_SUCH_ROUTE.get(error.status_code) == error.detail


GET_VERSION: Call[ServerVersion] = get("/v1/version", "get the server's version", ServerVersion)
PROBE: Call[Any] = get("/v1/workflows", "check the API key", Any, {"page_size": 1})
"""A request that every version answers, and only with a valid key."""

BEFORE_VERSIONS = f"below {TELLS_ITS_VERSION}"
"""What is known about the version of a server that does not report it."""

Asking = Generator[Call[Any], Any, Any]
"""Yields calls, and receives the result or the error of each."""


def version_of_server() -> Asking:
    """
    Find out the version of a server.

    :return: Its text, :data:`BEFORE_VERSIONS`, or the error for which it is not known.
    """
    answer = yield GET_VERSION
    if isinstance(answer, ServerVersion):
        return answer.version
    if not is_missing_route(answer):
        return answer
    probed = yield PROBE
    is_skyvern = isinstance(probed, SkyvernAuthError) or not isinstance(probed, SkyvernError)
    return BEFORE_VERSIONS if is_skyvern else answer


def described(found: str | SkyvernError) -> str:
    """Describe in a sentence the result of :func:`version_of_server`, and what that version cannot do."""
    if isinstance(found, SkyvernError):
        return f"Its version is not known. {found}"
    missing = missing_in(found)
    return f"Its version is {found}." + (f" {too_old(found, missing)} Upgrade it to {NEWEST}." if missing else "")


def too_old(version: str, missing: Sequence[Feature]) -> str:
    """Say what a version cannot do."""
    names = "; ".join(one.what.partition(" (")[0] for one in missing)
    return f"Skyvern {version} is too old for: {names}."


@dataclass
class Server:
    """
    A client's knowledge about its server.

    :param refuses: The requests that it refused before, by the calls' names for them.
    """

    refuses: set[str] = field(default_factory=set)
    _version: str = ""
    _proven: set[str] = field(default_factory=set)

    def check(self, call: Call[Any]) -> Asking:
        """
        Ask what has to be known before a call is sent.

        :raises SkyvernTooOld: the server does not have what the call needs.
        """
        for feature in call.needs:
            if not (yield from self._has(feature)):
                raise SkyvernTooOld(
                    f"Could not {call.what}: Skyvern {self._version or 'here'} is too old for {feature.what}. That "
                    f"needs Skyvern {feature.since} or newer. Nothing was sent."
                )

    def _has(self, feature: Feature) -> Generator[Call[Any], Any, bool]:
        if feature.proof is not None:
            return (yield from self._proves(feature))
        if not self._version or is_older(self._version, feature.since):  # it may have been upgraded meanwhile
            yield from self._learn_version()
        return not is_older(self._version, feature.since)

    def _proves(self, feature: Feature) -> Generator[Call[Any], Any, bool]:
        if feature.since in self._proven:
            return True
        answer = yield feature.proof  # type: ignore[misc]  # only called for features with one
        if isinstance(answer, SkyvernRequestError) and answer.detail.startswith(BAD_TAG):
            self._proven.add(feature.since)
            return True
        if isinstance(answer, SkyvernError):
            raise answer
        yield from self._learn_version()
        return False

    def _learn_version(self) -> Asking:
        """Ask for the version; if no answer comes, the call itself will say why."""
        found = yield from version_of_server()
        self._version = found if isinstance(found, str) else ""

    def suited(self, call: Call[T]) -> Call[T]:
        """Return a call in the form that this server takes, as far as an earlier one has shown that."""
        if call.otherwise is None or call.otherwise.name not in self.refuses:
            return call
        return _other(call) or call

    def instead(self, call: Call[T], error: SkyvernError) -> Call[T] | None:
        """Return the call to send instead of one that an older server refused in this way, if that is why."""
        if call.otherwise is None or not call.otherwise.after(error) or (other := _other(call)) is None:
            return None
        if call.otherwise.name:
            self.refuses.add(call.otherwise.name)
        return other


def _other(call: Call[T]) -> Call[T] | None:
    """Return the other call; its caller gets the expected result."""
    other = call.otherwise and call.otherwise.instead(call)
    return replace(other, parse=call.parse, fits=call.fits) if other else None


def is_older(version: str, since: str) -> bool:
    """Return whether a version is certainly older than another one."""
    if version == BEFORE_VERSIONS:
        return numbers(since) >= numbers(TELLS_ITS_VERSION)
    return bool(numbers(version)) and numbers(version) < numbers(since)
