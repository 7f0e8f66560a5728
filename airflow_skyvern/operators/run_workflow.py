"""Run a Skyvern workflow, wait for it, and return its output."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow_skyvern import compat, metrics
from airflow_skyvern.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    conf,
)
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError, SkyvernWaitTimeout
from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.results.contract import check_schema
from airflow_skyvern.results.deliver import check_place, deliver_evidence, deliver_files, file_options
from airflow_skyvern.results.destination import check_output_to
from airflow_skyvern.results.uploads import check_upload
from airflow_skyvern.task.approval import answer_of, check_approval, is_answer, is_resumed
from airflow_skyvern.task.arguments import check_arguments, included, seconds_of
from airflow_skyvern.task.deadlines import airflows_timeout_for, deadline_after, deadline_to_fetch
from airflow_skyvern.task.deferral import NOTE, note_of_run
from airflow_skyvern.task.endings import logged_error_of
from airflow_skyvern.task.permanent_errors import no_retry_for_permanent_errors
from airflow_skyvern.task.task_try import TaskTry

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.options import ExpectedFiles
    from airflow_skyvern.results.output import OutputOptions
    from airflow_skyvern.results.uploads import Uploads
    from airflow_skyvern.runs.event import RunEvent
    from airflow_skyvern.runs.wait import Wait
    from airflow_skyvern.task.active_run import ActiveRun
    from airflow_skyvern.task.approval import Approvals, Note
    from airflow_skyvern.triggers import SkyvernRunTrigger

DEFAULT_TIMEOUT = timedelta(hours=9)
"""An hour more than the longest run that Skyvern allows (480 minutes)."""

REQUEST_FIELDS = (
    "workflow_id",
    "parameters",
    "title",
    "proxy_location",
    "webhook_url",
    "browser_session_id",
    "browser_profile_id",
)
"""The arguments that the API takes by these names; ``run_options`` holds the rarer ones."""


class SkyvernRunWorkflowOperator(BaseOperator):
    """
    Run a Skyvern workflow, wait for it, and return its output.

    With ``deferrable=True`` the wait takes no worker slot. The run is canceled in Skyvern when the task is killed or
    times out.

    XCom: ``run_id`` and ``app_url`` (the run's page in Skyvern) as soon as the run has started;
    ``return_value`` at the end: the run's output (with ``output_to`` a reference to its file), or the run's id with
    ``wait_for_completion=False``. With ``files_to``, ``files``: a list of ``{"path", "filename", "size",
    "checksum"}``, and ``evidence``, the same for recording and screenshots. The output holds
    whatever the workflow's blocks return; an HTTP request block returns the headers it sent, whose secrets are
    masked.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/run-workflow

    :param workflow_id: The workflow to run: ``wpid_…``. (templated)
    :param parameters: Values for the workflow's parameters: a mapping, or the path of a ``.json`` file beside
        the DAG (or in its ``template_searchpath``), which is rendered as a template too. Moments, dates,
        ``Decimal``, ``UUID``, paths, enums, sets, pydantic models and dataclasses become JSON. (templated)
    :param title: A title for the run. Skyvern 1.0.56 accepts and drops it. (templated)
    :param proxy_location: Where the browser appears to be: a name such as ``"RESIDENTIAL_DE"``, or
        ``{"country": "US", "subdivision": "CA", "city": "San Francisco"}``. Default: Skyvern's. (templated)
    :param webhook_url: Address that Skyvern notifies of the end of the run. (templated)
    :param browser_session_id: Open browser session to use: ``pbs_…``. (templated)
    :param browser_profile_id: Saved browser profile to use: ``bp_…``. (templated)
    :param run_options: The rarer parameters of the API, as a mapping: ``max_elapsed_time_minutes`` (1 to 480),
        ``totp_identifier``, ``totp_url``, ``extra_http_headers``, ``cdp_connect_headers``,
        ``browser_address``, ``browser_type``, ``run_with`` (``"agent"`` or ``"code"``), ``ai_fallback``,
        ``max_screenshot_scrolls``, ``start_fresh_browser``, ``reuse_browser_session``, ``run_metadata``,
        ``file_ids``. (templated)
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``.
        (templated)
    :param wait_for_completion: Whether to wait for the end. Without waiting, give ``run_id`` to
        :class:`~airflow_skyvern.sensors.SkyvernRunSensor`. Default: True.
    :param deferrable: Whether to wait in the triggerer. Default: ``[operators] default_deferrable``.
    :param durable: Whether to start exactly once: a retry resumes the run that an earlier try has started, and
        after a lost answer the run is searched for instead of started again. Sends five tags with the run. With
        False, every try starts a run of its own. Default: True.
    :param lost_start_timeout: Seconds, or a timedelta, for which a run whose start was not answered is searched
        for. Default: 30.
    :param cancel_on_kill: Whether killing or clearing the task cancels the run. Default: True.
    :param skip_on: Final statuses that skip the task instead of failing it: ``failed``, ``terminated``,
        ``timed_out``, ``canceled``. Default: none.
    :param poll_interval: Seconds between two polls of the run, or a timedelta. Default: 10.
    :param timeout: Seconds, or a timedelta, after which the run is canceled and the task fails. Also counts
        while deferred, across restarts. An earlier ``execution_timeout`` counts too, less 30 s (at most half of
        it) for canceling. Default: 9 hours.
    :param mask_output: Whether secrets that blocks echo are replaced by ``***`` in the output before it is pushed:
        headers such as Authorization, cookies, passwords and keys by their names, secret values in addresses, and
        what Airflow masks in logs. Default: True.
    :param check_parameters: Whether to check names, types and missing values of ``parameters`` against the workflow's
        definition before a run is started, which takes one request. Skyvern itself ignores unknown names. Where the
        definition cannot be fetched, the run is started unchecked. Default: True.
    :param output_from: Label of the block whose output is taken: of a block that used the browser its extracted
        data, of any other its whole entry. ``"extracted_information"`` takes the list of what all blocks have
        extracted. Default: the whole output.
    :param output_schema: What the output has to look like: a pydantic model class (or ``list[Model]``), a JSON
        Schema as a mapping, or the path of a JSON Schema file beside the DAG. The validated value is pushed as plain
        JSON. An output that does not fit fails the task without a retry. Default: not checked.
    :param output_to: File that the output is written to instead of XCom, as JSON: an absolute path or an address such
        as ``s3://bucket/{{ run_id }}.json``. ``{skyvern_run_id}`` stands for Skyvern's id of the run. Pushed is
        ``{"path", "size", "checksum"}``. A file of that name is replaced. Default: the output is pushed. (templated)
    :param output_conn_id: Id of the Airflow connection for that store. Default: what the environment of the worker
        says. (templated)
    :param rerun_on_invalid_output: Whether a task whose output does not fit is retried, with a new run in each try.
        Default: False.
    :param files_to: Where the files go that the run downloads: an absolute path, ``file://``, or an address such as
        ``s3://bucket/folder``. Each is there as a whole or not at all, and checked against Skyvern's size and sha256;
        a retry fetches what is missing, of the same run. Default: they stay in Skyvern. (templated)
    :param files_conn_id: Id of the Airflow connection for that store. Default: what the environment of the worker
        says. (templated)
    :param file_name: Names for the files: after Jinja, ``{index}`` counts from 1, ``{name}`` is Skyvern's name
        without extension, ``{extension}`` the extension with its dot. Default: Skyvern's names. (templated)
    :param overwrite: Whether a file may take the place of another one of its name. Default: False.
    :param recording: Whether the recording is stored there too, also of a run that ended badly. Default: False.
    :param screenshots: The same for screenshots. Default: False.
    :param expect_files: How many files a completed run must have downloaded: a number, ``(least, most)``, or name
        patterns such as ``["*.pdf"]`` that each must match a file. Default: any.
    :param approval: ``"airflow"``: when the run waits for a person (a ``human_interaction`` block), ask in Airflow's
        Required Actions, and give the answer to Skyvern. Needs Airflow 3.1 and ``deferrable=True``. Default: None, a
        person answers in Skyvern.
    :param on_reject: What a person's rejection in Airflow does with the task, after the run was canceled: ``"fail"``,
        without retries; ``"skip"``; ``"return"``, which succeeds and returns the XCom ``approval``. Default:
        ``"fail"``.
    :param return_run: Whether the value is the whole run instead of its output: ``{"run_id", "status", "app_url",
        "parameters", "output", "files"}``, so that a task mapped over runs has them all. Default: False.
    :param upload: Files to send to Skyvern for the run, right before it is started: name of the parameter → absolute
        path or address such as ``s3://bucket/x.csv``, of at most 30 MiB. The parameter gets the file's id. Skyvern
        deletes the file when the run ends. Default: none. (templated)
    :param upload_conn_id: Id of the Airflow connection for their store. Default: what the environment of the worker
        says. (templated)
    :raises SkyvernConfigError: an argument is wrong; when the DAG is parsed if it can be known then.
    :raises SkyvernOutputError: with ``rerun_on_invalid_output=True``: the output is not what ``output_schema`` and
        ``output_from`` say. Else that is an AirflowFailException.
    :raises SkyvernRunError: the run ended as failed, terminated, timed out or canceled; the error carries it.
    :raises SkyvernWaitTimeout: the run did not end in time.
    :raises SkyvernStartUnknown: the start was not answered and no run was found; a retry searches again first.
    :raises SkyvernTransferError: a file could not be stored in full; a retry takes the same run.
    :raises AirflowFailException: no retry can help: wrong key, unknown workflow, parameters that do not fit it,
        refused request, no credit, other files than expected, another file in the place of one.
    """

    template_fields: Sequence[str] = (
        *REQUEST_FIELDS,
        "run_options",
        "skyvern_conn_id",
        "files_to",
        "files_conn_id",
        "file_name",
        "upload",
        "upload_conn_id",
        "output_to",
        "output_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "run_options": "json"}
    operator_extra_links = (SkyvernRunLink(),)
    ui_color = "#e8eefc"
    trigger_failed_wait: ClassVar[float] = 60.0
    """Seconds for which a worker polls the run of a trigger that failed, before it defers again."""

    def __init__(
        self,
        *,
        workflow_id: str,
        parameters: Mapping[str, Any] | str | None = None,
        title: str | None = None,
        proxy_location: str | Mapping[str, str] | None = None,
        webhook_url: str | None = None,
        browser_session_id: str | None = None,
        browser_profile_id: str | None = None,
        run_options: Mapping[str, Any] | None = None,
        skyvern_conn_id: str = "skyvern_default",
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        lost_start_timeout: timedelta | float = 30.0,
        cancel_on_kill: bool = True,
        skip_on: Collection[str] = (),
        poll_interval: timedelta | float = 10.0,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        mask_output: bool = True,
        check_parameters: bool = True,
        output_from: str | None = None,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        output_to: str | None = None,
        output_conn_id: str | None = None,
        rerun_on_invalid_output: bool = False,
        files_to: str | None = None,
        files_conn_id: str | None = None,
        file_name: str | None = None,
        overwrite: bool = False,
        recording: bool = False,
        screenshots: bool = False,
        expect_files: ExpectedFiles = None,
        upload: Mapping[str, str] | None = None,
        upload_conn_id: str | None = None,
        approval: Literal["airflow"] | None = None,
        on_reject: Literal["fail", "skip", "return"] = "fail",
        return_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.return_run = return_run
        self.workflow_id = workflow_id
        self.parameters = parameters
        self.title = title
        self.proxy_location = proxy_location
        self.webhook_url = webhook_url
        self.browser_session_id = browser_session_id
        self.browser_profile_id = browser_profile_id
        self.run_options = run_options
        self.skyvern_conn_id = skyvern_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.durable = durable
        self.lost_start_timeout = seconds_of("lost_start_timeout", lost_start_timeout)
        self.cancel_on_kill = cancel_on_kill
        self.skip_on = frozenset(skip_on)
        self.poll_interval = seconds_of("poll_interval", poll_interval)
        self.timeout = seconds_of("timeout", timeout)
        self.mask_output = mask_output
        self.check_parameters = check_parameters
        self.output_from = output_from
        self.output_schema = output_schema
        self.output_to = output_to
        self.output_conn_id = output_conn_id
        self.rerun_on_invalid_output = rerun_on_invalid_output
        fields = {name: getattr(self, name) for name in REQUEST_FIELDS}
        check_upload(self.task_id, upload, parameters)
        check_arguments(self.task_id, fields, run_options, skip_on=self.skip_on, durable=durable)
        check_schema(self.task_id, output_schema, has_output=wait_for_completion)
        self.files_to = files_to
        self.files_conn_id = files_conn_id
        self.file_name = file_name
        self.overwrite = overwrite
        self.recording = recording
        self.screenshots = screenshots
        self.expect_files = expect_files
        self.upload = upload
        self.upload_conn_id = upload_conn_id
        file_options(self).check(self.task_id)
        if file_options(self).wanted and not wait_for_completion:
            raise SkyvernConfigError(
                f"Task {self.task_id!r}: files_to and expect_files need wait_for_completion=True; or give run_id to "
                "a SkyvernRunSensor or a SkyvernDownloadFilesOperator with files_to."
            )
        check_output_to(self.task_id, output_to, has_output=wait_for_completion)
        self.approval = approval
        self.on_reject = on_reject
        check_approval(self.task_id, approval, on_reject, waits_deferred=deferrable and wait_for_completion)

    @cached_property
    def hook(self) -> SkyvernHook:
        """The hook of this task's connection."""
        from airflow_skyvern.hooks import SkyvernHook

        return SkyvernHook(self.skyvern_conn_id)

    @cached_property
    def _active_run(self) -> ActiveRun:
        from airflow_skyvern.task.active_run import ActiveRun

        return ActiveRun(lambda: self.hook, self.log, cancel_on_kill=self.cancel_on_kill, durable=self.durable)

    @cached_property
    def _output_options(self) -> OutputOptions:
        from airflow_skyvern.results.output import OutputOptions

        return OutputOptions.of(self)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """
        Render a value; the path of a ``.json`` file in ``parameters`` becomes what the file holds.

        :param seen_oids: The values that a mapped task got from another task, which are no templates and no paths.
        """
        if content is self.parameters and id(content) not in (seen_oids or ()):
            content = included(content)
        return super().render_template(content, context, jinja_env, seen_oids)

    def execute(self, context: Context) -> Any:
        """Start the run, publish it, and wait for its end or defer."""
        task_try = TaskTry(context)
        if self.deferrable:
            _trigger_class()  # a deployment that is half done fails here, before anything is started
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            check_place(self)
            run = self._start(task_try)
            task_try.publish_run(run)
            if not self.wait_for_completion:
                return run.run_id
            if run.is_final:
                return self._result(task_try, run)
            deadline = self._deadline(task_try)
            if self.deferrable and deadline > time.time():
                self._defer(task_try, run.run_id, deadline)
            return self._wait(task_try, run.run_id, deadline)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float = 0.0,
        try_number: int | None = None,
        skyvern: Any = None,
    ) -> Any:
        """
        Resume after the trigger: fetch the run once more, and end the task accordingly.

        :param skyvern: What the run page reads of the try, see :mod:`airflow_skyvern.task.deferral`.
        """
        task_try = TaskTry(context)
        if try_number is not None and try_number != task_try.number:
            self.log.warning("Resumed with the event of try %d, which is over: starting again", try_number)
            return self.execute(context)
        if is_answer(event) and (unasked := task_try.published_run_id()):
            self.log.warning("Skyvern run %s: asks nothing; the answer to an earlier request is ignored", unasked)
            self._defer(task_try, unasked, deadline)
        with self._active_run.canceled_if_given_up():
            ended = self._valid(event, task_try, skyvern)
        run_id, deadline = ended["run_id"], deadline_to_fetch(ended, deadline, self.log)
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            if ended["reason"] == "paused":
                self.log.info(
                    "Skyvern run %s: paused, waiting for a person in %s", run_id, ended["message"] or "Skyvern"
                )
                task_try.publish_pause(run_id, ended["message"])
                if self.approval is not None:
                    self._ask(task_try, run_id, deadline)
                self._defer(task_try, run_id, deadline, pause_known=True)
            return self._wait(task_try, run_id, deadline, end_known=ended["reason"] == "ended")

    def _valid(self, event: Any, task_try: TaskTry, note: Any) -> RunEvent:
        """Validate the event; if it is invalid, note the run that this failure may give up."""
        from airflow_skyvern.runs.event import event_of

        try:
            return event_of(event)
        except SkyvernError:
            run_id = note["run_id"] if note else task_try.published_run_id()
            if run_id is not None:
                self._active_run.is_running(task_try, run_id)
            raise

    def approval_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float = 0.0,
        try_number: int | None = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        """Resume after a person has answered, in Airflow or in Skyvern, or after the run has ended unanswered."""
        task_try = TaskTry(context)
        if try_number is not None and try_number != task_try.number:
            self.log.warning("Resumed with the answer to try %d, which is over: starting again", try_number)
            return self.execute(context)
        run_id = request["run_id"]
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            self._active_run.is_running(task_try, run_id)
            approvals = self._approvals(task_try, run_id)
            if (answer := answer_of(event, request)) is None:
                approvals.note_answer_in_skyvern(request, event)
                if not is_resumed(event):
                    return self.execute_complete(context, event, deadline, try_number)
            elif answer.approved:
                approvals.approve(request, answer)
            elif (rejected := approvals.reject(request, answer)) is not None:
                return self._rejected(task_try, *rejected)
            return self._defer(task_try, run_id, deadline)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume after a deferral, also after one that ended without an event.

        When the trigger sent nothing until long after its deadline, Airflow fails the task without calling it: the
        run is fetched once more then, and canceled if it has not ended. When the trigger itself failed, as its class
        could not be loaded during a deployment, this worker polls for a minute and then defers again.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            task_try = TaskTry(context)
            run_id = task_try.published_run_id() if next_method == "__fail__" else None
            if run_id is None:
                raise
            with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
                if not compat.deferral_timed_out(next_kwargs):
                    return self._wait_and_defer_again(task_try, run_id, error)
                self.log.error("The deferral ended without an event: %s", error)
                return self._wait(task_try, run_id, deadline=0.0)

    def on_kill(self) -> None:
        """Cancel the run if a user has ended the task or no retry will come, else leave it to the next try."""
        self._active_run.on_kill()

    def _deadline(self, task_try: TaskTry) -> float:
        return deadline_after(time.time(), self.timeout, self.execution_timeout, task_try.started_at)

    def _start(self, task_try: TaskTry) -> Run:
        from airflow_skyvern.task.parameters import refused_parameter_named

        _ = self._output_options  # a schema that cannot be read fails here, before anything is started
        request = self._request()
        with refused_parameter_named(request):
            run = self._start_once(task_try, request) if self.durable else self._start_anew(task_try, request)
        self._active_run.is_running(task_try, run.run_id)
        self.log.info(
            "Skyvern run %s of workflow %s: started, see %s",
            run.run_id,
            self.workflow_id,
            run.app_url or "Skyvern",
        )
        self._active_run.stop_if_killed()
        return run

    def _start_anew(self, task_try: TaskTry, request: RunRequest) -> Run:
        self._before_start(request)
        self._active_run.will_start(task_try, None)
        self._announce(task_try, None)
        run = self.hook.run_workflow(self._with_uploads(request))
        metrics.run_started(self.skyvern_conn_id, resumed=False)
        return run

    def _before_start(self, request: RunRequest) -> None:
        from airflow_skyvern.task.parameters import check_parameters

        if self.check_parameters:
            check_parameters(self.hook, request, self.log)
        self._active_run.stop_if_killed()

    def _start_once(self, task_try: TaskTry, request: RunRequest) -> Run:
        from airflow_skyvern.runs.submission import Attempt, Submission

        key = task_try.run_key(request)
        self._active_run.will_start(task_try, key.group)
        self._announce(task_try, key.group)
        submission = Submission(
            self.hook.send,
            request,
            key,
            log=self.log,
            store=task_try.start_store,
            lost_start_timeout=self.lost_start_timeout,
            before_start=lambda: self._before_start(request),
            final_request=self._with_uploads,
            rejects=self._output_options.rejects,
            sleep=self._active_run.sleep,
        )
        attempt = Attempt(
            earlier_tries=task_try.number - 1,
            after_clear=task_try.is_first_of_group(self.retries or 0),
            cancel_predecessor=self.cancel_on_kill,
            seconds_left=self._deadline(task_try) - time.time(),
        )
        run = submission.start(attempt)
        metrics.run_started(self.skyvern_conn_id, resumed=submission.resumed)
        return run

    def _announce(self, task_try: TaskTry, group: str | None) -> None:
        """Let the API server find the run when a user marks the task, even before the start was answered."""
        if self.cancel_on_kill and self.wait_for_completion:
            task_try.publish_connection_and_run_key(self.skyvern_conn_id, group)

    def _approvals(self, task_try: TaskTry, run_id: str) -> Approvals:
        from airflow_skyvern.task.approval import Approvals

        return Approvals(self.hook, task_try, run_id, self.log, self._active_run.sleep)

    def _ask(self, task_try: TaskTry, run_id: str, deadline: float) -> NoReturn:
        """Ask a person in Airflow, and wait for the answer; or wait for the run, if it asks nothing any more."""
        from airflow_skyvern.triggers import SkyvernApprovalTrigger

        self._active_run.is_running(task_try, run_id)
        request = self._approvals(task_try, run_id).ask(self.workflow_id)
        if request is None:
            self._defer(task_try, run_id, deadline)
        self._stop_if_ended_by_user(task_try, run_id)
        note = note_of_run(run_id, self.skyvern_conn_id, request["app_url"])
        self.defer(
            trigger=SkyvernApprovalTrigger(
                run_id,
                self.skyvern_conn_id,
                self.poll_interval,
                deadline,
                ti_id=str(task_try.id),
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="approval_complete",
            kwargs={"deadline": deadline, "try_number": task_try.number, "request": request, NOTE: note},
            timeout=airflows_timeout_for(deadline),
        )

    def _rejected(self, task_try: TaskTry, run: Run, note: Note) -> Any:
        """End the task after a person's rejection, unless the run has completed before it was canceled."""
        if run.succeeded:
            return self._result(task_try, run)
        self._active_run.ended()
        metrics.run_ended(self.skyvern_conn_id, run)
        who = note["answered_by"] or "A person"
        message = f"Skyvern run {run.run_id}: {who} rejected it in Airflow ({note['answer']})."
        if self.on_reject == "return":
            return note
        raise (AirflowSkipException if self.on_reject == "skip" else AirflowFailException)(message)

    def _stop_if_ended_by_user(self, task_try: TaskTry, run_id: str) -> None:
        if task_try.ended_by_user():
            self._active_run.is_running(task_try, run_id)
            self._active_run.stop_for_user()

    def _defer(self, task_try: TaskTry, run_id: str, deadline: float, *, pause_known: bool = False) -> NoReturn:
        self._stop_if_ended_by_user(task_try, run_id)
        note = note_of_run(run_id, self.skyvern_conn_id, task_try.published_app_url(run_id))
        self.defer(
            trigger=_trigger_class()(
                run_id,
                self.skyvern_conn_id,
                self.poll_interval,
                deadline,
                cancel_on_kill=self.cancel_on_kill,
                pause_known=pause_known,
            ),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "try_number": task_try.number, NOTE: note},
            timeout=airflows_timeout_for(deadline),
        )

    def _wait(self, task_try: TaskTry, run_id: str, deadline: float, *, end_known: bool = False) -> Any:
        """Wait on this worker, and return the result."""
        wait = self._new_wait(task_try, run_id, deadline, end_known=end_known)
        if (run := self._poll(task_try, wait)) is not None:
            return self._result_or_replacement(task_try, run, deadline)
        return self._result(task_try, self._cancel_at_deadline(wait))

    def _wait_and_defer_again(self, task_try: TaskTry, run_id: str, error: Exception) -> Any:
        """Continue after the trigger failed; deferring at once would fail at once again during a deployment."""
        self.log.warning(
            "Skyvern run %s: its trigger failed; this worker polls for a minute and defers again. %s", run_id, error
        )
        deadline = self._deadline(task_try)
        wait = self._new_wait(task_try, run_id, min(deadline, time.time() + self.trigger_failed_wait))
        if (run := self._poll(task_try, wait)) is not None:
            return self._result_or_replacement(task_try, run, deadline)
        if wait.deadline < deadline:
            self._defer(task_try, run_id, deadline)
        return self._result(task_try, self._cancel_at_deadline(wait))

    def _new_wait(self, task_try: TaskTry, run_id: str, deadline: float, *, end_known: bool = False) -> Wait[Run]:
        from airflow_skyvern.runs.wait import Wait

        return Wait(
            run_id,
            poll_interval=self.poll_interval,
            deadline=deadline,
            log=self.log,
            on_pause=lambda run: task_try.publish_pause(run_id, run.app_url),
            end_known=end_known,
        )

    def _poll(self, task_try: TaskTry, wait: Wait[Run]) -> Run | None:
        """Poll until the run has ended, or the deadline."""
        from airflow_skyvern.runs.wait import wait_for_end

        self._active_run.is_running(task_try, wait.run_id)
        run = wait_for_end(wait, lambda: self.hook.fetch_run(wait.run_id), self._active_run.sleep)
        self._active_run.stop_if_killed()
        return run

    def _result_or_replacement(self, task_try: TaskTry, run: Run, deadline: float) -> Any:
        """Return the result, or wait for the run that Skyvern itself has started in place of a failed one."""
        replacement = self._replacement_of(run)
        if replacement is None:
            return self._result(task_try, run)
        self.log.warning(
            "Skyvern run %s: %s; waiting for %s, which Skyvern started in its place with a fallback credential",
            run.run_id,
            run.status,
            replacement.run_id,
        )
        task_try.start_store.replaced(run.run_id, replacement.run_id)
        task_try.publish_run(replacement)
        self._active_run.is_running(task_try, replacement.run_id)
        if self.deferrable and deadline > time.time():
            self._defer(task_try, replacement.run_id, deadline)
        return self._wait(task_try, replacement.run_id, deadline)

    def _replacement_of(self, run: Run) -> Run | None:
        from airflow_skyvern.runs.lookup import find_replacement

        try:
            return find_replacement(self.hook.send, run, self.workflow_id, self._active_run.sleep)
        except SkyvernError as error:
            self.log.warning(
                "Skyvern run %s: Skyvern may have started another one in its place. %s", run.run_id, error
            )
            return None

    def _result(self, task_try: TaskTry, run: Run) -> Any:
        self._active_run.ended()
        metrics.run_ended(self.skyvern_conn_id, run)
        if run.succeeded:
            # First the value: a run whose output is refused delivers no files.
            value = self._output_options.value_of(run, self.log)
            files = deliver_files(self, task_try, run, self._active_run.stop_if_killed)
            task_try.start_store.done(run.run_id)
            return self._whole_run(run, value, files) if self.return_run else value
        deliver_evidence(self, task_try, run, self._active_run.stop_if_killed)
        error = logged_error_of(run, self.log, self.hook.send)
        if run.status in self.skip_on:
            raise AirflowSkipException(str(error)) from error
        raise error

    def _whole_run(self, run: Run, output: Any, files: Sequence[Any]) -> dict[str, Any]:
        from airflow_skyvern.results.whole_run import whole_run

        return whole_run(run, self._request().parameters, output, files, mask=self.mask_output)

    def _cancel_at_deadline(self, wait: Wait[Run]) -> Run:
        """Cancel the run; return it only if it completed at that very moment."""
        from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, cancel_and_fetch

        self._active_run.ended()
        link = f" See {wait.run.app_url}" if wait.run and wait.run.app_url else ""
        try:
            run = cancel_and_fetch(self.hook.send, wait.run_id, DEADLINE_PATIENCE, self._active_run.sleep)
        except SkyvernError as error:
            raise SkyvernWaitTimeout(
                f"Skyvern run {wait.run_id} did not end in time and may still be running: {error}{link}",
                wait.run,
            ) from error
        if run.succeeded:
            return run
        metrics.run_ended(self.skyvern_conn_id, run)
        raise SkyvernWaitTimeout(f"Skyvern run {wait.run_id} did not end in time; it is {run.status} now.{link}", run)

    def _request(self) -> RunRequest:
        """Build the request from the rendered arguments."""
        from airflow_skyvern.client.run_request import RunRequest, decoded

        fields = {name: getattr(self, name) for name in REQUEST_FIELDS}
        fields["parameters"] = decoded("parameters", self.parameters)
        request = RunRequest.of(fields, decoded("run_options", self.run_options))
        return self._uploads.announced_in(request)

    @property
    def _uploads(self) -> Uploads:
        from airflow_skyvern.results.uploads import Uploads

        return Uploads(self.upload or {}, self.upload_conn_id)

    def _with_uploads(self, request: RunRequest) -> RunRequest:
        """Send the files of the run; only a try that starts it does."""
        sent = self._uploads.sent_for(request, self.hook.upload_file, self.log)
        self._active_run.stop_if_killed()
        return sent


def _trigger_class() -> type[SkyvernRunTrigger]:
    from airflow_skyvern.triggers import SkyvernRunTrigger

    return SkyvernRunTrigger
