"""
What Airflow's AI provider says a vendor's agent is.

It is an extra, and the only place that imports it: nobody who does not use agents has to install it.
"""

from __future__ import annotations

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.exceptions import SkyvernConfigError

if not since_3_0.is_airflow_3():
    raise SkyvernConfigError("SkyvernHook.agent needs Airflow 3: there are no agents in Airflow 2.")

try:
    from airflow.providers.common.ai.exceptions import ManagedAgentInvocationError, ManagedAgentRejected
    from airflow.providers.common.ai.managed_agents.base import (
        BaseManagedAgentHook,
        ManagedAgentCapabilities,
        ManagedAgentRef,
        ManagedAgentRequest,
        ManagedAgentResponse,
    )
except ImportError as missing:
    raise SkyvernConfigError(
        "SkyvernHook.agent needs Airflow's AI provider: pip install 'airflow-provider-skyvern[ai]', on Python 3.11 "
        f"or newer. {missing}"
    ) from missing

ARGUMENTS = "arguments"
"""The option of a request that holds the tool's arguments, where they are not written in the prompt."""

__all__ = [
    "ARGUMENTS",
    "BaseManagedAgentHook",
    "ManagedAgentCapabilities",
    "ManagedAgentInvocationError",
    "ManagedAgentRef",
    "ManagedAgentRejected",
    "ManagedAgentRequest",
    "ManagedAgentResponse",
]
