"""Hooks of mkdocs, named in mkdocs.yml: pages made from other files, and links to files outside of `docs/`."""

from __future__ import annotations

import ast
import posixpath
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
    "<!-- number of endpoints -->": endpoints.counted,
    "<!-- table of messages -->": messages.table,
}
OUTSIDE = {  # pages of the site that are files outside of docs/
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "dags/README.md": "examples/index.md",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])[^)#\s]+")
SEARCH_WORKER = re.compile(r"assets/(javascripts/workers/search\.\w+\.min\.js)")
BOOSTS = {
    "reference/": 0.3,
    "examples/": 0.4,
    "changelog.md": 0.2,
    "contributing.md": 0.2,
    "conventions.md": 0.2,
    "security.md": 0.3,
}
"""How much the search thinks of pages: those that answer a question come before those that list everything."""

DAG_FILE = re.compile(r"^<!-- (dags/\w+\.py) -->$", re.MULTILINE)
COMMENT = re.compile(r"^<!--.*?-->\n?", re.DOTALL | re.MULTILINE)


def on_config(config: Any) -> Any:
    """Take the address of the site from pyproject.toml, which has it once the package is published."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    config.site_url = urls.get("Documentation")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made of files outside of `docs/`."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for path in sorted((ROOT / "dags").glob("*.py")):
        files.append(File.generated(config, f"examples/{path.stem}.md", content=example(path)))
    results = ROOT / "benchmarks" / "results.json"
    files.append(File.generated(config, "benchmarks/results.json", content=results.read_text()))
    return files


def example(path: Path) -> str:
    """Return the page of an example: its docstring, then its code."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return f"# {path.name}\n\n{docstring}\n\n{code_of(path)}\n"


def code_of(path: Path) -> str:
    """Return the code of an example below its docstring, as a block."""
    text = path.read_text()
    code = "".join(text.splitlines(keepends=True)[ast.parse(text).body[0].end_lineno :]).strip()
    return f'```python title="dags/{path.name}"\n{code}\n```'


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in tables, show diagrams as images, and lead links to where their targets are on the site."""
    uri = page.file.src_uri
    for begin, boost in BOOSTS.items():
        if uri.startswith(begin):
            page.meta.setdefault("search", {"boost": boost})
    for mark, table in TABLES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    markdown = DAG_FILE.sub(lambda found: code_of(ROOT / found[1]), markdown)
    markdown = LINK.sub(lambda found: link_on_site(found[0], uri), COMMENT.sub("", markdown))
    up = "../" * uri.count("/")
    return BLOCK.sub(lambda found: f"![Diagram]({up}images/diagrams/{image_of(found[1])})", markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Let the search of the theme run in the worker of docs/assets/search.js, which prepares the questions."""
    return SEARCH_WORKER.sub(r"assets/search.js?worker=\1", output)


def link_on_site(link: str, uri: str) -> str:
    """Return the link of a page as the site needs it; one to a file that is not on the site stays, to be reported."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source_of(uri)), link))
    return posixpath.relpath(page_of(target) or posixpath.join(posixpath.dirname(uri), link), posixpath.dirname(uri))


def source_of(uri: str) -> str:
    """Return the file of the repository from which a page is made."""
    for source, page in OUTSIDE.items():
        if page == uri:
            return source
    example = re.fullmatch(r"examples/(\w+)\.md", uri)
    return f"dags/{example[1]}.py" if example else f"docs/{uri}"


def page_of(source: str) -> str | None:
    """Return where a file of the repository is on the site."""
    if source in OUTSIDE or source == "README.md":
        return OUTSIDE.get(source, "index.md")
    if found := re.fullmatch(r"dags/(\w+)\.py", source):
        return f"examples/{found[1]}.md"
    if source.startswith("benchmarks/"):
        return source
    return source.removeprefix("docs/") if source.startswith("docs/") else None
