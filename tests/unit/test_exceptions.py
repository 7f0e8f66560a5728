from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_skyvern import exceptions
from airflow_skyvern.client.failures import detail_of
from airflow_skyvern.exceptions import (
    MAX_QUOTE,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernRunCanceled,
    SkyvernRunError,
    SkyvernRunFailed,
    SkyvernRunTerminated,
    SkyvernRunTimedOut,
    error_of_ending,
)
from airflow_skyvern.models import Run


def test_only_no_answer_may_have_arrived_unless_it_is_known_better() -> None:
    assert SkyvernConnectionError.transient
    assert not SkyvernConnectionError("x").never_sent
    assert SkyvernConnectionError("x", never_sent=True).never_sent


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"detail": "Task run not found wr_1"}', "Task run not found wr_1"),
        ('{"error": "Database temporarily unavailable"}', "Database temporarily unavailable"),
        ('{"detail": [{"loc": ["body", "agent_id"], "msg": "Field required"}]}', "agent_id: Field required"),
        (
            '{"detail": [{"loc": ["body"], "msg": "wrong"}, {"loc": ["query", "status", 0], "msg": "no"}]}',
            "wrong; status.0: no",
        ),
        ('{"detail": ["odd"]}', "(no detail)"),
        ('{"detail": {"odd": 1}}', "(no detail)"),
        ('{"detail": ""}', "(no detail)"),
        ("{}", "(no detail)"),
        ("[1]", "(no detail)"),
        ("null", "(no detail)"),
        ("", "(empty body)"),
        ("  \n", "(empty body)"),
        ("<html>\n <h1>502   Bad Gateway</h1></html>", "(not JSON) <html> <h1>502 Bad Gateway</h1></html>"),
    ],
)
def test_every_form_of_an_error_body_is_read(body: str, detail: str) -> None:
    assert detail_of(body) == detail


def test_the_echo_of_the_request_is_left_out() -> None:
    item = {"loc": ["body", "parameters"], "msg": "wrong", "input": "s3cr3t", "ctx": {"given": "s3cr3t"}}
    assert detail_of(json.dumps({"detail": [item]})) == "parameters: wrong"


@pytest.mark.parametrize("body", ["x" * 10_000, json.dumps({"detail": "x" * 10_000})])
def test_a_long_body_is_cut(body: str) -> None:
    assert len(detail_of(body)) <= MAX_QUOTE + len("(not JSON) ")
    assert detail_of(body).endswith("x…")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("failed", SkyvernRunFailed),
        ("terminated", SkyvernRunTerminated),
        ("timed_out", SkyvernRunTimedOut),
        ("canceled", SkyvernRunCanceled),
        ("vanished", SkyvernRunError),
    ],
)
def test_every_bad_ending_has_its_error_which_carries_the_run(status: str, kind: type[SkyvernRunError]) -> None:
    run = Run(run_id="wr_1", status=status, app_url="https://app/runs/wr_1")
    error = error_of_ending(run)
    assert type(error) is kind
    assert error.run is run
    assert str(error) == f"Skyvern run wr_1 ended as {status}. See https://app/runs/wr_1"


def test_a_bad_ending_says_why() -> None:
    fields: dict[str, Any] = {"run_id": "wr_1", "status": "terminated", "failure_reason": "  no\nstock. "}
    run = Run(**fields, errors=[{"error_code": "OUT"}, {"error_code": "SOLD"}], app_url="https://app")
    expected = "Skyvern run wr_1 ended as terminated: no stock. ; error codes OUT, SOLD. See https://app"
    assert str(error_of_ending(run)) == expected


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if found := re.match(r"^ {4}([ │├└─]*)(Skyvern\w+)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else None
    actual = {
        kind.__name__: next((base.__name__ for base in kind.__bases__ if issubclass(base, SkyvernError)), None)
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, SkyvernError)
    }
    assert drawn == actual


def test_the_exported_names_are_the_errors() -> None:
    assert exceptions.__all__ == sorted(
        name for name, kind in vars(exceptions).items() if isinstance(kind, type) and issubclass(kind, SkyvernError)
    )
