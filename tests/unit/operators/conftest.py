from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
