"""Files and workflows, pulled, compared, pushed and made versions of, with the fake."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_skyvern.client import workflow_api
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConfigError, SkyvernRequestError
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern
from airflow_skyvern.workflow_files.ownership import FILE_TAG, VERSION_TAG, find
from airflow_skyvern.workflow_files.publish import Published, ensure_version
from airflow_skyvern.workflow_files.pull import Pull, slug
from airflow_skyvern.workflow_files.push import Plan, carry_out, files_in, plan
from airflow_skyvern.workflow_files.text import WorkflowFile, read, written
from tests.unit.workflow_files.test_form import MONTH, PAUSE, workflow

log = logging.getLogger(__name__)
UPDATE = "/api/v1/workflows/[^/]+"
CREATE = "/v1/workflows"


@pytest.fixture
def send(fake: FakeSkyvern) -> Callable[[Any], Any]:
    settings = Settings(base_url="http://skyvern.example", api_key=API_KEY)
    return SkyvernClient(settings, transport=httpx.MockTransport(fake.handle), sleep=lambda _: None).send


def definition(seconds: int = 5, title: str = "Invoices") -> dict[str, Any]:
    return {**workflow({**PAUSE, "wait_sec": seconds}, parameters=[MONTH]), "title": title}


def file(seconds: int = 5) -> WorkflowFile:
    return WorkflowFile("invoices.yaml", definition(seconds))


def ensured(send: Callable[[Any], Any], made: WorkflowFile) -> Published:
    return ensure_version(send, made, log, sleep=lambda _: None)


def versions(fake: FakeSkyvern) -> list[int]:
    """The number of versions of each workflow."""
    return [made.version for made in fake.workflows.values()]


def edit(send: Callable[[Any], Any], workflow_id: str, seconds: int) -> None:
    """Change a workflow as its editor in Skyvern does."""
    send(workflow_api.update_workflow(workflow_id, definition(seconds)))


def store(path: Path, seconds: int = 5, title: str = "Invoices") -> Path:
    path.write_text(written(path.name, definition(seconds, title)).split("\n", 1)[1])
    return path


class TestEnsureVersion:
    def test_a_content_has_one_version_however_often_it_is_run(self, send: Any, fake: FakeSkyvern) -> None:
        first, again = ensured(send, file()), ensured(send, file())
        assert (first.version, first.made, again.version, again.made) == (1, True, 1, False)
        assert ensured(send, file(6)).version == 2
        assert ensured(send, file(5)).version == 1  # rolled back: the version that has it
        assert ensured(send, file(6)).version == 2
        assert versions(fake) == [2]

    def test_twenty_at_once_make_one_workflow_and_one_version(self, send: Any, fake: FakeSkyvern) -> None:
        ensured(send, file(1))
        with ThreadPoolExecutor(20) as pool:
            made = list(pool.map(lambda _: ensured(send, file(2)), range(20)))
        assert {(one.workflow_id, one.version) for one in made} == {(made[0].workflow_id, 2)}
        assert versions(fake) == [2]

    def test_what_is_edited_in_skyvern_is_neither_run_nor_lost(
        self, send: Any, fake: FakeSkyvern, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = ensured(send, file(5))
        edit(send, first.workflow_id, 99)
        assert ensured(send, file(5)).version == 1
        caplog.clear()
        assert ensured(send, file(6)).version == 3
        assert "version 2 of workflow" in caplog.text
        assert "was edited in Skyvern" in caplog.text
        (made,) = fake.workflows.values()
        assert made.definitions[1]["workflow_definition"]["blocks"][0]["wait_sec"] == 99

    def test_a_workflow_that_was_deleted_stays_deleted_and_another_takes_its_place(
        self, send: Any, fake: FakeSkyvern
    ) -> None:
        first = ensured(send, file())
        send(workflow_api.delete_workflow(first.workflow_id))
        second = ensured(send, file())
        assert second.workflow_id != first.workflow_id
        assert fake.workflows[first.workflow_id].deleted
        assert ensured(send, file()) == Published(second.workflow_id, 1, made=False)

    def test_a_lost_answer_of_a_create_or_an_update_makes_nothing_twice(self, send: Any, fake: FakeSkyvern) -> None:
        fake.next("POST", CREATE, LOST)
        fake.next("PUT", UPDATE, LOST)
        assert ensured(send, file(5)).version == 1
        assert ensured(send, file(6)).version == 2
        assert versions(fake) == [2]

    def test_a_gateways_answer_to_an_update_makes_nothing_twice(self, send: Any, fake: FakeSkyvern) -> None:
        page = httpx.Response(502, html="<h1>Bad gateway</h1>")
        fake.next("PUT", UPDATE, lambda: page, lambda: httpx.Response(404, json={"detail": "Not Found"}))
        ensured(send, file(5))
        assert ensured(send, file(6)).version == 2
        assert ensured(send, file(7)).version == 3
        assert versions(fake) == [3]

    def test_a_gateway_that_loses_its_server_for_a_while_is_no_answer(self, send: Any, fake: FakeSkyvern) -> None:
        lost = [httpx.Response(404, json={"detail": "Not Found"}) for _ in range(3)]
        fake.next("GET", CREATE, *lost)
        fake.next("POST", "/v1/workflow-tags", httpx.Response(502))
        assert ensured(send, file()).version == 1
        assert ensured(send, file(6)).version == 2
        assert versions(fake) == [2]

    def test_another_version_that_comes_first_is_compared_again(self, send: Any, fake: FakeSkyvern) -> None:
        first = ensured(send, file(5))

        def somebody_is_faster() -> httpx.Response:
            return httpx.Response(
                409, json={"detail": f"Concurrent update detected for workflow {first.workflow_id}. Please retry."}
            )

        fake.next("PUT", UPDATE, somebody_is_faster)
        assert ensured(send, file(6)).version == 2
        assert versions(fake) == [2]

    def test_a_key_that_skyvern_forgets_makes_one_version(self, send: Any, fake: FakeSkyvern) -> None:
        def forgotten() -> None:
            for made in fake.workflows.values():
                made.definitions[:] = [{k: v for k, v in one.items() if k != "tomorrow"} for one in made.definitions]

        fake.next("POST", "/v1/workflows/[^/]+/tags", *[forgotten] * 2)
        odd = WorkflowFile("invoices.yaml", {**definition(), "tomorrow": 1})
        assert [ensured(send, odd).version for _ in range(3)] == [1, 1, 1]
        assert versions(fake) == [1]

    def test_what_skyvern_does_not_accept_is_not_tried_again(self, send: Any, fake: FakeSkyvern) -> None:
        fake.next("POST", CREATE, httpx.Response(422, json={"detail": "Block 'a' is an orphan"}))
        with pytest.raises(SkyvernRequestError, match="is an orphan"):
            ensured(send, file())

    def test_an_organization_without_tags_has_the_key_of_the_name(self, send: Any, fake: FakeSkyvern) -> None:
        refused = httpx.Response(403, json={"detail": "Workflow tagging is not enabled for this organization."})
        fake.next("GET", CREATE, *[refused] * 3)
        fake.next("POST", "/v1/workflows/[^/]+/tags", *[refused] * 5)
        assert [ensured(send, file(number)).version for number in (5, 6, 5)] == [1, 2, 1]
        assert versions(fake) == [2]

    def test_a_refused_key_is_no_organization_without_tags(self, send: Any, fake: FakeSkyvern) -> None:
        fake.next("GET", CREATE, httpx.Response(403, json={"detail": "Invalid credentials"}))
        with pytest.raises(SkyvernAuthError):
            ensured(send, file())
        assert versions(fake) == []

    def test_a_foreign_workflow_that_an_old_skyvern_lists_is_left_alone(self, send: Any, fake: FakeSkyvern) -> None:
        foreign = fake.workflow("foreign")
        rows = [{"workflow_permanent_id": foreign, "workflow_id": "w_1", "title": "foreign", "version": 1}]
        fake.next("GET", CREATE, httpx.Response(200, json=rows))
        assert ensured(send, file()).workflow_id != foreign

    def test_two_workflows_of_a_file_are_refused(self, send: Any, fake: FakeSkyvern) -> None:
        for _ in range(2):
            made = fake.workflow("Invoices")
            fake.workflows[made].tags[FILE_TAG] = "invoices.yaml"
        with pytest.raises(
            SkyvernConfigError, match="several workflows of this organization have the tag airflow_file"
        ):
            ensured(send, file())


def pushed(send: Any, path: Path, **options: Any) -> str:
    return carry_out(send, plan(send, path, **options), sleep=lambda _: None).action


class TestPush:
    def test_a_version_is_made_only_where_something_differs(
        self, send: Any, fake: FakeSkyvern, tmp_path: Path
    ) -> None:
        path = store(tmp_path / "invoices.yaml")
        assert [pushed(send, path), pushed(send, path)] == ["created", "unchanged"]
        assert [pushed(send, store(path, 6)), pushed(send, path)] == ["updated", "unchanged"]
        assert versions(fake) == [2]

    def test_a_plan_sends_nothing_and_says_what_differs(self, send: Any, fake: FakeSkyvern, tmp_path: Path) -> None:
        pushed(send, path := store(tmp_path / "invoices.yaml"))
        before = len(fake.requests)
        made = plan(send, store(path, 6, "Bills"))
        assert [str(one) for one in made.changes] == ['title: "Invoices" → "Bills"', "block pause: wait_sec: 5 → 6"]
        assert {seen.method for seen in fake.requests[before:]} == {"GET", "POST"}
        assert [seen.path for seen in fake.requests[before:] if seen.method == "POST"] == ["/v1/workflow-tags"]

    @pytest.mark.parametrize("pulled", [True, False])
    def test_what_was_edited_in_skyvern_is_not_pushed_over(
        self, send: Any, fake: FakeSkyvern, tmp_path: Path, *, pulled: bool
    ) -> None:
        path = store(tmp_path / "invoices.yaml")
        pushed(send, path)
        (workflow_id,) = fake.workflows
        if pulled:
            path.unlink()
            Pull(send, tmp_path).pull(workflow_id)
        edit(send, workflow_id, 99)
        path.write_text(path.read_text().replace("wait_sec: 5", "wait_sec: 6"))
        made = plan(send, path)
        assert made.action == "refused"
        assert "Version 2" in str(made.refusal)
        assert "--force" in str(made.refusal)
        assert carry_out(send, made).action == "refused"
        assert versions(fake) == [2]
        assert pushed(send, path, force=True) == "updated"
        assert versions(fake) == [3]

    def test_a_file_from_before_somebody_elses_pull_is_not_pushed_over_the_edit(
        self, send: Any, fake: FakeSkyvern, tmp_path: Path
    ) -> None:
        pushed(send, store(tmp_path / "invoices.yaml"))
        (workflow_id,) = fake.workflows
        mine, yours = tmp_path / "mine", tmp_path / "yours"
        Pull(send, mine).pull(workflow_id)
        edit(send, workflow_id, 99)
        Pull(send, yours).pull(workflow_id)
        path = mine / "invoices.yaml"
        path.write_text(path.read_text().replace("wait_sec: 5", "wait_sec: 6"))
        assert plan(send, path).action == "refused"

    def test_git_may_go_back(self, send: Any, fake: FakeSkyvern, tmp_path: Path) -> None:
        path = store(tmp_path / "invoices.yaml", 5)
        pushed(send, path)
        pushed(send, store(path, 6))
        assert pushed(send, store(path, 5)) == "updated"
        assert versions(fake) == [3]

    def test_another_push_of_the_same_at_the_same_time_is_no_change(
        self, send: Any, fake: FakeSkyvern, tmp_path: Path
    ) -> None:
        path = store(tmp_path / "invoices.yaml", 5)
        pushed(send, path)
        plans = [plan(send, store(path, 6)) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda one: carry_out(send, one, sleep=lambda _: None), plans))
        assert {one.version for one in done} == {2}
        assert versions(fake) == [2]

    def test_somebody_who_is_faster_with_something_else_is_not_pushed_over(
        self, send: Any, fake: FakeSkyvern, tmp_path: Path
    ) -> None:
        path = store(tmp_path / "invoices.yaml", 5)
        pushed(send, path)
        made: Plan = plan(send, store(path, 6))
        edit(send, next(iter(fake.workflows)), 99)
        outcome = carry_out(send, made, sleep=lambda _: None)
        assert (outcome.action, versions(fake)) == ("refused", [2])
        assert "somebody else has just changed workflow" in str(outcome.message)

    def test_the_file_then_says_what_skyvern_has(self, send: Any, fake: FakeSkyvern, tmp_path: Path) -> None:
        pushed(send, store(tmp_path / "invoices.yaml"))
        Pull(send, tmp_path / "pulled").pull(next(iter(fake.workflows)))
        path = tmp_path / "pulled" / "invoices.yaml"
        path.write_text(path.read_text().replace("wait_sec: 5", "wait_sec: 6  # longer"))
        pushed(send, path)
        after = read(path)
        assert after.base == after.digest
        assert "# longer" in path.read_text()

    def test_two_files_of_one_name_are_refused(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            store(tmp_path / folder / "login.yaml")
        (tmp_path / "values.yaml").write_text("a: 1")
        assert [one.name for one in files_in([str(tmp_path / "a")])] == ["login.yaml"]
        with pytest.raises(SkyvernConfigError, match=r"login.yaml: .* have the same workflow"):
            files_in([str(tmp_path)])
        with pytest.raises(SkyvernConfigError, match="there is no such file"):
            files_in([str(tmp_path / "gone.yaml")])


class TestPull:
    @pytest.mark.parametrize("suffix", [".yaml", ".json"])
    def test_pull_push_pull_changes_nothing(self, send: Any, fake: FakeSkyvern, tmp_path: Path, suffix: str) -> None:
        made = send(workflow_api.create_workflow(definition(title="Rechnungen für März")))
        puller = Pull(send, tmp_path, suffix)
        first = puller.pull(made.workflow_permanent_id)
        path = Path(first.file)
        assert (path.name, first.action) == (f"rechnungen_fur_marz{suffix}", "created")
        content, state = path.read_bytes(), path.stat()
        assert pushed(send, path) == "unchanged"
        assert puller.pull(made.workflow_permanent_id).action == "unchanged"
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, state.st_mtime_ns)
        assert versions(fake) == [1]

    def test_a_comment_survives_a_pull_that_changes_nothing(self, send: Any, tmp_path: Path) -> None:
        made = send(workflow_api.create_workflow(definition()))
        path = Path(Pull(send, tmp_path).pull(made.workflow_permanent_id).file)
        path.write_text(text := path.read_text().replace("wait_sec: 5", "wait_sec: 5  # the portal is slow"))
        assert Pull(send, tmp_path).pull(made.workflow_permanent_id).action == "unchanged"
        assert path.read_text() == text

    def test_changes_that_are_not_in_skyvern_are_not_lost(self, send: Any, tmp_path: Path) -> None:
        made = send(workflow_api.create_workflow(definition()))
        puller = Pull(send, tmp_path)
        path = Path(puller.pull(made.workflow_permanent_id).file)
        path.write_text(path.read_text().replace("wait_sec: 5", "wait_sec: 6"))
        edit(send, made.workflow_permanent_id, 99)
        with pytest.raises(SkyvernConfigError, match="has changes that are not in Skyvern"):
            puller.pull(made.workflow_permanent_id)
        outcome = Pull(send, tmp_path, force=True).pull(made.workflow_permanent_id)
        assert [str(one) for one in outcome.differences] == ["block pause: wait_sec: 6 → 99"]
        assert read(path).form == definition(99)

    def test_what_is_in_skyvern_history_is_replaced(self, send: Any, tmp_path: Path) -> None:
        made = send(workflow_api.create_workflow(definition()))
        puller = Pull(send, tmp_path, ".json")
        path = Path(puller.pull(made.workflow_permanent_id).file)
        edit(send, made.workflow_permanent_id, 99)
        assert puller.pull(made.workflow_permanent_id).action == "updated"
        assert read(path).form == definition(99)

    def test_a_title_twice_gives_two_files(self, send: Any, tmp_path: Path) -> None:
        ids = [send(workflow_api.create_workflow(definition())).workflow_permanent_id for _ in range(2)]
        puller = Pull(send, tmp_path)
        names = [Path(puller.pull(one).file).name for one in (*ids, *ids)]
        assert names == ["invoices.yaml", "invoices-2.yaml"] * 2

    def test_a_dry_run_changes_nothing(self, send: Any, fake: FakeSkyvern, tmp_path: Path) -> None:
        made = send(workflow_api.create_workflow(definition()))
        assert Pull(send, tmp_path, dry_run=True).pull(made.workflow_permanent_id).action == "created"
        assert list(tmp_path.iterdir()) == []
        assert fake.workflows[made.workflow_permanent_id].tags == {}

    def test_a_secret_is_not_written(self, send: Any, tmp_path: Path) -> None:
        call = {"block_type": "http_request", "label": "call", "url": "x", "headers": {"Cookie": "s3cr3t-W4rd-77"}}
        made = send(workflow_api.create_workflow({"title": "t", **workflow(call)}))
        with pytest.raises(
            SkyvernConfigError, match=r"not pulled, as it holds a secret: block call\.headers\.Cookie"
        ):
            Pull(send, tmp_path).pull(made.workflow_permanent_id)
        assert list(tmp_path.iterdir()) == []

    def test_a_tag_that_leads_out_of_the_folder_is_no_name(
        self, send: Any, fake: FakeSkyvern, tmp_path: Path
    ) -> None:
        made = send(workflow_api.create_workflow(definition()))
        fake.workflows[made.workflow_permanent_id].tags[FILE_TAG] = "../../etc/cron.yaml"
        assert Path(Pull(send, tmp_path).pull(made.workflow_permanent_id).file) == tmp_path / "invoices.yaml"

    def test_the_workflow_says_which_file_it_belongs_to(self, send: Any, fake: FakeSkyvern, tmp_path: Path) -> None:
        made = send(workflow_api.create_workflow(definition()))
        Pull(send, tmp_path).pull(made.workflow_permanent_id)
        tags = fake.workflows[made.workflow_permanent_id].tags
        assert tags == {FILE_TAG: "invoices.yaml", VERSION_TAG: f"1 pulled {file().digest}"}
        owned = find(send, "invoices.yaml")
        assert owned is not None
        assert ensured(send, file()) == Published(made.workflow_permanent_id, 1, made=False)


@pytest.mark.parametrize(
    ("title", "name"), [("Open Invoices (2026)", "open_invoices_2026"), ("請求書", "workflow"), ("a/../b", "a_b")]
)
def test_a_title_becomes_a_name(title: str, name: str) -> None:
    assert slug(title) == name
