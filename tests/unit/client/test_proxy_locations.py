from __future__ import annotations

import pytest

from airflow_skyvern.client.run_request import PROXY_LOCATIONS, checked_name
from airflow_skyvern.testing.fake.checks import PROXY_LOCATIONS as SKYVERNS


def test_the_known_names_are_skyverns() -> None:
    assert set(PROXY_LOCATIONS) == set(SKYVERNS)


@pytest.mark.parametrize("name", ["MARS", "residential", "DE", "RESIDENTIAL_GERMANY", "RESIDENTIAL-DE", "US_CA"])
def test_a_name_that_skyvern_never_had_is_refused_with_those_it_has(name: str) -> None:
    with pytest.raises(ValueError, match=r"no such location.*Known names: RESIDENTIAL"):
        checked_name(name)


@pytest.mark.parametrize("name", [*SKYVERNS, "RESIDENTIAL_XX", "US-NV"])
def test_known_names_and_names_that_look_new_are_taken(name: str) -> None:
    assert checked_name(name) == name
