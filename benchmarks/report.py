"""From results to the tables in docs/performance.md, ratios first."""

from __future__ import annotations

import math
import os
import platform
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import OURS, contender
from benchmarks.verdict import Result

if TYPE_CHECKING:
    from benchmarks.imports import Imports

Results = Mapping[tuple[str, int], Result]

BUSY_MACHINE = 0.2
"""CPU share of other programs, of one processor, above which the page warns about the numbers."""

STOLEN = 0.1
"""CPU share that the host may give to others, of one processor; with more, a measurement is repeated."""

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def machine() -> str:
    """Describe this machine: processors, memory and versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, OpenSSL {ssl.OPENSSL_VERSION.split()[1]}"
    )


class Markers:
    """A part of a page that a command writes."""

    def __init__(self, page: Path, name: str) -> None:
        self._page = page
        self._begin, self._end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"

    def put(self, text: str) -> None:
        """Replace the text between the markers; ValueError if the page has none."""
        before, _, rest = self._page.read_text(encoding="utf-8").partition(self._begin)
        _, end, after = rest.partition(self._end)
        if not end:
            raise ValueError(f"{self._page}: no {self._begin.strip()} … {self._end}")
        self._page.write_text(f"{before}{self._begin}\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def names(results: Results) -> list[str]:
    """Return the contenders in order, ours first."""
    return list(dict.fromkeys(name for name, _ in results))


def sizes(results: Results) -> list[int]:
    """Return the numbers of waits, ascending."""
    return sorted({waits for _, waits in results})


def ratios(results: Results) -> str:
    """Write each peer's CPU time as a multiple of ours."""
    peers = [name for name in names(results) if name != OURS]
    rows = [[contender(name).label, *(_ratio(results, name, waits) for waits in sizes(results))] for name in peers]
    ours = [f"{results[OURS, waits].cpu:.2f} s/min" if (OURS, waits) in results else "—" for waits in sizes(results)]
    head = ["CPU time, as a multiple of ours", *(f"{waits:,} waits" for waits in sizes(results))]
    return table(head, [*rows, [contender(OURS).label, *ours]])


def _ratio(results: Results, name: str, waits: int) -> str:
    ours, peer = results.get((OURS, waits)), results.get((name, waits))
    if ours is None or peer is None:
        return "—"
    return f"{'> ' if peer.overloaded else ''}{peer.cpu / ours.cpu:.3g}"


def details(results: Results, waits: int) -> str:
    """Write all numbers for one number of waits."""
    head = [
        f"{waits:,} waits",
        "CPU s/min",
        "requests per tick",
        "connections per tick",
        "longest stall",
        "stall at the start",
        "memory",
        "latency p50 / p95 / p99",
    ]
    return table(head, [_detail(results[name, waits]) for name in names(results) if (name, waits) in results])


def _detail(found: Result) -> list[str]:
    late = f", {found.polls:.0%} of the polls" if found.overloaded else ""
    return [
        f"{contender(found.contender).label}{' (overloaded' + late + ')' if found.overloaded else ''}",
        f"{found.cpu:.2f}",
        f"{found.requests:,.1f}",
        f"{found.connections:,.1f}",
        f"{found.stall * 1000:,.0f} ms",
        f"{found.stall_start * 1000:,.0f} ms",
        f"+{found.growth_mb:,.0f} MB",
        " / ".join(seconds(found.latency(percent)) for percent in (50, 95, 99)),
    ]


def seconds(value: float) -> str:
    """Write seconds, or that no end was seen."""
    return "not seen" if math.isinf(value) else f"{value:.1f} s"


def best(results: Results, waits: int, value: Callable[[Result], float]) -> float:
    """Return the smallest value of a peer that keeps up; infinite if none does."""
    return min(
        (
            value(found)
            for (name, at), found in results.items()
            if name != OURS and at == waits and not found.overloaded
        ),
        default=math.inf,
    )


def by_chance(found: Result, percent: float, interval: float) -> float:
    """
    Return by how much two measurements of a percentile of the latency differ by chance alone.

    It is the standard error of the difference, for ends that fall anywhere in the interval between two polls.
    """
    share = percent / 100
    return interval * math.sqrt(2 * share * (1 - share) / max(1, len(found.latencies)))


