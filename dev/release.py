"""
Check what `make dist` has built: python -m dev.release [TAG]

The wheel holds this package and nothing else. Its description, which the package index shows, has no link that works
in the repository only. With a tag, it may be published: the version is the tag's, the changelog has its date, and the
documents say how to install what is published.

The switch, `make published OWNER=account`: python -m dev.release --published ACCOUNT

Until the package is on the package index, and its repository has an address, README, documents and pyproject.toml
have two forms of what depends on that, one below the other. The switch leaves the second:

    <!-- until it is published -->          # until it is published
    pip install .                           pattern = …
    <!-- once it is published               # once it is published
    pip install airflow-provider-skyvern    # pattern = …
    -->                                     # end
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
DOCUMENTS = ("README.md", "docs/*.md")
IN_MARKDOWN = re.compile(
    r"(?:^<!-- until it is published -->\n(?:(?!<!-- )[^\n]*\n)*?)?^<!-- once it is published\n(.*?)^-->\n",
    re.MULTILINE | re.DOTALL,
)
IN_TOML = re.compile(
    r"(?:^# until it is published[^\n]*\n(?:(?!# once )[^\n]*\n)*?)?^# once it is published\n(.*?)^# end\n",
    re.MULTILINE | re.DOTALL,
)
PENDING = re.compile(r"^(?:<!-- |# )(?:until|once) it is published", re.MULTILINE)
LINK = re.compile(r"\]\((?!https://|#)([^)\s]*)")


def problems_of(wheel: Path, changelog: str, tag: str | None) -> Iterator[str]:
    """Yield what is wrong with a wheel, in words."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = message_from_string(archive.read(metadata).decode())
    folders = {name.partition("/")[0] for name in names}
    for folder in sorted(folders - {"airflow_skyvern", "airflow_provider_skyvern.py", metadata.partition("/")[0]}):
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
    if not (addresses := about.get_all("Project-URL", [])):
        yield "pyproject.toml has no addresses: run make published OWNER=<account on GitHub>"
    for address in addresses:
        if "OWNER" in address:
            yield f"the address {address.partition(', ')[2]} in pyproject.toml is a placeholder"


def published(text: str, form: re.Pattern[str], owner: str) -> str:
    """Return a document, or pyproject.toml, in the form that it has once the package is published."""

    def second_form(found: re.Match[str]) -> str:
        lines = found[1] if form is IN_MARKDOWN else re.sub(r"^# ?", "", found[1], flags=re.MULTILINE)
        return lines.replace("OWNER", owner)

    return form.sub(second_form, text)


def publish(root: Path, owner: str) -> list[Path]:
    """Turn the switch: write all files of a repository in their published form, and return those that changed."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", owner) or owner == "OWNER":
        raise SystemExit("Name the account on GitHub: make published OWNER=<account>")
    changed = []
    for path in (root / "pyproject.toml", *(path for pattern in DOCUMENTS for path in sorted(root.glob(pattern)))):
        text = path.read_text()
        new = published(text, IN_TOML if path.suffix == ".toml" else IN_MARKDOWN, owner)
        if new != text:
            path.write_text(new)
            changed.append(path)
    return changed


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--published"]:
        print("\n".join(str(path.relative_to(ROOT)) for path in publish(ROOT, "".join(arguments[1:]))))
        return 0
    [wheel] = (ROOT / "dist").glob("*.whl")
    tag = arguments[0] if arguments else None
    problems = list(problems_of(wheel, (ROOT / "CHANGELOG.md").read_text(), tag))
    print("\n".join(problems) or f"{wheel.name}: fine")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
