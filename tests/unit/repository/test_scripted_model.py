"""The scripted model answers Skyvern's questions by its rules, and the portal has what the rules look for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dev.browser.chromium import require_chromium
from dev.browser.scripted_model import ScriptedModel, answer
from dev.browser.site import DEMO_PASSWORD, DEMO_USER, Site, pdf
from dev.process import RigError

NEXT = "Identify actions to help user progress towards the user goal"
LOGIN = """<label>User name <input id=AA name=username></label><label>Password <input id=AB name=password></label>
<button id=AC>Sign in</button>"""


def prompt(phrase: str, goal: str, page: str, **details: Any) -> str:
    parts = (f"{phrase}\n", f"User goal:\n```\n{goal}\n```\n", f"User details:\n```\n{json.dumps(details)}\n```\n")
    return "".join((*parts, f"Clickable elements from the page:\n```\n{page}\n```\n"))


def kinds(text: str) -> list[tuple[str, str | None]]:
    return [(action["action_type"], action["id"]) for action in answer(text)[1]["actions"]]


def test_a_login_form_is_filled_in_with_the_parameters_of_the_block() -> None:
    text = prompt(NEXT, "Log in with the given user name.", LOGIN, login={"username": "ann"}, password="pw")
    assert kinds(text) == [("INPUT_TEXT", "AA"), ("INPUT_TEXT", "AB"), ("CLICK", "AC")]
    assert [action.get("text") for action in answer(text)[1]["actions"]] == ["ann", "pw", None]


@pytest.mark.parametrize(
    ("goal", "page", "kind"),
    [
        ("Log in.", "<p>Signed in as demo.</p>", "COMPLETE"),
        ("Log in.", f"<p>Wrong user name or password.</p>{LOGIN}", "TERMINATE"),
        ("Download the invoice INV-9.", "<a id=AA>Download INV-1 PDF</a>", "TERMINATE"),
        ("Book a flight to the moon.", LOGIN, "TERMINATE"),
    ],
)
def test_what_is_reached_or_cannot_be_reached_ends_the_block(goal: str, page: str, kind: str) -> None:
    assert kinds(prompt(NEXT, goal, page)) == [(kind, None)]


def test_a_schema_is_filled_from_table_and_text() -> None:
    row = {"type": "object", "properties": {"invoice": {"type": "string"}, "amount": {"type": "number"}}}
    schema = {"total_open": {"type": "number"}, "invoices": {"type": "array", "items": row}}
    page = "<table><tr><th>Invoice</th><th>Amount</th></tr><tr><td>INV-1</td><td>1,250.00</td></tr></table>"
    text = prompt(
        "extract the requested information from the screenshot", "", f"{page}<p>Total open: 4,480.49 EUR</p>"
    )
    asked = f"{text}JSON schema format:\n```\n{json.dumps({'type': 'object', 'properties': schema})}\n```\n"
    name, filled = answer(asked)
    assert name == "extract-information"
    assert filled == {"total_open": 4480.49, "invoices": [{"invoice": "INV-1", "amount": 1250.0}]}
    as_of_pydantic = {"type": "array", "items": {"$ref": "#/$defs/Row"}, "$defs": {"Row": row}}
    asked = f"{text}JSON schema format:\n```\n{json.dumps(as_of_pydantic)}\n```\n"
    assert answer(asked)[1] == [{"invoice": "INV-1", "amount": 1250.0}]


def test_the_model_speaks_the_protocol_of_chat_completions() -> None:
    model = ScriptedModel().start()
    content = [{"type": "text", "text": prompt(NEXT, "Log in.", LOGIN)}, {"type": "image_url", "image_url": {}}]
    body = {"model": "scripted", "messages": [{"role": "user", "content": content}]}
    completed = httpx.post(f"{model.url}/chat/completions", json=body, trust_env=False).json()
    model.stop()
    assert json.loads(completed["choices"][0]["message"]["content"])["user_goal_achieved"] is False
    assert [name for name, _, _ in model.asked] == ["extract-action"]


@pytest.fixture
def portal() -> Iterator[httpx.Client]:
    site = Site().start()
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        yield client
    site.stop()


@pytest.mark.slow
def test_the_invoices_need_a_login(portal: httpx.Client) -> None:
    assert portal.get("/invoices").headers["location"] == "/login"
    refused = portal.post("/login", data={"username": DEMO_USER, "password": "wrong"})
    assert "Wrong user name or password" in refused.text
    assert portal.post("/login", data={"username": DEMO_USER, "password": DEMO_PASSWORD}).status_code == 303
    assert "Signed in as demo" in portal.get("/invoices").text


@pytest.mark.slow
def test_the_portal_hands_out_files_and_takes_one(portal: httpx.Client) -> None:
    file = portal.get("/invoices/INV-1001.pdf?size=50KB")
    assert (len(file.content), file.content[:5]) == (50 * 1024, b"%PDF-")
    assert file.headers["content-disposition"] == 'attachment; filename="INV-1001.pdf"'
    assert len(portal.get("/invoices.csv").text.splitlines()) == 4
    taken = portal.post("/upload", files={"receipt": ("r.txt", b"paid\n")})
    assert "Name: r.txt" in taken.text
    assert "Size: 5 bytes" in taken.text
    assert (portal.get("/fail").status_code, portal.get("/nothing").status_code) == (500, 404)


def test_a_pdf_points_to_its_objects() -> None:
    content = pdf("Invoice")
    table = content.rindex(b"xref\n", 0, content.rindex(b"startxref"))
    assert int(content.split()[-2]) == table
    first = int(content[table:].splitlines()[3].split()[0])
    assert content[first:].startswith(b"1 0 obj")


def test_a_missing_chromium_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RigError, match="apt-get install --yes --no-install-recommends chromium"):
        require_chromium()
