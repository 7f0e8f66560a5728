from __future__ import annotations

from collections import UserList
from typing import Any

import pytest

from airflow_skyvern.client.api import start_run
from airflow_skyvern.client.run_request import RunRequest, decoded
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.runs.key import OUR_TAGS, check_metadata


def test_a_request_says_only_what_was_given() -> None:
    assert RunRequest.of({"workflow_id": "wpid_1", "title": None}).body() == {"workflow_id": "wpid_1"}
    full = RunRequest.of(
        {"workflow_id": " wpid_1 ", "parameters": {"vendor": "ACME"}, "proxy_location": {"country": "US"}},
        {"max_elapsed_time_minutes": 30, "run_metadata": {"team": "ops"}, "ai_fallback": False},
    )
    assert full.body() == {
        "workflow_id": "wpid_1",
        "parameters": {"vendor": "ACME"},
        "proxy_location": {"country": "US"},
        "max_elapsed_time_minutes": 30,
        "run_metadata": {"team": "ops"},
        "ai_fallback": False,
    }


def test_the_limit_of_steps_is_a_header_of_the_start_and_no_part_of_the_key() -> None:
    limited = RunRequest.of({"workflow_id": "w"}, {"max_steps": "7"})
    assert limited.body() == {"workflow_id": "w"}
    assert start_run(limited).headers == {"x-max-steps-override": "7"}
    assert start_run(RunRequest.of({"workflow_id": "w"})).headers == {}
    for wrong in (0, True, "many"):
        with pytest.raises(SkyvernConfigError, match=r"run_options.max_steps"):
            RunRequest.of({"workflow_id": "w"}, {"max_steps": wrong})


def test_tuples_and_lazy_lists_of_xcoms_are_sent_as_lists() -> None:
    request = RunRequest.of({"workflow_id": "w", "parameters": {"a": (1, UserList(["x"])), "b": {"c": (2,)}}})
    assert request.body()["parameters"] == {"a": [1, ["x"]], "b": {"c": [2]}}


def test_null_among_the_parameters_is_sent() -> None:
    assert RunRequest.of({"workflow_id": "w", "parameters": {"a": None}}).body()["parameters"] == {"a": None}


