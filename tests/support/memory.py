"""How much memory this process has had."""

from __future__ import annotations

import re
from pathlib import Path


def peak() -> int:
    """
    The most memory that this process has had so far, in KiB.

    Not ``ru_maxrss``, which begins with what the parent had when it started this process.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])
