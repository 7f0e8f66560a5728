"""Hooks of mkdocs, named in mkdocs.yml: pages made from other files, and links to files outside of `docs/`."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import tomllib
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from dev.site import endpoints, messages  # noqa: E402  found by the line above
from dev.site.diagrams import BLOCK, image_of  # noqa: E402

TABLES = {
    "<!-- table of endpoints -->": endpoints.table,
    "<!-- table of endpoints left out -->": endpoints.table_of_left_out,
    "<!-- table of messages -->": messages.table,
}
OUTSIDE = {  # as documents in docs/ name it: where it is on the site
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
    "../dags/README.md": "examples/index.md",
    "../README.md": "index.md",
}


def on_config(config: Any) -> Any:
    """Take the addresses of the project from pyproject.toml, the one place that has them."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    config.site_url = urls["Documentation"]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made of files outside of `docs/`."""
    for outside, page in OUTSIDE.items():
        source = ROOT / outside.removeprefix("../")
        if files.get_file_from_path(page) is None and source.exists():
            files.append(File.generated(config, page, content=source.read_text()))
    for path in sorted((ROOT / "dags").glob("*.py")):
        files.append(File.generated(config, f"examples/{path.stem}.md", content=example(path)))
    results = ROOT / "benchmarks" / "results.json"
    files.append(File.generated(config, "benchmarks/results.json", content=results.read_text()))
    return files


def example(path: Path) -> str:
    """Return the page of an example: its docstring, then its code."""
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree) or ""
    code = "".join(path.read_text().splitlines(keepends=True)[tree.body[0].end_lineno :]).strip()
    return f'# {path.name}\n\n{docstring}\n\n```python title="dags/{path.name}"\n{code}\n```\n'


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in tables, show diagrams as images, and lead links to where their targets are on the site."""
    up = "../" * page.file.src_uri.count("/")
    if page.file.src_uri in {"changelog.md", "contributing.md", "security.md"}:
        markdown = markdown.replace("](docs/", "](").replace("](SECURITY.md", "](security.md")
    if page.file.src_uri.startswith("examples/"):
        markdown = re.sub(r"\]\((\w+)\.py\)", r"](\1.md)", markdown).replace("](../docs/", "](../")
    for outside, inside in OUTSIDE.items():
        markdown = markdown.replace(f"]({outside}", f"]({up}{inside}")
    markdown = re.sub(r"\]\(\.\./dags/(\w+)\.py\)", rf"]({up}examples/\1.md)", markdown)
    markdown = markdown.replace("](../benchmarks/", f"]({up}benchmarks/")
    for mark, table in TABLES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return BLOCK.sub(lambda found: f"![Diagram]({up}images/diagrams/{image_of(found[1])})", markdown)