@pytest.mark.parametrize(
    ("fields", "options", "complaint"),
    [
        ({"workflow_id": ""}, None, "workflow_id: String should have at least 1 character"),
        ({"workflow_id": None}, None, "workflow_id: Input should be a valid string"),
        ({"parameters": {"a": b"x"}}, None, "parameters.a: bytes is not valid JSON; decode it"),
        (
            {"parameters": {"items": [1, {"when": object()}]}},
            None,
            r"parameters.items\[1\].when: object is not valid JSON",
        ),
        ({"proxy_location": "MARS"}, None, "proxy_location: no such location. Known names: RESIDENTIAL, "),
        ({"proxy_location": "residential_de"}, None, "no such location. Did you mean RESIDENTIAL_DE?"),
        ({"parameters": ["a"]}, None, "parameters: Input should be a valid dictionary"),
        ({"webhook_url": "  "}, None, "webhook_url: String should have at least 1 character"),
        (
            {},
            {"max_elapsed_time_minutes": 481},
            "run_options.max_elapsed_time_minutes: .* less than or equal to 480",
        ),
        (
            {},
            {"max_elapsed_time_minutes": 0},
            "run_options.max_elapsed_time_minutes: .* greater than or equal to 1",
        ),
        ({}, {"max_elapsed_time_minutes": True}, "run_options.max_elapsed_time_minutes: .* not a boolean"),
        ({}, {"max_screenshot_scrolls": -1}, "run_options.max_screenshot_scrolls"),
        ({}, {"run_with": "magic"}, "run_options.run_with: Input should be 'agent' or 'code'"),
        ({}, {"run_metadata": {"a": [1]}}, "run_options.run_metadata.a: Input should be a valid string"),
        ({}, {"run_metadata": {"k" * 65: "v"}}, "run_options.run_metadata"),
        ({}, {"run_metadata": {"k": "v" * 257}}, "run_options.run_metadata.k: .* at most 256"),
        ({}, {"run_metadata": {str(n): "" for n in range(21)}}, "run_options.run_metadata: .* at most 20"),
        ({}, {"file_ids": ["f"] * 51}, "run_options.file_ids: .* at most 50"),
        ({}, {"ai_fallbck": True}, "run_options.ai_fallbck: no such option. Did you mean ai_fallback?"),
        ({}, {"zzz": 1}, "run_options.zzz: no such option. Known options: ai_fallback, browser_address"),
        ({}, {"title": "x"}, "run_options: pass title as an argument of its own"),
        ({}, ["run_with"], "run_options must be a mapping, not list"),
        (
            {"browser_session_id": "pbs_1"},
            {"start_fresh_browser": True},
            "start_fresh_browser cannot be combined",
        ),
        ({"browser_profile_id": "bp_1"}, {"start_fresh_browser": True}, "combined with browser_profile_id"),
        ({"browser_session_id": "pbs_1"}, {"browser_type": "chrome"}, "browser_type cannot be combined"),
    ],
)
def test_a_wrong_request_names_the_field_and_what_would_be_right(
    fields: dict[str, Any], options: Any, complaint: str
) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        RunRequest.of({"workflow_id": "wpid_1", **fields}, options)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(SkyvernConfigError) as caught:
        RunRequest.of({"workflow_id": "", "parameters": {"a": b"", "b": b""}}, {"run_with": "magic", "nonsense": 1})
    names = ("workflow_id", "parameters.a", "parameters.b", "run_with", "nonsense")
    assert all(name in str(caught.value) for name in names)


def test_a_location_that_looks_new_is_sent_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    request = RunRequest.of({"workflow_id": "w", "proxy_location": " RESIDENTIAL_QQ "})
    assert request.body()["proxy_location"] == "RESIDENTIAL_QQ"  # once per name and process
    assert "'RESIDENTIAL_QQ' is not among the names" in caplog.text


def test_a_complaint_does_not_repeat_the_values() -> None:
    secret = {"password": b"s3cr3t-value", ("s3cr3t-name",): 1}
    with pytest.raises(SkyvernConfigError) as caught:
        RunRequest.of({"workflow_id": "w", "parameters": secret}, {"run_with": "s3cr3t-value"})
    assert "s3cr3t-value" not in str(caught.value)
    assert caught.value.__context__ is None  # pydantic's error holds the values


def test_the_users_metadata_leaves_room_for_the_key() -> None:
    check_metadata(None)
    check_metadata({str(n): "" for n in range(14)})
    with pytest.raises(SkyvernConfigError, match="at most 14 entries, as the provider adds 6 of the 20"):
        check_metadata({str(n): "" for n in range(15)})


@pytest.mark.parametrize("name", sorted(OUR_TAGS))
def test_the_users_metadata_must_not_use_our_names(name: str) -> None:
    with pytest.raises(SkyvernConfigError, match=f"{name} is used by the provider"):
        check_metadata({name: "x"})


def test_rendered_text_is_read_as_json_and_everything_else_is_left() -> None:
    assert decoded("parameters", '{"a": [1]}') == {"a": [1]}
    assert decoded("parameters", {"a": "{not json"}) == {"a": "{not json"}
    with pytest.raises(SkyvernConfigError, match="parameters: must be a mapping, JSON text, a template of one"):
        decoded("parameters", "{not json")


def test_a_number_that_native_rendering_made_of_metadata_is_text_again() -> None:
    request = RunRequest.of({"workflow_id": "w"}, {"run_metadata": {"month": 7, "share": 0.5, "team": "ops"}})
    assert request.run_metadata == {"month": "7", "share": "0.5", "team": "ops"}
