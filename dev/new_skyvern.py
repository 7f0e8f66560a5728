"""
`make new-skyvern VERSION=1.0.57`: try a release of Skyvern that this project does not know yet.

It is installed into an environment of its own. Printed are what has changed in its description of its API (paths,
parameters, fields, values) since the newest one that is known, and which contract tests do not pass with it. The exit
status is 1 if there are such tests. An older version may be given, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dev.constraints import SKYVERN, TOOLS_PYTHON, skyvern_name
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "new-skyvern"
UV = os.environ.get("UV", "uv")
METHODS = ("get", "put", "post", "delete", "patch")


def install(version: str) -> Path:
    """Return the environment with this version, made now if there is none."""
    venv = SKYVERN_VENV if version == SKYVERN[-1] else ROOT / ".venvs" / skyvern_name(version)
    if not (venv / ".installed").exists():
        subprocess.run([UV, "venv", "--quiet", "--allow-existing", "--python", TOOLS_PYTHON, venv], check=True)
        wanted = [f"skyvern[server]=={version}", "imageio-ffmpeg"]
        subprocess.run([UV, "pip", "install", "--quiet", "--python", venv, *wanted], check=True)
        (venv / ".installed").touch()
    return venv


def description(version: str) -> dict[str, Any]:
    """Return what a server of this version says of its API; it is kept in `.cache/new-skyvern`."""
    kept = CACHE / f"openapi-{version}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder, SkyvernServer(Path(folder), install(version)) as server:
            status, body = server.request("GET", "/openapi.json")
        if status != 200:
            raise SystemExit(f"Skyvern {version} does not describe its API: {status} {body}")
        CACHE.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(body))
    return dict(json.loads(kept.read_text()))


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what has come (+) and gone (-) between two descriptions, a line each."""
    before, after = set(facts(old)), set(facts(new))
    signed = [(fact, "-") for fact in before - after] + [(fact, "+") for fact in after - before]
    return [f"{sign} {fact}" for fact, sign in sorted(signed)]


def facts(api: dict[str, Any]) -> Iterator[str]:
    """Yield each thing that a description says, in one line that names its place."""
    for path, operations in api.get("paths", {}).items():
        for method in METHODS:
            if method in operations:
                yield from _facts_of_operation(f"{method.upper()} {path}", operations[method])
    for name, schema in api.get("components", {}).get("schemas", {}).items():
        yield from _facts_of_schema(f"schema {name}", schema)


def _facts_of_operation(place: str, operation: dict[str, Any]) -> Iterator[str]:
    yield place
    for parameter in operation.get("parameters", ()):
        where = f"{place}: {parameter['in']} {parameter['name']}"
        yield f"{where}{' (required)' if parameter.get('required') else ''}"
        yield from _facts_of_values(where, parameter.get("schema", {}))
    for status in operation.get("responses", {}):
        yield f"{place}: answers {status}"


def _facts_of_schema(place: str, schema: dict[str, Any]) -> Iterator[str]:
    yield place
    yield from _facts_of_values(place, schema)
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield f"{place}.{name}{' (required)' if name in required else ''}"
        yield from _facts_of_values(f"{place}.{name}", field)


def _facts_of_values(place: str, schema: dict[str, Any]) -> Iterator[str]:
    """Yield the values and the limits that something may have, also where it may be one of several things."""
    for limit in ("maximum", "minimum", "maxLength", "minLength", "maxItems", "pattern"):
        if limit in schema:
            yield f"{place}: {limit} {schema[limit]}"
    for value in schema.get("enum", ()):
        yield f"{place}: may be {value!r}"
    for choice in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        yield from _facts_of_values(place, choice)


def contract_results(version: str) -> tuple[int, list[str]]:
    """Run the contract suite with this version; return how many tests passed, and those that did not."""
    report = CACHE / f"contract-{version}.xml"
    environment = {**os.environ, "SKYVERN_VENV": str(install(version))}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "--tb=no", f"--junitxml={report}", "tests/contract"]
    subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return read_results(report.read_text())


def read_results(report: str) -> tuple[int, list[str]]:
    """Read a report of pytest in JUnit's form; a test that is expected to fail, and does, counts as passed."""
    cases = list(ET.fromstring(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return len(cases) - len(bad), [_line_of(case) for case in bad]


def _line_of(case: ET.Element) -> str:
    problem = next(each for each in case if each.tag in ("failure", "error"))
    message = (problem.get("message") or "").strip().splitlines()
    return f"{case.get('name')}: {message[0][:200] if message else problem.tag}"


def report(title: str, lines: Iterable[str]) -> None:
    """Print a part of the result."""
    found = list(lines)
    print(f"\n{title}: {len(found)}", flush=True)
    for line in found:
        print(f"  {line}")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: make new-skyvern VERSION=1.0.57", file=sys.stderr)
        return 2
    (version,) = arguments
    known = SKYVERN[-1]
    report(
        f"Described by Skyvern {version}, and not as by {known}", changes(description(known), description(version))
    )
    passed, failed = contract_results(version)
    report(f"Contract tests that do not pass with Skyvern {version} ({passed} pass)", failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
