"""
The pages, as a FastAPI app that Airflow's API server mounts at ``/skyvern``; created at the first request.

Every route that shows part of a DAG has ``dag_id`` in its path and :data:`~airflow_skyvern.ui.access.READ` among
its dependencies. Which run it shows follows from the task instance alone: no run id is ever taken from an address.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Annotated, Any

import httpx
from airflow.api_fastapi.core_api.security import GetUserDep  # noqa: TC002  FastAPI reads the annotations
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_skyvern.exceptions import SkyvernNotFoundError
from airflow_skyvern.ui import decision, login_code, rendering
from airflow_skyvern.ui.access import READ
from airflow_skyvern.ui.dag_run import dag_run_page
from airflow_skyvern.ui.lookup import key_of
from airflow_skyvern.ui.media import Media
from airflow_skyvern.ui.newest_runs import newest_runs_page
from airflow_skyvern.ui.reader import DOWNLOAD, PICTURES, RunReader
from airflow_skyvern.ui.task_page import READ_ERRORS, TaskPages, ref_of, sentence_of, task_page

log = logging.getLogger(__name__)

TASK = "/ti/{dag_id}/{run_id}/{task_id}/{map_index}"
TRY = f"{TASK}/tries/{{try_number}}"

SENTENCES = {
    401: "You are not signed in any more. Reload the page to sign in.",
    403: "You may not read the task instances and XComs of this DAG.",
    404: "Airflow has no such page: the DAG, its run or the task does not exist.",
}


class Routes:
    """The routes of the app."""

    def __init__(self, reader: RunReader) -> None:
        self.reader = reader
        self.media = Media(reader.clients)
        self.tasks = TaskPages(reader)

    async def task(
        self, request: Request, user: GetUserDep, dag_id: str, run_id: str, task_id: str, map_index: str
    ) -> Response:
        """Show the run of a task instance."""
        return await task_page(self.tasks, request, user, (dag_id, run_id, task_id, map_index))

    async def picture(self, request: Request, user: GetUserDep, artifact_id: str) -> Response:
        """Send a screenshot of the run of a task instance."""
        ref = await ref_of(self.reader, request, user)
        artifact = _existing(await self.reader.artifact(ref, artifact_id, PICTURES))
        if (await self.reader.run(ref)).hides(artifact):
            raise HTTPException(404, "This picture may show a code.")
        return await self.media.picture(ref, artifact)

    async def recording(self, request: Request, user: GetUserDep) -> Response:
        """Send the recording of a task instance's run, or a part of it."""
        ref = await ref_of(self.reader, request, user)
        artifact = _existing(await self.reader.recording(ref))
        return await self.media.recording(ref, artifact, _id_of(user), request.headers.get("range"))

    async def file(self, request: Request, user: GetUserDep, artifact_id: str) -> Response:
        """Send a file that the run of a task instance has downloaded."""
        ref = await ref_of(self.reader, request, user)
        artifact = _existing(await self.reader.artifact(ref, artifact_id, (DOWNLOAD,)))
        files = (await self.reader.run(ref)).files
        name = next((file.name for file in files if file.artifact_id == artifact_id), "file")
        return await self.media.download(ref, artifact, _id_of(user), request.headers.get("range"), name)

    async def code(
        self,
        user: GetUserDep,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: str,
        code: Annotated[Any, Body(embed=True)],
    ) -> JSONResponse:
        """Give Skyvern the code for which the run of a task instance waits at its login."""
        await login_code.send_code(self.reader, user, key_of(dag_id, run_id, task_id, map_index), code)
        return JSONResponse({"sent": True})

    async def dag_run(self, request: Request, user: GetUserDep, dag_id: str, run_id: str) -> Response:
        """Show all runs of a DAG run."""
        return await dag_run_page(self.tasks, request, user, dag_id, run_id)

    async def newest(self, request: Request, user: GetUserDep) -> Response:
        """Show the newest runs of all DAGs that the user may read."""
        return await newest_runs_page(self.reader, request, user)

    async def static(self, version: str, name: str) -> Response:
        """Send a static file; its version is only there so that browsers may keep it."""
        found: Response = _existing(rendering.static_file(name))
        return found


def _existing(found: Any) -> Any:
    if found is None:
        raise HTTPException(404, "This page does not exist.")
    return found


def _id_of(user: Any) -> str:
    return str(user.get_id())


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with a page that says why, or to the page's script with JSON."""
    assert isinstance(error, StarletteHTTPException)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    sentence = SENTENCES.get(error.status_code, str(error.detail))
    answer = rendering.page("message.html", request.scope.get("root_path", ""), error.status_code, sentence=sentence)
    answer.headers.update(error.headers or {})
    return answer


async def _not_answered(request: Request, error: Exception) -> Response:
    """Answer if Skyvern does not: this is no error of this server, and leaves no traceback in its log."""
    log.info("Skyvern did not answer for %s: %s", request.url.path, type(error).__name__)
    status = 404 if isinstance(error, SkyvernNotFoundError) else 502
    return await _refused(request, StarletteHTTPException(status, sentence_of(error, "")))


def made(pages: Routes) -> FastAPI:
    """Create the app, without API documentation pages."""
    app = FastAPI(title="Skyvern", openapi_url=None)
    html: dict[str, Any] = {"methods": ["GET"], "response_class": HTMLResponse, "response_model": None}
    app.add_api_route(TASK, pages.task, dependencies=READ, **html)
    app.add_api_route(f"{TRY}/pictures/{{artifact_id}}", pages.picture, dependencies=READ, **html)
    app.add_api_route(f"{TRY}/recording", pages.recording, dependencies=READ, **html)
    app.add_api_route(f"{TRY}/files/{{artifact_id}}", pages.file, dependencies=READ, **html)
    app.add_api_route(f"{TASK}/answer", decision.answer, methods=["POST"], dependencies=decision.ANSWER)
    app.add_api_route(f"{TASK}/code", pages.code, methods=["POST"], dependencies=decision.ANSWER)
    app.add_api_route("/dag_run/{dag_id}/{run_id}", pages.dag_run, dependencies=READ, **html)
    app.add_api_route("/runs", pages.newest, **html)
    app.add_api_route("/static/{version}/{name}", pages.static, **html)
    app.add_exception_handler(StarletteHTTPException, _refused)
    for kind in (*READ_ERRORS, httpx.HTTPError):
        app.add_exception_handler(kind, _not_answered)
    return app


@cache
def app() -> FastAPI:
    """Return the app of this process."""
    return made(Routes(RunReader()))
