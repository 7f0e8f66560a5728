"""
Take a run with a large output as a task does, and print how much memory that took at its peak.

Usage: ``python -m tests.support.take_output PORT ADDRESS``, with the port of a server that answers for the run, and
the file that the output is written to.
"""

from __future__ import annotations

import json
import os
import sys

from dev.memory import memory_kib
from tests.support.tasks import FakeTaskInstance, context_of


def main(port: str, address: str) -> None:
    connection = {"conn_type": "skyvern", "host": f"http://127.0.0.1:{port}", "password": "made-up-key"}
    os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"] = json.dumps(connection)
    import airflow_skyvern.client.sender
    import airflow_skyvern.results.output
    import airflow_skyvern.results.stores  # noqa: F401  loaded before what is measured
    from airflow_skyvern.sensors import SkyvernRunSensor

    sensor = SkyvernRunSensor(task_id="t", run_id="wr_1", output_to=address)
    before = memory_kib("VmHWM")
    sensor.execute(context_of(FakeTaskInstance()))
    sys.stderr.write(f"\npeak: {memory_kib('VmHWM') - before}\n")


main(*sys.argv[1:])
