"""The file of a task's workflow: found next to the DAG file, checked when that is parsed, published as a version."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.client import api
from airflow_skyvern.client.json_values import json_of
from airflow_skyvern.client.run_request import decoded
from airflow_skyvern.client.workflow_parameters import LATER, check_block, check_parameters
from airflow_skyvern.compat import internals
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.models import Workflow
from airflow_skyvern.task.arguments import is_dynamic
from airflow_skyvern.task.task_try import TaskTry
from airflow_skyvern.workflow_files.checks import check
from airflow_skyvern.workflow_files.form import digest_of, form_of
from airflow_skyvern.workflow_files.publish import ensure_version
from airflow_skyvern.workflow_files.text import WorkflowFile, read

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.wait import Log

NO_UPLOADS = (
    "workflow_file runs a certain version, and Skyvern attaches files only to runs of the newest one. Push the file "
    "with `airflow-skyvern workflows push`, and give workflow_id"
)


class TaskWithFile(Protocol):
    """The interface of a task whose workflow is a file."""

    task_id: str
    workflow_file: str | None
    workflow_version: str | None
    version_to_publish: Mapping[str, Any] | None
    check_parameters: bool
    output_from: str | None
    upload: Mapping[str, str] | None
    run_options: Mapping[str, Any] | None

    @property
    def log(self) -> Log:
        """Its log."""

    @property
    def hook(self) -> SkyvernHook:
        """The hook of its connection."""

    def get_dag(self) -> Any:
        """Return its DAG."""

    def sleep_unless_killed(self, seconds: float) -> None:
        """Wait; a kill of the task ends it."""


def check_when_parsed(task: TaskWithFile, parameters: Any) -> None:
    """
    Check, without a request, what is known of a task when its DAG is parsed.

    :param parameters: What the author gives; :data:`LATER` where a function returns them.
    :raises SkyvernConfigError: names the task, and what is wrong in the file or in the parameters.
    """
    try:
        _check_arguments(task)
        if not is_dynamic(task.workflow_file):
            file = file_of(task)
            check(file, keys=task.check_parameters)
            _check_known(task, file, parameters)
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task.task_id!r}: {error}") from None


def check_before_start(task: TaskWithFile, parameters: Mapping[str, Any] | None) -> Workflow:
    """
    Check file and parameters right before a run is started, and return what the file says.

    :raises SkyvernConfigError: names what is wrong; nothing was sent.
    """
    file = file_of(task)
    for warning in check(file, keys=task.check_parameters):
        task.log.warning("%s", warning)
    workflow = _workflow_of(file)
    if task.check_parameters:
        check_parameters(workflow, parameters or {})
        if task.output_from:
            check_block(workflow, task.output_from)
    return workflow


def with_version(task: TaskWithFile, request: RunRequest) -> RunRequest:
    """
    Return the request of a run of the file's version, which is made now if it does not exist yet.

    :raises SkyvernRequestError: Skyvern does not accept the definition.
    """
    file = file_of(task)
    published = ensure_version(task.hook.send, file, task.log, sleep=task.sleep_unless_killed)
    task.log.info(
        "%s: %s version %d of workflow %s",
        file.name,
        "made" if published.made else "found",
        published.version,
        published.workflow_id,
    )
    task.version_to_publish = version_note(file.name, published.workflow_id, published.version, file.digest)
    return request.model_copy(update={"workflow_id": published.workflow_id, "workflow_version": published.version})


def with_address(task: TaskWithFile, run: Run) -> Run:
    """Fetch a run whose start has returned no more than its id; without an answer, it stays as it is."""
    if run.app_url is not None:
        return run
    try:
        return task.hook.fetch_run(run.run_id)
    except SkyvernError as error:
        task.log.warning("Skyvern run %s: its address is not known yet. %s", run.run_id, error)
        return run


def shown_when_rendered(task: TaskWithFile, context: Context) -> str:
    """Return the version for Airflow's page of rendered arguments: the run's, once there is one, else the file's."""
    resumed = TaskTry(context) if internals.is_executed(context) else None
    note = resumed.published_workflow_version() if resumed is not None and resumed.is_resumed else None
    if note is not None:
        return _shown(note)
    try:
        file = file_of(task)
    except SkyvernConfigError:
        return "the file cannot be read here"
    return f"{file.name}, content {file.digest}"


