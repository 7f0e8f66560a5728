"""
What Skyvern's API describes of itself: its operations, recorded from a real server in `described.json`.

``python -m dev.site.described`` records them anew, of the server in ``SKYVERN_VENV``; with an address, of a running
one. The contract suite compares what is recorded with the server that it starts.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

FILE = Path(__file__).with_suffix(".json")
METHODS = ("get", "post", "put", "patch", "delete")
PATIENCE = 120.0
"""Seconds for the description: it takes the server some to write it for the first time."""


def recorded() -> dict[str, Any]:
    """Return ``{"version", "operations"}``; the latter are names in Skyvern's SDK by method and path."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def described_by(client: httpx.Client) -> dict[str, Any]:
    """Ask a running server for the same."""
    version = client.get("/v1/version", timeout=PATIENCE).raise_for_status().json()["version"]
    paths = client.get("/openapi.json", timeout=PATIENCE).raise_for_status().json()["paths"]
    operations = {
        line(method, path): operation.get("x-fern-sdk-method-name")
        for path, methods in paths.items()
        for method, operation in methods.items()
        if method in METHODS
    }
    return {
        "version": version,
        "operations": dict(sorted(operations.items(), key=lambda item: item[0].split()[::-1])),
    }


def line(method: str, path: str) -> str:
    """Write an operation as the tables compare it: `GET /v1/runs/{}`, by the newer of Skyvern's two names."""
    path = re.sub(r"\{[^}]*\}", "{}", path)
    return f"{method.upper()} {path.replace('/workflows', '/agents')}"


def main(arguments: list[str]) -> None:
    """Record the operations."""
    if arguments:
        found = _asked(arguments[0])
    else:
        from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

        with tempfile.TemporaryDirectory() as folder, SkyvernServer(Path(folder), SKYVERN_VENV) as server:
            found = _asked(server.base_url)
    FILE.write_text(json.dumps(found, indent=2) + "\n")
    print(f"Skyvern {found['version']}: {len(found['operations'])} operations in {FILE}")


def _asked(address: str) -> dict[str, Any]:
    import httpx  # the environment of the documentation has none

    with httpx.Client(base_url=address, trust_env=False) as client:
        return described_by(client)


if __name__ == "__main__":
    main(sys.argv[1:])
