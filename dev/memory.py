"""How much memory a process has, from its status in /proc."""

from __future__ import annotations

import re
from pathlib import Path


def memory_kib(entry: str, process: int | str = "self") -> int:
    """
    Return the memory of a process in KiB: `VmRSS` is what it has now, `VmHWM` the most that it has had so far.

    Not `ru_maxrss`, which begins with what the parent had when it started the process. Of a process that has ended
    and was not waited for, 0.
    """
    found = re.search(rf"^{entry}:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
