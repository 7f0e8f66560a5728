"""
Check what `make dist` has built: python -m dev.release [TAG]

The wheel holds this package and nothing else. Its description, which the package index shows, has no link that works
in the repository only. With a tag, it may be published: the version is the tag's, the changelog has its date, and the
addresses in pyproject.toml are no longer placeholders.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!https://|#)([^)\s]*)")


def problems_of(wheel: Path, changelog: str, tag: str | None) -> Iterator[str]:
    """Yield what is wrong with a wheel, in words."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = message_from_string(archive.read(metadata).decode())
    folders = {name.partition("/")[0] for name in names}
    for folder in sorted(folders - {"airflow_skyvern", metadata.partition("/")[0]}):
        yield f"the wheel holds {folder}, too"
    for link in LINK.findall(str(about.get_payload())):
        yield f"the description links to {link}: see hatch-fancy-pypi-readme in pyproject.toml"
    if tag is not None:
        yield from _not_for_publication(about, changelog, tag)


def _not_for_publication(about: Message, changelog: str, tag: str) -> Iterator[str]:
    version = about["Version"]
    if tag != f"v{version}":
        yield f"the tag is {tag}, the version {version}"
    if not re.search(rf"(?m)^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog):
        yield f"CHANGELOG.md has no line '## {version} (YYYY-MM-DD)'"
    for address in about.get_all("Project-URL", []):
        if "OWNER" in address:
            yield f"the address {address.partition(', ')[2]} in pyproject.toml is a placeholder"


def main(tag: str | None) -> int:
    [wheel] = (ROOT / "dist").glob("*.whl")
    problems = list(problems_of(wheel, (ROOT / "CHANGELOG.md").read_text(), tag))
    print("\n".join(problems) or f"{wheel.name}: fine")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
