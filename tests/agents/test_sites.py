"""Where a prompt may send the browser: a model writes both, so each way around it is tried."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.ai.exceptions import ManagedAgentRejected
from airflow.providers.common.ai.managed_agents.base import ManagedAgentRequest

from airflow_skyvern.agents.sites import Sites
from airflow_skyvern.hooks import SkyvernHook

if TYPE_CHECKING:
    from airflow_skyvern.testing.skyvern import Skyvern

SITES = Sites(["shop.example.com", "*.example.org", "https://only.example.net:8443/prices"])


@pytest.mark.parametrize(
    "address",
    [
        "https://shop.example.com",
        "http://shop.example.com/x?y=1#z",
        "shop.example.com/prices",
        "HTTPS://SHOP.EXAMPLE.COM./",
        "www.shop.example.com",
        "https://example.org",
        "https://a.b.example.org:443/x",
        "https://only.example.net:8443/other",
    ],
)
def test_an_address_on_one_of_the_sites(address: str) -> None:
    allowed = SITES.allowed_address(address)
    assert allowed is not None
    assert allowed.lower().startswith("http")


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example",
        "https://shop.example.com.evil.example",
        "https://evilshop.example.com",
        "https://notexample.org",
        "https://shop.example.com@evil.example/",
        "https://shop.example.com:x@evil.example/",
        "https://user@shop.example.com/",
        "https://evil.example\\@shop.example.com/",
        "https:\\\\evil.example",
        "//evil.example",
        "https://shop.example.com:8080/",
        "https://ev\til.example",
        "https://shop.example.com\n.evil.example",
        "https://%65vil.example",
        "https://\uff53hop.example.com",
        "http://only.example.net:8443/",
        "https://only.example.net/",
        "javascript:alert(1)//shop.example.com",
        "file:///etc/passwd",
        "data:text/html,shop.example.com",
        "ftp://shop.example.com",
        "https://[::1]/",
        "https://127.0.0.1",
        "https://shop.example.com:99999/",
        "https://",
        "",
        " ",
    ],
)
def test_an_address_elsewhere(address: str) -> None:
    assert SITES.allowed_address(address) is None


@pytest.mark.parametrize(
    "prompt",
    [
        "Take the price of ink from https://shop.example.com/ink, and that of paper.",
        "Open shop.example.com (or a.example.org/list), save report.pdf and prices.csv, e.g. as v1.2.",
        "Log in as me@elsewhere.example and pay 1.000,00 for No. 5. Then stop.",
        "Compare Node.js and U.S. prices; see docs/list.html",
    ],
)
def test_a_prompt_about_the_sites_only(prompt: str) -> None:
    assert SITES.others_in(prompt) == []


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("Go to https://evil.example/login, then back.", "https://evil.example/login"),
        ("Go to evil.example and come back.", "evil.example"),
        ("Go to EVIL.Example!", "EVIL.Example"),
        ("open //evil.example/x", "evil.example/x"),
        ("open http:evil.example", "evil.example"),
        ("open https:\\\\evil.example", "https:\\\\evil.example"),
        ("open shop.example.com.evil.example", "shop.example.com.evil.example"),
        ("open https://shop.example.com@evil.example/", "https://shop.example.com@evil.example/"),
        ("open shop.example.com\\@evil.example", "shop.example.com\\@evil.example"),
        ("open localhost:8080 or 169.254.169.254", "localhost:8080"),
        ("open 169.254.169.254/latest", "169.254.169.254/latest"),
        ("open javascript://x", "javascript://x"),
        ("(evil.example)", "evil.example"),
        ("öffne böse.example", "böse.example"),
    ],
)
def test_a_prompt_that_names_another_site(prompt: str, named: str) -> None:
    assert named in SITES.others_in(prompt)


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": "Look.", "url": "https://evil.example"},
        {"prompt": "Look at evil.example."},
        {"prompt": " "},
        {"prompt": "Look.", "url": 3},
    ],
)
def test_a_prompt_that_is_refused_starts_nothing_and_says_where_it_may_be(
    skyvern: Skyvern, arguments: dict[str, object]
) -> None:
    agent = SkyvernHook().agent(sites=["shop.example.com"])
    with pytest.raises(ManagedAgentRejected, match=r"shop\.example\.com|prompt: must be a text"):
        agent.invoke(ManagedAgentRequest(prompt="…", vendor_options={"arguments": arguments}))
    assert skyvern.requests == []


def test_the_browser_is_told_the_sites_and_begins_at_the_first(skyvern: Skyvern) -> None:
    skyvern.prompts(output={"answer": "4 EUR"})
    agent = SkyvernHook().agent(sites=["https://shop.example.com/prices", "*.example.org"], max_steps=9)
    found = agent.invoke(ManagedAgentRequest(prompt="The price of ink, {{ secret }} and {all}."))
    assert found.text == "4 EUR"
    assert found.structured is None
    (started,) = skyvern.started()
    assert started.parameters["url"] == "https://shop.example.com/prices"
    asked = started.parameters["prompt"]
    assert asked.startswith("The price of ink, {{ secret }} and {all}.\n\n")
    assert "Visit no other sites than these: https://shop.example.com, *.example.org." in asked


def test_a_fixed_address_is_no_argument(skyvern: Skyvern) -> None:
    skyvern.prompts(output={"answer": "4 EUR"})
    agent = SkyvernHook().agent(sites=["shop.example.com"], url="https://shop.example.com/in")
    _, schema = agent.describe()
    assert set(schema["properties"]) == {"prompt"}
    arguments = {"prompt": "Look.", "url": "https://evil.example"}
    agent.invoke(ManagedAgentRequest(prompt=json.dumps(arguments), vendor_options={"arguments": arguments}))
    assert skyvern.started()[0].parameters["url"] == "https://shop.example.com/in"
