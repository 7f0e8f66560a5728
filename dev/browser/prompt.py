"""A prompt of Skyvern taken apart: the goal, the block's parameters, and the page with an id on each element."""

from __future__ import annotations

import ast
import contextlib
import html.parser
import json
import re
from dataclasses import dataclass, field
from typing import Any

VOID = ("input", "img", "br", "hr")
FIELDS = ("input", "textarea", "select")
BUTTONS = ("a", "button", "input")


@dataclass
class Element:
    """An element of the page; `labels` are the label elements around it."""

    tag: str
    attributes: dict[str, str]
    labels: list[Element]
    text: str = ""

    @property
    def names(self) -> list[str]:
        """What a person may call it."""
        keys = ("name", "placeholder", "aria-label", "value", "title")
        named = (self.attributes.get(key, "") for key in keys)
        return [name.strip().casefold() for name in (self.text, *(label.text for label in self.labels), *named)]


@dataclass
class _Parser(html.parser.HTMLParser):
    elements: list[Element] = field(default_factory=list)
    rows: list[list[Element]] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        labels = [element for element in self._open if element.tag == "label"]
        element = Element(tag, {key: value or "" for key, value in attrs}, labels)
        self.elements.append(element)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"} and self.rows:
            self.rows[-1].append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


class Page:
    """The page as Skyvern writes it into its prompts."""

    def __init__(self, source: str) -> None:
        self._parser = _Parser()
        self._parser.feed(source)

    def find(self, target: str, *, fields: bool) -> str | None:
        """Return the id of the element that is called so, or else of the first whose name contains it."""
        tags, wanted = FIELDS if fields else BUTTONS, target.casefold()
        candidates = [e for e in self._parser.elements if e.tag in tags and "id" in e.attributes]
        exact = [e for e in candidates if wanted in e.names]
        similar = [e for e in candidates if any(wanted in name for name in e.names)]
        return next((e.attributes["id"] for e in (*exact, *similar)), None)

    def table(self) -> list[dict[str, str]]:
        """Return the rows of the page's tables by their headings."""
        found: list[dict[str, str]] = []
        headings: list[str] = []
        for cells in self._parser.rows:
            texts = [cell.text.strip() for cell in cells]
            if cells and cells[0].tag == "th":
                headings = texts
            else:
                found.append(dict(zip(headings, texts, strict=False)))
        return found


class Prompt:
    """The parts of a prompt that rules look at."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.goal = self._section("User goal") or self._section("Complete Criterion")
        self.parameters = _flat(self._json("User details"))
        page = re.search(
            r"(?:Clickable elements|Elements on the page|HTML elements)[^\n]*:\n(?:```\n)?(.*?)\n```", text, re.DOTALL
        )
        history = re.search(r"(?ims)^Action history[^\n]*:\n(?:```\n)?(\[.*?)\n", text)
        address = re.search(r"Current URL: (\S+)", text)
        self.page = Page(page[1] if page else "")
        self.seen = "\n".join(found[1] for found in (address, page, history) if found)

    @property
    def seen_text(self) -> str:
        """What is seen, without tags."""
        return re.sub(r"<[^>]+>", "\n", self.seen)

    def _section(self, heading: str) -> str:
        found = re.search(rf"(?ims)^{heading}:\s*```\n(.*?)\n```", self.text)
        return found[1].strip() if found else ""

    def _json(self, heading: str) -> Any:
        with contextlib.suppress(ValueError):
            return json.loads(self._section(heading))
        return {}

    def value_after(self, pattern: str) -> Any:
        """Return the mapping that follows these words; Skyvern writes some as JSON and some as Python."""
        found = re.search(rf"(?is){pattern}:\s*(?:```)?\s*(\{{.*?\}})\s*\n", self.text)
        if found is None:
            return None
        with contextlib.suppress(ValueError):
            return json.loads(found[1])
        return ast.literal_eval(found[1])


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """{"login": {"username": "a"}} -> {"username": "a"}."""
    if not isinstance(value, dict):
        return {key: value}
    return {inner: item for name, nested in value.items() for inner, item in _flat(nested, name).items()}
