"""The DAGs in the documents as DAG files, with ids of real workflows in location of `wpid_123`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.snippets import BLOCKS, ROOT, as_this_airflow_has_it, why_not_here

if TYPE_CHECKING:
    from dev.skyvern_server import SkyvernServer

RECEIVER = "https://airflow.example.com"
"""What the documents call Airflow's address."""


@dataclass(frozen=True)
class Snippet:
    """A block that makes DAGs; `dag_ids` are theirs, made unique, as two documents may use the same."""

    location: str
    code: str
    dag_ids: tuple[str, ...]
    workflow_id: str

    @property
    def starts_by_itself(self) -> bool:
        return 'schedule="@' in self.code

    @property
    def starts_with_a_run(self) -> bool:
        return "skyvern_runs(" in self.code


def locations() -> list[str]:
    """Return the blocks that make DAGs of this Airflow."""
    return [location for location, code in BLOCKS.items() if "with DAG(" in code and not _left_out(code)]


LEFT_OUT = {
    "SkyvernScheduleGuard": "belongs to a schedule in Skyvern: tests/system/test_schedules.py exports and runs one",
    "airflow.providers.common.ai": "needs a model: tests/agents runs them with a scripted one",
    "SkyvernRunPromptOperator": "needs a model: tests/browser runs prompts with a scripted one",
    "skyvern_browser_session(": "needs a browser that is logged in: tests/sessions opens some, tests/kit runs dags/",
    'code="airflow"': "needs a person: tests/run_page has one, who types a code",
    "s3://": "needs an object store: tests/unit/operators/test_uploads.py and test_stores.py do without",
}


def _left_out(code: str) -> bool:
    return why_not_here(code) is not None or any(word in code for word in LEFT_OUT)


def write_snippets(folder: Path, skyvern: SkyvernServer, airflow_url: str) -> dict[str, Snippet]:
    """Write the DAG files, with what the guide says belongs beside them, and return them by their locations."""
    folder.mkdir()
    guide = (ROOT / "docs" / "guide.md").read_text()
    for content in re.findall(r"```json\n *(.*?)\n *```", guide, re.DOTALL):
        (folder / "invoices.json").write_text(content)
    made = {}
    for location in locations():
        made[location] = snippet = _snippet(location, skyvern, airflow_url)
        (folder / f"{_name(location)}.py").write_text(snippet.code)
    return made


def _snippet(location: str, skyvern: SkyvernServer, airflow_url: str) -> Snippet:
    code = as_this_airflow_has_it(BLOCKS[location])
    extracts = "output_from=" in code
    definition = invoices_of_the_portal(skyvern.site.url) if extracts else workflow_of_the_documents(skyvern.peer_url)
    workflow_id = skyvern.create_workflow(f"snippet {location}", definition)
    dag_ids = re.findall(r'with DAG\(\s*"(\w+)"', code)
    code = code.replace("wpid_123", workflow_id).replace(RECEIVER, airflow_url)
    for dag_id in dag_ids:
        code = code.replace(f'"{dag_id}"', f'"{_name(location)}_{dag_id}"')
    return Snippet(location, code, tuple(f"{_name(location)}_{dag_id}" for dag_id in dag_ids), workflow_id)


def _name(location: str) -> str:
    return "snippet_" + re.sub(r"\W+", "_", location.removeprefix("docs/").replace(".md", ""))


def workflow_of_the_documents(peer: str) -> dict[str, object]:
    """Return a workflow that takes the documents' parameters, none of them required, and fetches something."""
    parameters = [
        {"parameter_type": "workflow", "key": key, "workflow_parameter_type": "string", "default_value": ""}
        for key in ("vendor", "month", "day", "run")
    ]
    fetch = {"block_type": "http_request", "label": "fetch", "method": "GET", "url": f"{peer}/json", "timeout": 10}
    return {"workflow_definition": {"parameters": parameters, "blocks": [fetch]}}


def invoices_of_the_portal(site: str) -> dict[str, object]:
    """Return a workflow whose browser extracts what `output_from` and `output_schema` name in the documents."""
    fields = {"invoice": "string", "date": "string", "amount": "number"}
    row = {"type": "object", "properties": {name: {"type": kind} for name, kind in fields.items()}}
    extract = {
        "block_type": "extraction",
        "label": "extract_invoices",
        "url": f"{site}/invoices?open=1",
        "data_extraction_goal": "Extract all invoices.",
        "data_schema": {"type": "array", "items": row},
    }
    return {"workflow_definition": {"parameters": [], "blocks": [extract]}}
