"""One trace of a task: spans of a real Airflow and ours, around a run of a real Skyvern, as a collector gets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.airflow_server import AirflowServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.support.otlp import Collector, Span

DAGS = [Path(__file__).parent / "dags" / "traced_dags.py"]
SLOW = 240.0
SECRET = "ACME-s3cr3t"
OURS = ["skyvern.block.rows", "skyvern.block.statement", "skyvern.files", "skyvern.run", "skyvern.start"]


@dataclass
class Rig:
    airflow: AirflowServer
    skyvern: SkyvernServer
    collector: Collector
    folder: Path

    def run_dag(self, dag_id: str) -> str:
        """Run a DAG of one task, and return the id of its Skyvern run."""
        workflow, folder = self.skyvern.workflow("vendor"), self.folder / dag_id
        conf = {"workflow_id": workflow, "vendor": SECRET, "folder": str(folder)}
        dag_run = self.airflow.trigger(dag_id, conf, timeout=SLOW)
        ended = self.airflow.wait_run(dag_id, dag_run, timeout=SLOW)
        assert ended == "success", self.airflow.log(dag_id, dag_run, "run")
        assert [path.name for path in folder.iterdir()] == ["statement.pdf"]
        return str(self.airflow.xcom(dag_id, dag_run, "run", key="run_id"))

    def tag_of(self, run_id: str) -> str:
        """Return the run's tag that leads to its trace."""
        _, body = self.skyvern.request("GET", f"/v1/runs/{run_id}/tags")
        [value] = [tag["value"] for tag in body["tags"] if tag["key"] == "traceparent"]
        return str(value)

    def trace_of(self, run_id: str, names: list[str]) -> list[Span]:
        """Return the spans of the trace to which a run leads, once all of these have arrived."""
        trace_id = self.tag_of(run_id).split("-")[1]

        def has_all() -> bool:
            found = [span.name for span in self.collector.of_trace(trace_id)]
            return all(found.count(name) >= names.count(name) for name in names)

        wait_until(f"the spans {names} of {trace_id}", has_all, SLOW)
        return self.collector.of_trace(trace_id)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("traces")
    with Collector() as collector, SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # see tests/system
            **collector.env,
        }
        with AirflowServer(home / "airflow", DAGS, env) as airflow:
            yield Rig(airflow, skyvern, collector, home / "files")


def above(span: Span, spans: list[Span]) -> list[str]:
    """Return the names of the spans that a span is within, innermost first."""
    parent = next((one for one in spans if one.span_id == span.parent_id), None)
    return [] if parent is None else [parent.name, *above(parent, spans)]


def test_a_deferred_run_is_in_one_trace_from_its_start_over_its_blocks_to_its_files(rig: Rig) -> None:
    run_id = rig.run_dag("traced")
    workers = ["worker.run", "worker.run", "trigger.run", "task_run.run", "dag_run.traced"]
    spans = rig.trace_of(run_id, [*OURS, *workers])
    print(
        "\n".join(
            f"{span.begun:.3f} {span.ended - span.begun:7.3f} {above(span, spans)[::-1]} {span.name}"
            for span in spans
        )
    )
    ours = {span.name: span for span in spans if span.name.startswith("skyvern.")}
    assert sorted(ours) == OURS
    task = ["worker.run", "task_run.run", "dag_run.traced"]
    assert {name: above(span, spans) for name, span in ours.items()} == {
        "skyvern.start": task,
        "skyvern.run": ["skyvern.start", *task],
        "skyvern.block.statement": ["skyvern.run", "skyvern.start", *task],
        "skyvern.block.rows": ["skyvern.run", "skyvern.start", *task],
        "skyvern.files": task,
    }
    assert rig.tag_of(run_id).split("-")[2] == ours["skyvern.start"].span_id
    assert {span.attributes.get("skyvern.run_id", run_id) for span in ours.values()} == {run_id}
    run, statement, rows = (ours[f"skyvern.{name}"] for name in ("run", "block.statement", "block.rows"))
    assert run.attributes["skyvern.run.status"] == "completed"
    assert ours["skyvern.start"].begun <= run.begun <= statement.begun < statement.ended <= rows.begun < rows.ended
    assert rows.ended <= run.ended <= ours["skyvern.files"].begun
    assert SECRET not in str(spans)


def test_a_retry_shows_the_run_that_it_resumes_in_the_same_trace(rig: Rig) -> None:
    run_id = rig.run_dag("traced_retry")
    spans = rig.trace_of(run_id, [*OURS, "skyvern.start", "task_run.run"])
    first, second = [span for span in spans if span.name == "skyvern.start"]
    assert [span.attributes["skyvern.resumed"] for span in (first, second)] == [False, True]
    assert rig.tag_of(run_id).split("-")[2] == first.span_id
    [run] = [span for span in spans if span.name == "skyvern.run"]
    assert run.parent_id == second.span_id
    assert run.attributes["skyvern.run_id"] == run_id
