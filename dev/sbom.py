"""
Check and complete what `make sbom` has listed: python -m dev.sbom FILE

The file, in the form of CycloneDX, has every package of an installation of this package beside Airflow, with its
licences. Each has to have one that lets people use it with software under any licence.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_skyvern import __version__

FREE = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "License :: OSI Approved :: Apache Software License",
        "License :: OSI Approved :: Artistic License",
        "License :: OSI Approved :: BSD License",
        "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
    }
)
"""Licences that ask for no more than a notice, or for changes of their own files only."""

STATED_ELSEWHERE = {"protobuf": "BSD-3-Clause"}
"""Licences of packages whose metadata have none; they are in the packages' files."""


def licences_of(component: Mapping[str, Any]) -> list[str]:
    """Return the licences among which users of a package may choose, by name or as an expression."""
    found = []
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        found.append(str(entry.get("expression") or licence.get("id") or licence.get("name")))
    return found or [STATED_ELSEWHERE[name] for name in (component["name"],) if name in STATED_ELSEWHERE]


def is_free(licence: str) -> bool:
    """Return whether a licence, or an expression of several, lets everybody use the package."""
    choices = licence.split(" OR ")
    return licence in FREE or any(all(part.strip(" ()") in FREE for part in one.split(" AND ")) for one in choices)


def problems_of(bom: Mapping[str, Any]) -> Iterator[str]:
    """Yield which packages nobody may be sure to be allowed to use, in words."""
    for component in bom.get("components", []):
        licences = licences_of(component)
        if not any(map(is_free, licences)):
            yield f"{component['name']} {component.get('version')}: {', '.join(licences) or 'it names no licence'}"


def completed(bom: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return it with the version of this package, which pyproject.toml leaves to the code."""
    metadata = bom["metadata"]
    name = metadata["component"]["name"]
    component = {**metadata["component"], "version": version, "purl": f"pkg:pypi/{name}@{version}"}
    return {**bom, "metadata": {**metadata, "component": component}}


def main(arguments: list[str]) -> int:
    [file] = map(Path, arguments)
    bom = completed(json.loads(file.read_text()), __version__)
    file.write_text(json.dumps(bom, indent=2) + "\n")
    problems = list(problems_of(bom))
    print("\n".join(problems) or f"{file}: {len(bom['components'])} packages, each with a licence that may be used")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
