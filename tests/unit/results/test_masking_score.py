"""
The score of masking on two corpora, tests/unit/results/corpora: data that must survive, and secrets that must go.

Secrets are made anew for each round, so no rule can know them by heart.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from airflow_skyvern.results.masking import OutputMasker
from tests.support.masking import data, secrets

ROUNDS = 5


def masked(value: Any) -> Any:
    return OutputMasker().masked(deepcopy(value))


@pytest.mark.slow
def test_data_survives() -> None:
    lost = {json.dumps(case.value): masked(case.value) for case in data() if masked(case.value) != case.value}
    assert lost == {}, f"{len(data()) - len(lost)} of {len(data())} survive"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_secrets_go_and_what_stands_beside_them_stays(seed: int) -> None:
    cases = secrets(seed)
    leaks = {json.dumps(case.value): found for case in cases if (found := case.leaks(masked(case.value)))}
    assert leaks == {}, f"{len(cases) - len(leaks)} of {len(cases)} go"


def test_each_case_of_secrets_holds_one() -> None:
    assert [case.value for case in secrets(0) if not case.made] == []


@pytest.mark.slow
@pytest.mark.parametrize("cases", [data(), secrets(0)])
def test_masking_again_changes_nothing(cases: Any) -> None:
    once = [masked(case.value) for case in cases]
    assert [masked(value) for value in once] == once


def test_the_docs_have_the_score() -> None:
    text = (Path(__file__).parents[3] / "docs" / "output.md").read_text()
    found = re.search(r"\| (\d+) of (\d+) \| (\d+) of (\d+), in each of (\w+) rounds \|", text)
    assert found is not None
    assert [int(number) for number in found.groups()[:4]] == [len(data())] * 2 + [len(secrets(0))] * 2