def targets(results: Results, interval: float) -> list[tuple[str, str, bool]]:
    """Compare our results with the targets: (target, measured, whether it is reached), for what was measured."""
    lines: list[tuple[str, str, bool]] = []

    def add(what: str, measured: str, *, reached: bool) -> None:
        lines.append((what, measured, reached))

    if (few := results.get((OURS, 10))) is not None and len(names(results)) > 1:
        cpu, late = best(results, 10, lambda r: r.cpu), best(results, 10, lambda r: r.latency(95))
        chance = by_chance(few, 95, interval)
        add("10 waits: CPU not above the best peer's", f"{few.cpu:.3f} to {cpu:.3f} s/min", reached=few.cpu <= cpu)
        add(
            f"10 waits: p95 latency not above the best peer's, as far as {len(few.latencies)} ends can tell",
            f"{few.latency(95):.2f} to {late:.2f} s, ± {chance:.2f} s by chance",
            reached=few.latency(95) <= late + chance,
        )
    if (many := results.get((OURS, 1000))) is not None:
        if len(names(results)) > 1:
            cpu = best(results, 1000, lambda r: r.cpu)
            add(
                "1,000 waits: at most a tenth of the best peer's CPU",
                f"{many.cpu / cpu:.3f}",
                reached=many.cpu <= cpu / 10,
            )
        add("1,000 waits: at most 12 requests per tick", f"{many.requests:.1f}", reached=many.requests <= 12)
        add("1,000 waits: no stall above 50 ms", f"{many.stall * 1000:.0f} ms", reached=many.stall <= 0.05)
        add("1,000 waits: memory growth under 60 MB", f"{many.growth_mb:.0f} MB", reached=many.growth_mb < 60)
        add(
            "1,000 waits: p95 latency at most interval + 1 s",
            seconds(many.latency(95)),
            reached=many.latency(95) <= interval + 1,
        )
    if (most := results.get((OURS, 5000))) is not None:
        add("5,000 waits: no stall above 100 ms", f"{most.stall * 1000:.0f} ms", reached=most.stall <= 0.1)
        late = most.latency(100)
        add("5,000 waits: latency at most interval + 2 s", seconds(late), reached=late <= interval + 2)
        if (hundred := results.get((OURS, 100))) is not None:
            grown = most.cpu / hundred.cpu
            add("100 to 5,000 waits: CPU grows less than 30 times", f"{grown:.1f} times", reached=grown < 30)
    return lines


def targets_table(results: Results, interval: float) -> str:
    """Write the comparison with the targets."""
    rows = [
        [what, measured, "yes" if reached else "**no**"] for what, measured, reached in targets(results, interval)
    ]
    return table(["target", "measured", "reached"], rows)


def imports_table(found: Mapping[str, Imports]) -> str:
    """Write what importing the operators costs."""
    ours = found[OURS].milliseconds
    rows = [
        [contender(name).label, f"{one.milliseconds:.1f} ms", f"{one.milliseconds / ours:.3g}", str(one.modules)]
        for name, one in found.items()
    ]
    return table(["import of an operator", "time", "as a multiple of ours", "modules"], rows)


def warnings(results: Results) -> list[str]:
    """Return what makes numbers doubtful without making them wrong."""
    found = []
    alone = [one for one in results.values() if one.waits > 100]
    disturbed = [one for one in alone if one.others_busy > BUSY_MACHINE]
    if disturbed:
        most = max(one.others_busy for one in disturbed)
        found.append(
            f"other programs used up to {most:.0%} of a processor, which affects stalls and latencies: "
            "repeat this on an idle machine"
        )
    found += [
        f"{contender(one.contender).label} at {one.waits:,} waits: the host of this virtual machine gave "
        f"{one.stolen:.0%} of a processor to others, which affects stalls and latencies"
        for one in results.values()
        if one.stolen > STOLEN
    ]
    found += [
        f"{contender(one.contender).label} at {one.waits:,} waits: the API server was {one.server_busy:.0%} busy"
        for one in results.values()
        if one.server_busy > 0.9
    ]
    found += [
        f"{contender(one.contender).label} cannot keep up with {one.waits:,} waits: its loop was busy for "
        f"{one.busy:.0%} of the time, it polled {one.polls:.0%} as often as configured, and noticed "
        f"{len(one.latencies)} of {one.missed + len(one.latencies)} ends in time"
        + (f"; only {one.begun:,} waits had begun at all" if one.begun < one.waits else "")
        for one in results.values()
        if one.overloaded
    ]
    return found
