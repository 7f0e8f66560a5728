"""Names that were probably meant, for messages about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """
    Return ``Did you mean …?`` with the most similar known name; None if none is similar.

    :param name: The name as written.
    :param known: All existing names, in their own spelling.
    """
    names = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), names, n=1)
    return f"Did you mean {names[close[0]]}?" if close else None
