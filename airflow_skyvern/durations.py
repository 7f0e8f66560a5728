"""Durations that a user gives, as seconds or a timedelta, and durations in words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_skyvern.exceptions import SkyvernConfigError

LONGEST_WAIT = timedelta(days=3660).total_seconds()
"""The longest wait: a moment so far away is still one that Airflow and its database can store."""

LAST_MOMENT = 32503680000.0
"""The year 3000."""

LONGEST_INTERVAL = timedelta(days=1).total_seconds()
SHORTEST_INTERVAL = 0.01
"""The limits of a pause between two polls; a shorter one is a mistake, and would keep a processor busy."""


def seconds_of(
    name: str, value: Any, *, least: float = 0.0, most: float = LONGEST_WAIT, or_zero: bool = False
) -> float:
    """
    Check a duration.

    :param least: The shortest that is allowed; 0 stands for anything above it.
    :param or_zero: Whether 0 is allowed, too.
    :raises SkyvernConfigError: it is out of these limits, or no duration at all.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if or_zero and seconds == 0 and not isinstance(seconds, bool):
        return 0.0
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise SkyvernConfigError(f"{name} must be a positive number of seconds or a timedelta, not {value!r}.")
    if not least <= seconds <= most:
        raise SkyvernConfigError(f"{name} must be between {least:g} and {most:,.0f} seconds, not {value!r}.")
    return float(seconds)


def interval_of(name: str, value: Any) -> float:
    """
    Check the seconds between two polls.

    :raises SkyvernConfigError: it is too short, too long, or no duration.
    """
    return seconds_of(name, value, least=SHORTEST_INTERVAL, most=LONGEST_INTERVAL)


def moment_of(name: str, value: Any) -> float:
    """
    Check a moment in seconds since the epoch; one in the past is over.

    :raises SkyvernConfigError: it is too far away, or no moment.
    """
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not (known and abs(value) <= LAST_MOMENT):
        raise SkyvernConfigError(f"{name} must be a number of seconds since the epoch, not {value!r}.")
    return float(value)


def in_words(seconds: float, *, tenths: bool = False) -> str:
    """
    Write a duration as a reader takes it in: ``34 s``, ``2 min 5 s``, ``1 h 4 min``.

    :param tenths: Whether one below ten seconds is written with a decimal: ``0.4 s``.
    """
    if tenths and seconds < 10:  # noqa: PLR2004  from here on nobody reads tenths
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def as_argument(age: timedelta) -> str:
    """Write a duration as the command line takes it: ``90s``, ``5m``, ``2h``, ``1d``."""
    seconds = int(age.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
