"""How long to wait after failures: one pure function, and the random part that spreads the load."""

from __future__ import annotations

import random

LONGEST_REQUESTED = 600.0
"""Seconds that are waited for a server at the most, whatever its ``Retry-After`` says: it may ask for a day."""

PACE = 1.0
"""What every pause is multiplied by; tests of DAGs make it small."""


def backoff(failures: int, *, base: float, longest: float, requested: float | None = None) -> float:
    """
    Return the seconds to wait after so many failures in a row: ``base``, doubled with each further one.

    :param longest: The most that this grows to; what the server asks for may be longer, up to ten minutes.
    :param requested: The seconds that the server asked for.
    """
    grown = min(base * 2.0 ** min(failures - 1, 20), longest)
    return max(grown, min(requested or 0.0, LONGEST_REQUESTED))


def jittered(seconds: float, most: float = 0.1) -> float:
    """Return the seconds, and up to such a share more; never less, unless :data:`PACE` says so."""
    return PACE * seconds * random.uniform(1.0, 1.0 + most)
