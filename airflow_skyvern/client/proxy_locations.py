"""The names of Skyvern's proxy locations."""

from __future__ import annotations

import difflib
import logging
import re
from functools import cache

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
    close = difflib.get_close_matches(name.upper(), PROXY_LOCATIONS, n=1)
    raise ValueError(
        f"no such location. {f'Did you mean {close[0]}? ' if close else ''}"
        f"Known names: {', '.join(PROXY_LOCATIONS)}; or a mapping such as {{'country': 'US', 'subdivision': 'CA'}}"
    )


@cache
def _warn_of_new(name: str) -> None:
    log.warning(
        "proxy_location %r is not among the names that this version of the provider knows; it is sent as it is, "
        "and Skyvern refuses the run if it does not know it either.",
        name,
    )
