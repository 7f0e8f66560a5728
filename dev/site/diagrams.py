"""
Draw the diagrams of docs/ as images for the site: python -m dev.site.diagrams

GitHub draws ```mermaid blocks itself; the site loads no script of another host, and shows the images in
docs/images/diagrams/ instead. An image is called after the hash of its source, so a diagram that was changed and not
drawn fails `make docs`.

Needs npm, which fetches Mermaid into a temporary folder, and Chromium ($CHROMIUM, default /usr/bin/chromium).
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
IMAGES = DOCS / "images" / "diagrams"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
BLOCK = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)

PAGE = """<!doctype html><meta charset="utf-8"><pre class="mermaid">{source}</pre><script src="{script}"></script>
<script>mermaid.initialize({{startOnLoad: true, theme: "neutral", fontFamily: "sans-serif"}});</script>"""


def image_of(source: str) -> str:
    """Return the file name of a diagram's image."""
    return f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def main() -> None:
    wanted = {image_of(source): source for page in DOCS.rglob("*.md") for source in BLOCK.findall(page.read_text())}
    IMAGES.mkdir(exist_ok=True)
    for image in IMAGES.glob("*.svg"):
        if image.name not in wanted:
            image.unlink()
    missing = {name: source for name, source in wanted.items() if not (IMAGES / name).exists()}
    with tempfile.TemporaryDirectory() as folder:
        script = fetch_mermaid(Path(folder)) if missing else Path()
        for name, source in missing.items():
            (IMAGES / name).write_text(draw(source, script, Path(folder)))
            print(f"drawn: {name}")


def fetch_mermaid(folder: Path) -> Path:
    subprocess.run(["npm", "pack", "--silent", "mermaid@11"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        files.extract("package/dist/mermaid.min.js", folder, filter="data")
    return folder / "package" / "dist" / "mermaid.min.js"


def draw(source: str, script: Path, folder: Path) -> str:
    page = folder / "diagram.html"
    page.write_text(PAGE.format(source=html.escape(source), script=script.as_uri()))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    drawn = subprocess.run([CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, check=True).stdout
    found = re.search(r"<svg.*?</svg>", drawn, re.DOTALL)
    if found is None or "Syntax error" in drawn:
        raise SystemExit(f"Mermaid did not draw this:\n{source}")
    return as_file(found[0])


def as_file(svg: str) -> str:
    """Return an SVG of a page as a file of its own: XML, with the size that its view box says."""
    xml = svg.replace("<br>", "<br/>").replace("&nbsp;", "&#160;")
    head, _, rest = xml.partition(">")
    width, height = re.findall(r"[-\d.]+", re.findall(r'viewBox="([^"]*)"', head)[0])[2:]
    head = re.sub(r' (?:width|style)="[^"]*"', "", head)
    return f'{head} width="{width}" height="{height}">{rest}\n'


if __name__ == "__main__":
    main()
