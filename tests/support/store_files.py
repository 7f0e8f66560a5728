"""
Store the files of runs as tasks do, one after the other, and print how much the last one made this process grow.

Usage: ``python -m tests.support.store_files FOLDER RUN...``, with Airflow's connections in the environment. The runs
before the last one load what any task with this store has loaded.
"""

from __future__ import annotations

import sys

from dev.memory import memory_kib
from tests.support.tasks import FakeTaskInstance, context_of


def store(folder: str, run_id: str) -> None:
    from airflow_skyvern.operators import SkyvernDownloadFilesOperator

    task = SkyvernDownloadFilesOperator(
        task_id="t",
        run_id=run_id,
        files_to=folder,
        files_conn_id="s3" if folder.startswith("s3:") else None,
        file_name=f"{run_id}{{extension}}",
    )
    task.execute(context_of(FakeTaskInstance()))


def main(folder: str, *run_ids: str) -> None:
    before = memory_kib("VmHWM")
    for run_id in run_ids:
        before = memory_kib("VmHWM")
        store(folder, run_id)
    sys.stderr.write(f"\ngrown: {memory_kib('VmHWM') - before} KiB\n")


main(*sys.argv[1:])
