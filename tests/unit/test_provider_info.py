from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_skyvern.hooks import SkyvernHook, settings_of
from airflow_skyvern.provider_info import CONNECTION_TYPE, get_provider_info

INFO = get_provider_info()
ROOT = Path(__file__).parents[2]


def test_airflow_accepts_what_the_provider_says_of_itself() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_every_module_that_is_named_is_there(kind: str) -> None:
    [entry] = INFO[kind]
    assert entry["integration-name"] == INFO["integrations"][0]["integration-name"]
    for module in entry["python-modules"]:
        import_module(module)


def test_every_class_that_is_named_is_there() -> None:
    assert imported(CONNECTION_TYPE["hook-class-name"]) is SkyvernHook
    for path in INFO["extra-links"]:
        assert imported(path).name == "Skyvern run"


def test_hook_and_metadata_agree_about_the_connection() -> None:
    assert CONNECTION_TYPE["connection-type"] == SkyvernHook.conn_type
    assert CONNECTION_TYPE["hook-name"] == SkyvernHook.hook_name


def test_the_form_has_the_extras_that_the_hook_reads() -> None:
    fields = CONNECTION_TYPE["conn-fields"]
    assert set(fields) == {"timeout", "proxy", "app_url", "verify"}
    filled = json.dumps({"timeout": 5, "proxy": "http://p:1", "verify": False, "app_url": "https://ui"})

    class Stored:
        conn_id, password, login, host, port, schema, extra = "c", "k", None, None, None, None, filled

    stored: Any = Stored
    settings = settings_of(stored)
    assert (settings.timeout, settings.proxy, settings.verify) == (5.0, "http://p:1", False)
    assert settings.app_url == "https://ui"


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_airflows_page_of_providers_links_to_this_documentation() -> None:
    found = ProvidersManager().providers["airflow-provider-skyvern"].data
    address = re.findall(r'^Documentation = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    if address and "documentation-url" not in found:
        pytest.skip("this Airflow makes the link itself")
    assert (
        found.get("documentation-url") or ""
    ).split() == address  # 3.1 leaves a space; none before it is published
