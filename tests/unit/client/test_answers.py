"""Who has answered? Only Skyvern's own words are a refusal; whatever else comes back proves nothing about a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_skyvern.client import api, schedule_api
from airflow_skyvern.client.answers import ANY_WORDS, NO_TAGS
from airflow_skyvern.client.calls import Call
from airflow_skyvern.client.retry import (
    KEY_ROTATION_PATIENCE,
    REFUSAL_PATIENCE,
    RetryPolicy,
    may_have_started,
    may_repeat,
    patience_with,
    while_transient,
)
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.session import fetch_run
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernCreditError,
    SkyvernNotFoundError,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernResponseError,
    SkyvernServerError,
    SkyvernStartUnknown,
)
from airflow_skyvern.runs.cancel import cancel_and_fetch
from airflow_skyvern.runs.key import RunKey
from airflow_skyvern.runs.store import StartStore
from airflow_skyvern.runs.submission import Attempt, Submission
from airflow_skyvern.runs.wait import Wait, wait_for_end
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from tests.support.log_lines import LogLines

EXAMPLES = settings.default.max_examples  # type: ignore[union-attr]  # conftest.py has loaded one
Answer = Callable[[], httpx.Response]

REQUEST = RunRequest.of({"workflow_id": "wpid_1"})
START = api.start_run(REQUEST)
ABOUT_RUNS: dict[str, Call[Any]] = {
    "get a run": api.get_run("wr_1"),
    "get a run of a deleted workflow": api.get_run_of_deleted_workflow("wr_1"),
    "poll": api.get_run_snapshot("wr_1"),
    "cancel": api.cancel_run("wr_1"),
    "cancel many": api.cancel_runs(["wr_1"]),
    "continue": api.continue_run("wr_1"),
    "list active runs": api.list_active_runs(1),
    "list runs": api.list_runs(),
    "list the runs of a workflow": api.list_workflow_runs("wpid_1"),
    "find runs": api.find_runs({"k": "v"}).as_answered(),
    "tags": api.get_run_tags(["wr_1"]),
    "timeline": api.get_run_timeline("wr_1"),
    "artifacts": api.list_run_artifacts("wr_1"),
    "the workflow of a start": api.get_workflow("wpid_1"),
    "the schedule of a guard": schedule_api.get_schedule("wpid_1", "wfs_1"),
}
AT_STAKE = {"start": START, **ABOUT_RUNS}

SPRING = {"timestamp": "2026-11-29T10:00:00Z", "status": 404, "error": "Not Found", "path": "/v1/runs/wr_1"}
HTML = "<html><h1>Not here</h1></html>"
FOREIGN: dict[str, Answer] = {
    # Each is made anew: a response is read once.
    "301": lambda: httpx.Response(301, headers={"location": "https://skyvern.example.com/v1"}),
    "302": lambda: httpx.Response(302, headers={"location": "https://login.example.com/?next=x"}),
    "303 without an address": lambda: httpx.Response(303),
    "304": lambda: httpx.Response(304),
    "307": lambda: httpx.Response(307, headers={"location": "/login"}),
    "308": lambda: httpx.Response(308, headers={"location": "http://[no address"}),
    "400 of another product": lambda: httpx.Response(400, json={"message": "Bad Request", "code": 400}),
    "400 with other words": lambda: httpx.Response(400, json={"detail": "Bad Request"}),
    "401 HTML": lambda: httpx.Response(401, html=HTML),
    "401 JSON": lambda: httpx.Response(401, json={"detail": "Not authenticated"}),
    "403 HTML": lambda: httpx.Response(403, html=HTML),
    "403 JSON": lambda: httpx.Response(403, json={"detail": "Forbidden"}),
    "403 with Skyvern's words and more": lambda: httpx.Response(
        403, json={"detail": "Invalid credentials", "title": "Forbidden"}
    ),
    "404 of Spring": lambda: httpx.Response(404, json=SPRING),
    "404 of FastAPI": lambda: httpx.Response(404, json={"detail": "Not Found"}),
    "404 with an error": lambda: httpx.Response(404, json={"error": "not found"}),
    "404 about another run": lambda: httpx.Response(404, json={"detail": "Task run not found wr_2"}),
    "404 about another workflow": lambda: httpx.Response(
        404, json={"detail": "Workflow not found. workflow_permanent_id="}
    ),
    "404 empty": lambda: httpx.Response(404),
    "405": lambda: httpx.Response(405, json={"detail": "Method Not Allowed"}),
    "409": lambda: httpx.Response(409, json={"detail": "Conflict"}),
    "410": lambda: httpx.Response(410, json={"error": "gone"}),
    "413": lambda: httpx.Response(413, html=HTML),
    "422 of another product": lambda: httpx.Response(422, json={"detail": [{"message": "wrong"}]}),
    "429 of a gateway": lambda: httpx.Response(429, json={"message": "Too many requests"}),
    "451": lambda: httpx.Response(451, json={"error": "blocked"}),
    "499": lambda: httpx.Response(499),
    "500 of another product": lambda: httpx.Response(500, json={"error": {"code": 500}}),
    "501": lambda: httpx.Response(501, json={"error": "Not Implemented"}),
    "501 in Skyvern's form": lambda: httpx.Response(501, json={"detail": "Not Implemented"}),
    "502": lambda: httpx.Response(502, html=HTML),
    "503 that only sounds like Skyvern": lambda: httpx.Response(503, json={"message": "No run was created"}),
    "200 HTML": lambda: httpx.Response(200, html=HTML),
    "200 {}": lambda: httpx.Response(200, json={}),
    "200 with an error": lambda: httpx.Response(200, json={"error": "not found"}),
    "200 a word": lambda: httpx.Response(200, json="ok"),
    "204": lambda: httpx.Response(204),
}
ALSO_A_LIST: dict[str, Answer] = {
    "200 []": lambda: httpx.Response(200, json=[]),
    "200 null": lambda: httpx.Response(200, content=b"null"),
    "200 another run": lambda: httpx.Response(200, json={"run_id": "wr_2", "status": "completed"}),
    "200 rows of something else": lambda: httpx.Response(200, json=[{"id": 1}]),
}
GENUINE_FOR = {
    "200 []": {"list active runs", "list runs", "list the runs of a workflow", "find runs", "timeline", "artifacts"},
    "200 null": {"cancel", "continue"},
    "200 another run": {"start"},  # its own run's id is not known yet
    "404 about another workflow": {"get a run", "poll", "timeline", "artifacts"},  # of the run, whichever it is
}
PAIRS = [
    pytest.param(call, answer, id=f"{call}: {answer}")
    for call in AT_STAKE
    for answer in {**FOREIGN, **ALSO_A_LIST}
    if call not in GENUINE_FOR.get(answer, ())
]


def sent(call: Call[Any], answer: httpx.Response) -> Any:
    transport = httpx.MockTransport(lambda _: answer)
    with SkyvernClient(Settings("k"), retry=RetryPolicy(attempts=1), transport=transport) as client:
        return client.send(call)


@pytest.mark.slow
@pytest.mark.parametrize(("call", "answer"), PAIRS)
def test_an_answer_that_skyvern_is_not_known_to_give_proves_nothing(call: str, answer: str) -> None:
    with pytest.raises(SkyvernAPIError) as caught:
        sent(AT_STAKE[call], {**FOREIGN, **ALSO_A_LIST}[answer]())
    error = caught.value
    assert error.transient
    assert not error.nothing_done
    assert may_have_started(error)
    assert may_repeat(AT_STAKE[call], error) is (call not in ("start", "continue"))
    assert isinstance(error, SkyvernResponseError | SkyvernServerError | SkyvernRateLimitError)


def test_every_call_about_a_run_has_a_table_of_its_own() -> None:
    assert [name for name, call in AT_STAKE.items() if call.known is ANY_WORDS] == []


COMPLAINT = [{"type": "missing", "loc": ["body", "agent_id"], "msg": "Field required", "input": {"password": "s"}}]
BUSY = "The server is busy dispatching other runs. No run was created; retry this request."
POLL, CANCEL, CONTINUE = ABOUT_RUNS["poll"], ABOUT_RUNS["cancel"], ABOUT_RUNS["continue"]
LIST, TAGS, ORPHAN = ABOUT_RUNS["list runs"], ABOUT_RUNS["tags"], ABOUT_RUNS["get a run of a deleted workflow"]
WORKFLOW, TIMELINE, SCHEDULE = (
    *(ABOUT_RUNS["the workflow of a start"], ABOUT_RUNS["timeline"], ABOUT_RUNS["the schedule of a guard"]),
)
FILE = api.get_artifact_content("a_1")

Genuine = tuple[Call[Any], int, Any, type[SkyvernAPIError]]
AUTH: list[Genuine] = [
    (call, 403, words, SkyvernAuthError)
    for call in (START, POLL, LIST)
    for words in (
        "Invalid credentials",
        "Could not validate credentials",
        "Invalid authentication method",
        "You do not have permission to access this organization",
        "Auth token is expired",
    )
]
GENUINE: list[Genuine] = [
    *AUTH,
    *((call, 422, COMPLAINT, SkyvernRequestError) for call in (START, LIST, CANCEL)),
    (START, 404, "Workflow not found. workflow_permanent_id=wpid_1", SkyvernNotFoundError),
    (START, 404, "Browser session pbs_1 does not exist or is not live.", SkyvernNotFoundError),
    (START, 404, "Browser profile bp_1 not found for organization o_1", SkyvernNotFoundError),
    (START, 400, "Missing value for parameter a in workflow run wr_9 of workflow wpid_1", SkyvernRequestError),
    (START, 400, "Missing value for parameter a in workflow wpid_1", SkyvernRequestError),
    (START, 400, "Invalid credential ID: x. Failed to resolve to a valid credential.", SkyvernRequestError),
    (START, 400, "Invalid workflow parameter. Expected parameter type: integer. Value: no.", SkyvernRequestError),
    (START, 400, "The host in your url is blocked: 127.0.0.1", SkyvernRequestError),
    (
        START,
        400,
        "Invalid URL: x. Skyvern supports HTTP and HTTPS urls with max 2083 character length.",
        SkyvernRequestError,
    ),
    (START, 400, "Invalid webhook_url: blocked host.", SkyvernRequestError),
    (START, 400, "Browser session pbs_1 does not have an address.", SkyvernRequestError),
    (START, 410, "Browser session pbs_1 is closed. Start a new one.", SkyvernRequestError),
    (START, 422, "These file ids are not available to attach — each must name a file: f_1", SkyvernRequestError),
    (POLL, 404, "Task run not found wr_1", SkyvernNotFoundError),
    (POLL, 404, "Workflow not found. workflow_permanent_id=wpid_7", SkyvernNotFoundError),
    (ORPHAN, 404, "Workflow not found for workflow run wr_1", SkyvernNotFoundError),
    (
        LIST,
        400,
        "Search pagination is limited to the first 1000 matches. Use a narrower search.",
        SkyvernRequestError,
    ),
    (LIST, 400, "Invalid tag filter ':x'; expected 'label', 'key:*', or 'key:value'.", SkyvernRequestError),
    (LIST, 400, "Invalid tag filter; empty term.", SkyvernRequestError),
    (LIST, 400, "Free-text run search exceeded its time limit. Try an exact browser profile.", SkyvernRequestError),
    *((call, 403, NO_TAGS, SkyvernAuthError) for call in (LIST, TAGS)),
    (TAGS, 400, "At most 200 workflow run IDs may be requested at once", SkyvernRequestError),
    (CANCEL, 404, "Run not found wr_1", SkyvernNotFoundError),
    (CANCEL, 404, "WorkflowRun wr_1 not found", SkyvernNotFoundError),
    (CANCEL, 404, "Task wr_1 not found", SkyvernNotFoundError),
    (CANCEL, 400, "Invalid run type to cancel: x", SkyvernRequestError),
    (CANCEL, 400, "Invalid task status transition from completed to canceled for wr_1", SkyvernRequestError),
    (
        CANCEL,
        400,
        "Invalid task status transition to canceled for wr_1 because task is already canceled",
        SkyvernRequestError,
    ),
    (CONTINUE, 404, "Workflow run not found wr_1", SkyvernNotFoundError),
    (WORKFLOW, 404, "Workflow not found. workflow_permanent_id=wpid_1", SkyvernNotFoundError),
    (WORKFLOW, 400, "Invalid template workflow permanent id: wpid_1. Use another.", SkyvernRequestError),
    (TIMELINE, 404, "Run not found wr_1", SkyvernNotFoundError),
    (TIMELINE, 400, "Timeline not available for run type task_v1", SkyvernRequestError),
    (FILE, 404, "Artifact not found a_1", SkyvernNotFoundError),
    (FILE, 404, "Artifact content not available", SkyvernNotFoundError),
    (SCHEDULE, 404, "Schedule wfs_1 not found", SkyvernNotFoundError),
    (SCHEDULE, 501, "Workflow schedules are disabled in this Skyvern build. Use Skyvern Cloud.", SkyvernAPIError),
]


@pytest.mark.parametrize(("call", "status", "words", "kind"), GENUINE)
def test_a_refusal_in_skyverns_words_has_its_class_and_did_nothing(
    call: Call[Any], status: int, words: Any, kind: type[SkyvernAPIError]
) -> None:
    with pytest.raises(SkyvernAPIError) as caught:
        sent(call, httpx.Response(status, json={"detail": words}))
    error = caught.value
    assert type(error) is kind
    assert (error.transient, error.nothing_done, error.status_code) == (False, True, status)
    assert f"Skyvern answered {status}" in str(error)


@pytest.mark.parametrize(
    ("call", "status", "body", "kind", "nothing_done"),
    [
        (
            START,
            429,
            {"detail": "Rate limit exceeded for organization o_1. Maximum 5 …"},
            SkyvernRateLimitError,
            True,
        ),
        (START, 503, {"detail": BUSY}, SkyvernServerError, True),
        (
            START,
            400,
            {"detail": "Browser session pbs_1 is already occupied by wr_8. Wait for that run …"},
            SkyvernRequestError,
            True,
        ),
        (START, 503, {"detail": "This run resolves to a sequential credential (c), …"}, SkyvernServerError, False),
        (START, 402, {"detail": "Out of credit"}, SkyvernCreditError, False),
        (START, 500, {"error": "Unexpected error: KeyError"}, SkyvernServerError, False),
        (START, 503, {"error": "Database temporarily unavailable"}, SkyvernServerError, False),
        (POLL, 500, {"error": "Unexpected error: ValueError"}, SkyvernServerError, False),
        (
            LIST,
            503,
            {"detail": "This run list could not be computed in time. Please retry shortly."},
            SkyvernServerError,
            True,
        ),
    ],
)
def test_what_skyvern_says_will_pass_is_transient(
    call: Call[Any], status: int, body: Any, kind: type[SkyvernAPIError], *, nothing_done: bool
) -> None:
    with pytest.raises(SkyvernAPIError) as caught:
        sent(call, httpx.Response(status, json=body))
    assert type(caught.value) is kind
    assert (caught.value.transient, caught.value.nothing_done) == (True, nothing_done)


def test_where_no_run_is_at_stake_any_words_in_skyverns_form_keep_their_class() -> None:
    for status, kind in {400: SkyvernRequestError, 401: SkyvernAuthError, 404: SkyvernNotFoundError}.items():
        with pytest.raises(SkyvernAPIError) as caught:
            sent(api.list_workflows(), httpx.Response(status, json={"detail": "in new words"}))
        assert type(caught.value) is kind
    with pytest.raises(SkyvernResponseError):
        sent(api.list_workflows(), httpx.Response(404, json=SPRING))


def test_a_redirect_names_where_it_leads_without_query_and_password() -> None:
    location = "https://eve:pw@login.example.com/sso?token=s3cr3t#x"
    with pytest.raises(SkyvernResponseError) as caught:
        sent(POLL, httpx.Response(302, headers={"location": location}))
    words = "redirects to https://login.example.com/sso; if that is a login page, a proxy asks for a login"
    assert words in str(caught.value)
    assert not {"s3cr3t", "pw", "eve"} & set(str(caught.value).replace(":", " ").replace("@", " ").split())


def test_a_redirect_is_never_followed_with_the_key() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://elsewhere.example.com/v1/runs/wr_1"})

    client = SkyvernClient(Settings("k"), retry=RetryPolicy(attempts=1), transport=httpx.MockTransport(handler))
    with pytest.raises(SkyvernResponseError):
        client.send(POLL)
    assert asked == ["https://api.skyvern.com/v1/runs/wr_1"]


@pytest.mark.parametrize("name", ["start", "get a run", "tags", "the workflow of a start"])
def test_a_success_about_something_else_is_no_answer(name: str) -> None:
    run = {"run_id": "wr_2", "status": "completed", "run_request": {"workflow_id": "wpid_2"}}
    workflow = {"workflow_permanent_id": "wpid_2", "workflow_id": "w_2", "title": "t"}
    bodies = {"tags": {"run_tags": {"wr_2": []}}, "the workflow of a start": workflow}
    with pytest.raises(SkyvernResponseError, match="it is not about"):
        sent(AT_STAKE[name], httpx.Response(200, json=bodies.get(name, run)))


def test_a_web_page_is_no_file_unless_skyvern_names_it() -> None:
    with pytest.raises(SkyvernResponseError, match="a web page"):
        sent(FILE, httpx.Response(200, html=HTML))
    named = httpx.Response(200, html=HTML, headers={"content-disposition": 'attachment; filename="page.html"'})
    assert sent(FILE, named) == HTML.encode()


def test_a_web_page_is_not_streamed_as_a_file() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, html=HTML))
    with (
        SkyvernClient(Settings("k"), transport=transport) as client,
        pytest.raises(SkyvernResponseError, match="a web page"),
        client.stream(FILE),
    ):
        pass


def test_a_huge_web_page_does_not_end_a_wait() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, html="x" * 2000))
    client = SkyvernClient(Settings("k", max_answer_bytes=1000), retry=RetryPolicy(attempts=1), transport=transport)
    with pytest.raises(SkyvernResponseError) as caught:
        client.send(POLL)
    assert caught.value.transient


# What a foreign answer must never do, whatever it is.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["detail", "error", "message", "status", "run_id", "code"])
BODIES = st.one_of(
    st.binary(max_size=30),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(KEYS, JSON, max_size=3).map(lambda value: json.dumps(value).encode()),
    st.just(b"<html>"),
)
STATUSES = st.integers(200, 299) | st.integers(300, 399) | st.integers(400, 599)
FOREIGN_ANSWERS = st.tuples(STATUSES, BODIES)


class World:
    """A fake Skyvern behind a gateway that answers some requests in its place, before or after passing them on."""

    def __init__(self, answers: list[tuple[int, bytes]], *, acts: bool = True) -> None:
        self.fake = FakeSkyvern()
        self.workflow = self.fake.workflow(plan=("running",))
        self.answers = answers
        self.acts = acts
        self.now = 0.0
        transport = httpx.MockTransport(self.handle)
        self.client = SkyvernClient(Settings(API_KEY), retry=RetryPolicy(attempts=1), transport=transport)
        self.memory: dict[str, Any] = {}

    def handle(self, request: httpx.Request) -> httpx.Response:
        if not self.answers:
            return self.fake.handle(request)
        if self.acts:
            self.fake.handle(request)
        status, content = self.answers.pop(0)
        return httpx.Response(status, content=content)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def submission(self) -> Submission:
        request = RunRequest.of({"workflow_id": self.workflow})
        names = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "max_tries": 3}
        return Submission(
            self.client.send,
            request,
            RunKey.of(**names, request=request),  # type: ignore[arg-type]  # ints among texts
            log=LogLines(),
            store=StartStore(Store(self.memory)),
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def wait(self, run_id: str) -> Wait[Any]:
        return Wait(run_id, poll_interval=10, deadline=1e6, log=LogLines(), clock=lambda: self.now, run_known=True)


class Store:
    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept

    def get(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.kept[key] = value


@pytest.mark.slow
@settings(max_examples=2 * EXAMPLES)
@given(st.lists(FOREIGN_ANSWERS, max_size=8))
def test_no_foreign_answer_ends_a_wait(answers: list[tuple[int, bytes]]) -> None:
    world = World([], acts=False)
    run_id = world.fake.run(plan=("running", "completed"))
    world.answers = list(answers)
    run = wait_for_end(world.wait(run_id), lambda: fetch_run(world.client.send, run_id), world.sleep)
    assert run is not None
    assert (run.run_id, run.status, world.answers) == (run_id, "completed", [])


@pytest.mark.slow
@settings(max_examples=2 * EXAMPLES)
@given(FOREIGN_ANSWERS, st.booleans())
def test_no_foreign_answer_to_a_start_is_recorded_as_not_started(
    answer: tuple[int, bytes],
    acts: bool,
) -> None:
    world = World([answer], acts=acts)
    run = None
    with suppress(SkyvernCreditError, SkyvernStartUnknown):
        run = world.submission().start(Attempt())
    if acts:
        assert run is not None
        assert [run.run_id] == list(world.fake.runs)
    else:
        assert world.memory["skyvern_run"]["group"]
        assert world.fake.runs == {}


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(st.lists(FOREIGN_ANSWERS, max_size=6))
def test_no_foreign_answer_to_a_retrys_search_starts_a_second_run(answers: list[tuple[int, bytes]]) -> None:
    world = World([])
    first = world.submission().start(Attempt())
    world.answers = [answer for answer in answers if answer[1] not in (b"[]", b"null")]
    assert world.submission().start(Attempt(earlier_tries=1)).run_id == first.run_id
    assert len(world.fake.runs) == 1


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(st.lists(FOREIGN_ANSWERS, max_size=6))
def test_no_foreign_answer_to_a_cancel_is_taken_for_one(answers: list[tuple[int, bytes]]) -> None:
    world = World([], acts=False)
    run_id = world.fake.run(plan=("running",))
    world.answers = [answer for answer in answers if answer[1] != b"null"]
    assert cancel_and_fetch(world.client.send, run_id, sleep=world.sleep).status == "canceled"


def refuse(world: World, run_id: str, *, seconds: float, words: str) -> Callable[[Call[Any]], Any]:
    """Deny a run for some seconds, in Skyvern's own words."""

    def send(call: Call[Any]) -> Any:
        if world.now < seconds and call.path in (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/cancel"):
            return sent(call, httpx.Response(404, json={"detail": words.format(run_id)}))
        return world.client.send(call)

    return send


@pytest.mark.parametrize(("seconds", "canceled"), [(1, True), (REFUSAL_PATIENCE - 10, True)])
def test_a_cancel_that_is_refused_once_is_sent_again(seconds: float, *, canceled: bool) -> None:
    world = World([])
    run_id = world.fake.run(plan=("running",))
    send = refuse(world, run_id, seconds=seconds, words="Run not found {}")
    world.sleep(0)
    patiently = while_transient(REFUSAL_PATIENCE, sleep=world.sleep, clock=lambda: world.now, refusals=patience_with)
    patiently(send, api.cancel_run(run_id))
    assert (world.fake.status(run_id) == "canceled") is canceled


def retry_of(world: World, send: Callable[[Call[Any]], Any], **more: Any) -> Any:
    submission = world.submission()
    submission._send = send
    return submission.start(Attempt(earlier_tries=1, **more))


@pytest.mark.parametrize("seconds", [1, REFUSAL_PATIENCE - 10])
def test_a_run_that_is_listed_and_denied_for_minutes_is_resumed(seconds: float) -> None:
    world = World([])
    first = world.submission().start(Attempt())
    send = refuse(world, first.run_id, seconds=seconds, words="Task run not found {}")
    assert retry_of(world, send).run_id == first.run_id
    assert len(world.fake.runs) == 1


def test_a_recorded_run_that_is_denied_once_is_resumed() -> None:
    """Its tags were lost, so only the store knows it."""
    world = World([])
    first = world.submission().start(Attempt())
    world.fake.runs[first.run_id].tags.clear()
    send = refuse(world, first.run_id, seconds=1, words="Task run not found {}")
    assert retry_of(world, send).run_id == first.run_id
    assert len(world.fake.runs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [30, KEY_ROTATION_PATIENCE - 10])
def test_a_key_that_is_refused_for_minutes_does_not_fail_the_search_of_a_retry(seconds: float) -> None:
    world = World([])
    first = world.submission().start(Attempt())

    def send(call: Call[Any]) -> Any:
        world.fake.api_key = "the-next-key" if world.now < seconds else API_KEY
        return world.client.send(call)

    assert retry_of(world, send).run_id == first.run_id


@pytest.mark.slow
def test_a_key_that_stays_refused_fails_a_retry_after_ten_minutes() -> None:
    world = World([])
    world.submission().start(Attempt())
    world.fake.api_key = "another"
    with pytest.raises(SkyvernAuthError):
        retry_of(world, world.client.send)
    assert KEY_ROTATION_PATIENCE <= world.now <= KEY_ROTATION_PATIENCE + 10


@pytest.mark.slow
def test_after_a_clear_a_refused_key_fails_at_once_unless_the_store_says_that_it_has_worked() -> None:
    world = World([])
    world.fake.api_key = "another"
    with pytest.raises(SkyvernAuthError):
        retry_of(world, world.client.send, after_clear=True)
    assert world.now == 0
    world.memory["skyvern_run"] = {"group": "g", "run_id": "wr_1"}
    with pytest.raises(SkyvernAuthError):
        retry_of(world, world.client.send, after_clear=True)
    assert world.now >= KEY_ROTATION_PATIENCE


FIND = "/v1/runs"
OLD: Mapping[str, httpx.Response] = {
    "403 of a WAF": httpx.Response(403, html=HTML),
    "403 JSON": httpx.Response(403, json={"detail": "Forbidden"}),
    "404 of FastAPI": httpx.Response(404, json={"detail": "Not Found"}),
    "302": httpx.Response(302, headers={"location": "/login"}),
}


@pytest.mark.parametrize("path", [FIND, "/v1/run-tags"])
@pytest.mark.parametrize("answer", OLD)
def test_one_foreign_answer_to_a_search_is_not_taken_for_missing_tags(path: str, answer: str) -> None:
    world = World([])
    first = world.submission().start(Attempt())
    world.memory.clear()
    world.fake.next("GET", path, OLD[answer])
    assert world.submission().start(Attempt(earlier_tries=1)).run_id == first.run_id


def test_a_list_of_other_runs_is_not_taken_for_missing_tags_where_the_server_knows_the_filter() -> None:
    world = World([])
    first = world.submission().start(Attempt())
    world.memory.clear()
    stranger = world.fake.run(plan=("running",))
    world.fake.next("GET", FIND, httpx.Response(200, json=[{"run_id": stranger, "status": "running"}]))
    assert world.submission().start(Attempt(earlier_tries=1)).run_id == first.run_id
