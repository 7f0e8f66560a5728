from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import UserList, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from airflow_skyvern.client.json_values import json_of
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.runs.key import RunKey


class Vendor(str, Enum):
    ACME = "acme"


class Level(IntEnum):
    HIGH = 3


class Invoice(BaseModel):
    number: UUID
    due: date
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass
class Account:
    name: str
    opened: date


class Login(BaseModel):
    password: SecretStr


Point = namedtuple("Point", "x y")  # noqa: PYI024  what a DAG author may pass
NUMBER = UUID(int=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), "2026-01-02T03:04:00+00:00"),
        (pendulum.datetime(2026, 1, 2, tz="Europe/Berlin"), "2026-01-02T00:00:00+01:00"),
        (pendulum.date(2026, 1, 2), "2026-01-02"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (Decimal("12.50"), "12.50"),
        (NUMBER, str(NUMBER)),
        (Path("/a/b"), "/a/b"),
        (PurePosixPath("a"), "a"),
        (Vendor.ACME, "acme"),
        (Level.HIGH, 3),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({3, 1, "2"}), ["2", 1, 3]),
        ((1, (2,)), [1, [2]]),
        (UserList(["x"]), ["x"]),
        (Point(1, 2), [1, 2]),
        ({Vendor.ACME: date(2026, 1, 2)}, {"acme": "2026-01-02"}),
        (
            Invoice(number=NUMBER, due=date(2026, 1, 2), tags=frozenset({"b", "a"})),
            {"number": str(NUMBER), "due": "2026-01-02", "tags": ["a", "b"]},
        ),
        ([Account("A", date(2026, 1, 2))], [{"name": "A", "opened": "2026-01-02"}]),
        (None, None),
        (True, True),
    ],
)
def test_values_of_python_become_json(value: Any, expected: Any) -> None:
    converted = json_of(value, "parameters")
    assert converted == expected
    assert type(converted) is type(expected)
    json.dumps(converted, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"items": [0, 1, 2, {"when": object()}]}, "parameters.items[3].when: object is not valid JSON"),
        ({"wait": timedelta(1)}, "parameters.wait: timedelta is not valid JSON; pass its total_seconds()"),
        ({"file": b"x"}, "parameters.file: bytes is not valid JSON; decode it"),
        ({"rows": (n for n in range(2))}, "parameters.rows: generator is not valid JSON; make a list of it"),
        ({"ratio": float("nan")}, "parameters.ratio: nan is not valid JSON"),
        ({"a": {1: "x"}}, "parameters.a: names are text in JSON, not int"),
        ({"kind": Account}, "parameters.kind: type is not valid JSON"),
        ({"login": Login(password=SecretStr("s3cr3t"))}, "parameters.login.password: SecretStr is not valid JSON"),
    ],
)
def test_what_has_no_form_in_json_is_named_with_its_path_and_type(value: Any, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError) as caught:
        json_of(value, "parameters")
    assert complaint in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_what_is_known_later_is_left_as_it_is() -> None:
    later = object()
    assert json_of({"a": later, "b": (1,)}, "p", skip=lambda value: value is later) == {"a": later, "b": [1]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@given(JSON)
def test_what_is_json_already_stays_what_it_is(value: Any) -> None:
    assert json_of(value, "parameters") == value


OTHER_HASHES = """
from tests.unit.client.test_json_values import key_of_sets
print(key_of_sets())
"""


def key_of_sets() -> str:
    parameters = {"vendors": {"ACME", "Globex", "Initech", "Umbrella"}, "kinds": {Vendor.ACME, Level.HIGH}}
    request = RunRequest.of({"workflow_id": "wpid_1", "parameters": parameters})
    names: dict[str, Any] = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0, "max_tries": 1}
    return RunKey.of(**names, request=request).group


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_the_key_of_a_run_is_the_same_in_every_process(seed: str) -> None:
    root = Path(__file__).parents[3]
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_HASHES], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == key_of_sets()