def _shown(note: Mapping[str, Any]) -> str:
    return f"{note['file']}, content {note['digest']}: version {note['version']} of workflow {note['workflow_id']}"


def publish_version(task: TaskWithFile, task_try: TaskTry, run_id: str) -> None:
    """Push which version is run, and show it among the rendered arguments; an earlier try may have started it."""
    try:
        note = task.version_to_publish or _version_of_run(task, run_id)
    except SkyvernError as error:
        task.log.warning("Skyvern run %s: the version of its workflow is not known. %s", run_id, error)
        return
    task_try.publish_workflow_version(note)
    task.workflow_version = _shown(note)


def version_note(name: str, workflow_id: str, version: int | None, digest: str) -> dict[str, Any]:
    """Return what is pushed of a version."""
    return {"file": name, "workflow_id": workflow_id, "version": version, "digest": digest}


def _version_of_run(task: TaskWithFile, run_id: str) -> dict[str, Any]:
    """Fetch from Skyvern the version that a run was started with: the file may have changed since."""
    workflow = task.hook.send(api.get_run_definition(run_id)).get("workflow") or {}
    workflow_id, name = str(workflow.get("workflow_permanent_id")), Path(str(task.workflow_file)).name
    return version_note(name, workflow_id, workflow.get("version"), digest_of(form_of(workflow)))


def file_of(task: TaskWithFile) -> WorkflowFile:
    """
    Read the file of a task, whose path is relative to the file of its DAG.

    :raises SkyvernConfigError: it is not there, or holds no workflow.
    """
    path = _path_of(task)
    try:
        state = path.stat()
    except OSError as error:
        raise SkyvernConfigError(
            f"workflow_file: {path}: {error.strerror}. A relative path is relative to the DAG's file; a DAG that a "
            "library makes needs an absolute one, such as Path(__file__).with_name(…)."
        ) from error
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int, _size: int) -> WorkflowFile:
    """Read a file once for each change of it: a DAG is parsed again and again."""
    return read(path)


def _path_of(task: TaskWithFile) -> Path:
    given = Path(str(task.workflow_file))
    if given.is_absolute():
        return given
    dag = task.get_dag()
    if dag is None or not dag.fileloc:
        raise SkyvernConfigError(f"workflow_file: {given}: is relative, and the task has no DAG yet.")
    searched = dag.template_searchpath or ()
    folders = [Path(dag.fileloc).parent, *map(Path, [searched] if isinstance(searched, str) else searched)]
    return next((path for folder in folders if (path := folder / given).is_file()), folders[0] / given)


def _check_arguments(task: TaskWithFile) -> None:
    if task.upload:
        raise SkyvernConfigError(f"upload: {NO_UPLOADS}.")
    options = task.run_options
    if isinstance(options, Mapping) and options.get("file_ids"):
        raise SkyvernConfigError(f"run_options.file_ids: {NO_UPLOADS}.")


def _check_known(task: TaskWithFile, file: WorkflowFile, parameters: Any) -> None:
    given = _known(parameters)
    if task.check_parameters and given is not None and not any(map(is_dynamic, given)):
        check_parameters(_workflow_of(file), given)
    if task.check_parameters and task.output_from and not is_dynamic(task.output_from):
        check_block(_workflow_of(file), task.output_from)


def _known(parameters: Any) -> dict[str, Any] | None:
    """Return the parameters as far as they are known now; None where not even their names are."""
    if isinstance(parameters, str) and not is_dynamic(parameters) and not parameters.endswith(".json"):
        parameters = decoded("parameters", parameters)
    if not isinstance(parameters, Mapping):
        return {} if parameters is None else None
    return {
        name: LATER if is_dynamic(value) else json_of(value, f"parameters.{name}")
        for name, value in parameters.items()
    }


def _workflow_of(file: WorkflowFile) -> Workflow:
    """Return what a file says, as if Skyvern had answered with it."""
    definition = file.form["workflow_definition"]
    own = {"workflow_permanent_id": file.name, "workflow_id": file.name, "title": file.title}
    return Workflow.model_validate({**own, "workflow_definition": definition})
