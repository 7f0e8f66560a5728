"""Run a Skyvern workflow, wait for it, and return its output."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_skyvern.compat import internals
from airflow_skyvern.compat.sdk import AirflowException, conf
from airflow_skyvern.durations import interval_of, seconds_of
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.operators.lifecycle import REQUEST_FIELDS, RunLifecycle, trigger_class
from airflow_skyvern.results.deliver import check_delivery, checked_file_options
from airflow_skyvern.task.arguments import check_arguments, included
from airflow_skyvern.task.base import check_untemplated
from airflow_skyvern.task.deferral import (
    FAILED,
    can_resume,
    deadline_of,
    deadline_to_fetch,
    no_method,
    note_of,
)
from airflow_skyvern.task.endings import no_retry_for_permanent_errors
from airflow_skyvern.task.task_try import NO_IDENTITY, TaskTry, check_is_the_task

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.results.mask_rules import MaskOutput
    from airflow_skyvern.results.options import ExpectedFiles, IfExists
    from airflow_skyvern.task.approval import Answer, Approvals, Approvers

DEFAULT_TIMEOUT = timedelta(hours=9)
"""An hour more than the longest run that Skyvern allows (480 minutes)."""


OF_FILE = "workflow_file"
"""Stands for the workflow of a file until that is found or made."""

NOT_RENDERED = "version of the workflow file: known when the task runs"

EVENT_OF_EARLIER_TRY = "Resumed with the event of try %d, which is over: starting again"
ANSWER_TO_EARLIER_TRY = "Resumed with the answer to try %d, which is over: starting again"


class SkyvernRunWorkflowOperator(RunLifecycle):
    """
    Run a Skyvern workflow, wait for it, and return its output.

    With ``deferrable=True`` the wait takes no worker slot. The run is canceled in Skyvern when the task is killed or
    times out.

    XCom: ``run_id`` and ``app_url`` (the run's page in Skyvern) as soon as the run has started;
    ``return_value`` at the end: the run's output (with ``output_to`` a reference to its file), or the run's id with
    ``wait_for_completion=False``. With ``files_to``, ``files``: a list of ``{"path", "filename", "size",
    "checksum"}``, and ``evidence``, the same for recording and screenshots. The output holds everything that the
    workflow's blocks return; an HTTP request block returns the headers that it sent, with their secrets masked.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/run-workflow

    :param workflow_id: The workflow to run: ``wpid_…``. (templated)
    :param workflow_file: Instead of it, the file of the workflow, ``.yaml`` or ``.json``, as ``airflow-skyvern
        workflows pull`` writes it; a relative path is relative to the DAG's file. Exactly the content of the file is
        run: as a version of its workflow, which is made in Skyvern if it does not exist yet. Edits in Skyvern are
        neither run nor lost. File and parameters are checked when the DAG is parsed. XCom ``workflow_version``:
        ``{"file", "workflow_id", "version", "digest"}``. (templated)
    :param parameters: Values for the workflow's parameters: a mapping, or the path of a ``.json`` file next to the
        DAG file (or in its ``template_searchpath``), which is rendered as a template too. Moments, dates,
        ``Decimal``, ``UUID``, paths, enums, sets, pydantic models and dataclasses become JSON. (templated)
    :param check_parameters: Whether to check names, types and missing values of ``parameters`` against the workflow's
        definition before a run is started, and the block of ``output_from``, which takes one request. Skyvern itself
        ignores unknown names. Where the definition cannot be fetched, the run is started unchecked. Default: True.
    :param upload: Files to send to Skyvern for the run, right before it is started: name of the parameter → absolute
        path or address such as ``s3://bucket/x.csv``, of at most 30 MiB. The parameter gets the file's id. Skyvern
        deletes the file when the run ends. Default: none. (templated)
    :param upload_conn_id: Id of the Airflow connection for their store. Default: the settings in the worker's
        environment. (templated)
    :param title: A title for the run. Skyvern 1.0.56 accepts and drops it. (templated)
    :param proxy_location: Where the browser appears to be: a name such as ``"RESIDENTIAL_DE"``, or
        ``{"country": "US", "subdivision": "CA", "city": "San Francisco"}``. Default: Skyvern's. (templated)
    :param webhook_url: Address that Skyvern notifies of the end of the run. (templated)
    :param browser_session_id: Open browser session to use: ``pbs_…``, as
        :func:`~airflow_skyvern.operators.skyvern_browser_session` gives it. If another run uses it, this task waits
        for its turn before it starts its run; the wait counts towards ``timeout``. (templated)
    :param browser_profile_id: Saved browser profile to use: its id, ``bp_…``, or its name, which is looked up right
        before the start. (templated)
    :param run_options: The rarer parameters of the API, as a mapping: ``max_elapsed_time_minutes`` (1 to 480),
        ``max_steps`` (of each block that uses the browser, after which the run fails; at least 1),
        ``totp_identifier``, ``totp_url``, ``extra_http_headers``, ``cdp_connect_headers``,
        ``browser_address``, ``browser_type``, ``run_with`` (``"agent"`` or ``"code"``), ``ai_fallback``,
        ``max_screenshot_scrolls``, ``start_fresh_browser``, ``reuse_browser_session``, ``run_metadata``,
        ``file_ids``. In runs of workflows, Skyvern ignores ``totp_identifier`` and ``totp_url``, though it returns
        them: set them in the workflow's login block, or the first in its credential. (templated)
    :param max_steps: Maximum number of steps for each block that uses the browser, instead of the workflow's own
        limits. The same as in ``run_options``. A run that reaches it fails and is not retried, unless a
        ``retry_policy`` of the task says so. Default: the workflow's, or Skyvern's. (templated)
    :param max_elapsed_time_minutes: Minutes after which Skyvern ends the run as ``timed_out``, 1 to 480; the same as
        in ``run_options``, and not retried either. Default: the workflow's, or Skyvern's. (templated)
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``.
        (templated)
    :param wait_for_completion: Whether to wait for the end. Without waiting, give ``run_id`` to
        :class:`~airflow_skyvern.sensors.SkyvernRunSensor`. Default: True.
    :param deferrable: Whether to wait in the triggerer. Default: ``[operators] default_deferrable``.
    :param poll_interval: Seconds between two polls of the run, or a timedelta, from 0.01 s to a day. Default: 10.
    :param timeout: Seconds, or a timedelta, after which the run is canceled and the task fails. Also counts
        while deferred, across restarts. An earlier ``execution_timeout`` counts too, less 30 s (at most half of
        it) for canceling. At most 3,660 days. Default: 9 hours.
    :param log_blocks: Whether to log, while the task waits, which blocks of the workflow have begun and ended:
        ``block 2 of 5: read_invoices, completed in 34 s``. Takes a request a minute, and one at the end; none in a
        triggerer with more than 300 waits. Default: False.
    :param durable: Whether to start exactly once: a retry resumes the run that an earlier try has started, and
        after a lost answer the run is searched for instead of started again. Sends five tags with the run. With
        False, every try starts a run of its own. Default: True.
    :param lost_start_timeout: Seconds, or a timedelta, for which a run whose start was not answered is searched
        for. Default: 30.
    :param cancel_on_kill: Whether killing or clearing the task cancels the run. Default: True.
    :param skip_on: Final statuses, one or several, that skip the task instead of failing it: ``failed``,
        ``terminated``, ``timed_out``, ``canceled``. Default: none.
    :param output_from: Label of the block whose output is taken: for a block that used the browser, its extracted
        data; for any other block, its whole entry. ``"extracted_information"`` takes the list of the data that all
        blocks have extracted. Default: the whole output. (templated)
    :param output_schema: What the output has to look like: a pydantic model class (or ``list[Model]``), a JSON
        Schema as a mapping, or the path of a JSON Schema file next to the DAG file. The validated value is pushed as
        plain JSON. An output that does not fit fails the task without a retry. Default: not checked.
    :param rerun_on_invalid_output: Whether a task whose output does not fit is retried, with a new run in each try.
        Default: False.
    :param output_to: File that the output is written to instead of XCom: an absolute path or an address such as
        ``s3://bucket/{{ run_id }}.json``. Its extension sets the format: ``.json``, ``.jsonl``, ``.csv``,
        ``.parquet`` (needs pyarrow); an added ``.gz`` compresses it. ``{skyvern_run_id}`` stands for Skyvern's id of
        the run. The XCom is then ``{"path", "size", "checksum"}``. A file of that name is replaced. Default: the
        output is pushed. (templated)
    :param output_conn_id: Id of the Airflow connection for that store. Default: the settings in the worker's
        environment. (templated)
    :param output_run_columns: Whether each row in that file gets ``_skyvern_run_id`` and ``_loaded_at``, the time of
        writing. Default: False.
    :param mask_output: Whether secrets that blocks echo are replaced by ``***`` in the output before it is pushed:
        headers such as Authorization, cookies, passwords, keys, secret values in addresses, and what Airflow masks in
        logs. ``{"keep": ["invoices[].session_id"], "add": ["accounts[].note"]}`` names paths in the value that are
        data, and others that are secret. The log names each masked path. Default: True.
    :param return_run: Whether the value is the whole run instead of its output: ``{"run_id", "status", "app_url",
        "parameters", "output", "files", "steps", "credits"}``, so that a task mapped over runs has them all.
        Steps and credits are None where Skyvern does not return them. Default: False.
    :param files_to: Where to store the files that the run downloads: an absolute path, ``file://``, or an address
        such as ``s3://bucket/folder``. Each is stored completely or not at all, and checked against Skyvern's size
        and sha256; a retry fetches the missing files of the same run. Default: they stay in Skyvern. (templated)
    :param files_conn_id: Id of the Airflow connection for that store. Default: the settings in the worker's
        environment. (templated)
    :param file_name: Names for the files: after Jinja, ``{index}`` counts from 1, ``{name}`` is Skyvern's name
        without extension, ``{extension}`` the extension with its dot. ``{skyvern_run_id}`` is Skyvern's id of the
        run, here and in ``files_to``. Default: Skyvern's names. (templated)
    :param overwrite: Whether a file in ``files_to`` may replace another file of the same name; the same as
        ``if_exists="replace"`` there. Default: False.
    :param if_exists: What happens if a file of ``files_to`` or ``output_to`` already exists with other content:
        ``"skip_same"`` fails the task; ``"fail"`` does, too, and starts no run if the output's file or the manifest
        exists; ``"replace"`` replaces it and, with ``manifest_to``, all files of an earlier run. A file with the same
        size and sha256 is never written again. Default: ``"skip_same"`` for ``files_to``, ``"replace"`` for
        ``output_to``.
    :param manifest_to: Address of a JSON file that lists what the task has stored: ``{"skyvern_run_id", "files",
        "output", "evidence", "written_at"}``, each file with path, size and checksum. It is written last, so if it
        exists, all files that it lists do. Tasks that share one wait for each other. XCom ``manifest``: its path,
        size and checksum. Its connection is ``files_conn_id``, without ``files_to`` it is ``output_conn_id``.
        Default: none. (templated)
    :param expect_files: How many files a completed run must have downloaded: a number, ``[least, most]``, or name
        patterns such as ``["*.pdf"]`` that each must match a file. Default: any.
    :param recording: Whether the recording is stored there too, also of a run that ended badly. Default: False.
    :param screenshots: The same for screenshots. Default: False.
    :param approval: ``"airflow"``: when the run waits for a person (a ``human_interaction`` block), ask in Airflow's
        Required Actions, and give the answer to Skyvern. Needs Airflow 3.1 and ``deferrable=True``. Default: None, a
        person answers in Skyvern.
    :param on_reject: What a person's rejection in Airflow does with the task, after the run was canceled: ``"fail"``,
        without retries; ``"skip"``; ``"return"``, which succeeds and returns the XCom ``approval``. Default:
        ``"fail"``.
    :param approvers: With ``approval="airflow"``: ids of the only Airflow users who may answer, ``["alice"]`` or
        ``[{"id": "7", "name": "Alice"}]``; the name is shown. The same with ``code="airflow"``. Default: everyone who
        may edit the DAG's Required Actions.
    :param code: ``"airflow"``: when the run waits at a login for a code (a block or credential with a
        ``totp_identifier`` in Skyvern), say so in Airflow's Required Actions, and give Skyvern the code that a person
        types on the run's page. Airflow keeps the code nowhere. Takes a request every ten seconds. Needs Airflow 3.1
        and ``deferrable=True``. Default: None, the code reaches Skyvern in another way.
    :raises SkyvernConfigError: an argument is wrong; when the DAG is parsed if it can be known then.
    :raises SkyvernOutputError: with ``rerun_on_invalid_output=True``: the output does not match ``output_schema`` or
        ``output_from``. Otherwise an AirflowFailException is raised.
    :raises SkyvernRunError: the run ended as failed, terminated, timed out or canceled; the error carries it. One
        that reached a limit is a SkyvernStepLimitReached or SkyvernTimeLimitReached.
    :raises SkyvernWaitTimeout: the run did not end in time.
    :raises SkyvernStartUnknown: the start was not answered and no run was found; a retry searches again first.
    :raises SkyvernTransferError: a file could not be stored in full; a retry takes the same run.
    :raises AirflowFailException: no retry can help: wrong key, unknown workflow, parameters that do not fit it,
        refused request, no credit, a limit that the task has set for its run, other files than expected, another
        file in the place of one.
    """

    template_fields: Sequence[str] = (
        *REQUEST_FIELDS,
        "workflow_file",
        "workflow_version",
        "run_options",
        "max_steps",
        "max_elapsed_time_minutes",
        "skyvern_conn_id",
        "files_to",
        "files_conn_id",
        "file_name",
        "manifest_to",
        "upload",
        "upload_conn_id",
        "output_from",
        "output_to",
        "output_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "run_options": "json"}
    operator_extra_links = (SkyvernRunLink(),)
    run_published: bool | None = None
    """Whether this try has pushed its run; None where another process executes it. The link reads it."""
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        workflow_id: str | None = None,
        workflow_file: str | PurePath | None = None,
        parameters: Mapping[str, Any] | str | None = None,
        check_parameters: bool = True,
        upload: Mapping[str, str] | None = None,
        upload_conn_id: str | None = None,
        title: str | None = None,
        proxy_location: str | Mapping[str, str] | None = None,
        webhook_url: str | None = None,
        browser_session_id: str | None = None,
        browser_profile_id: str | None = None,
        run_options: Mapping[str, Any] | None = None,
        max_steps: int | str | None = None,
        max_elapsed_time_minutes: int | str | None = None,
        skyvern_conn_id: str = "skyvern_default",
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: timedelta | float = 10.0,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        log_blocks: bool = False,
        durable: bool = True,
        lost_start_timeout: timedelta | float = 30.0,
        cancel_on_kill: bool = True,
        skip_on: Collection[str] | str = (),
        output_from: str | None = None,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        rerun_on_invalid_output: bool = False,
        output_to: str | None = None,
        output_conn_id: str | None = None,
        output_run_columns: bool = False,
        mask_output: MaskOutput = True,
        return_run: bool = False,
        files_to: str | None = None,
        files_conn_id: str | None = None,
        file_name: str | None = None,
        overwrite: bool = False,
        if_exists: IfExists | None = None,
        manifest_to: str | None = None,
        expect_files: ExpectedFiles = None,
        recording: bool = False,
        screenshots: bool = False,
        approval: Literal["airflow"] | None = None,
        on_reject: Literal["fail", "skip", "return"] = "fail",
        approvers: Approvers = None,
        code: Literal["airflow"] | None = None,
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(**kwargs)
        self.return_run = return_run
        self.log_blocks = log_blocks
        self.workflow_id = _workflow_of(self.task_id, workflow_id, workflow_file)
        self.workflow_file = str(workflow_file) if isinstance(workflow_file, PurePath) else workflow_file
        self.workflow_version = None if workflow_file is None else NOT_RENDERED
        self.overwrite_rtif_after_execution = workflow_file is not None  # the version is known when it is run
        self.parameters = parameters
        self.title = title
        self.proxy_location = proxy_location
        self.webhook_url = webhook_url
        self.browser_session_id = browser_session_id
        self.browser_profile_id = browser_profile_id
        self.run_options = run_options
        self.max_steps = max_steps
        self.max_elapsed_time_minutes = max_elapsed_time_minutes
        self.skyvern_conn_id = skyvern_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.durable = durable
        self.lost_start_timeout = seconds_of("lost_start_timeout", lost_start_timeout)
        self.cancel_on_kill = cancel_on_kill
        self.skip_on = skip_on
        self.poll_interval = interval_of("poll_interval", poll_interval)
        self.timeout = seconds_of("timeout", timeout)
        self.mask_output = mask_output
        self.check_parameters = check_parameters
        self.output_from = output_from
        self.output_schema = output_schema
        self.output_to = output_to
        self.output_conn_id = output_conn_id
        self.output_run_columns = output_run_columns
        self.rerun_on_invalid_output = rerun_on_invalid_output
        self.files_to = files_to
        self.files_conn_id = files_conn_id
        self.file_name = file_name
        self.overwrite = overwrite
        self.if_exists = if_exists
        self.manifest_to = manifest_to
        self.recording = recording
        self.screenshots = screenshots
        self.expect_files = expect_files
        self.upload = upload
        self.upload_conn_id = upload_conn_id
        self.approval = approval
        self.on_reject = on_reject
        self.approvers = approvers
        self.code = code
        self._check_arguments()

    def _parameters_when_parsed(self) -> Any:
        """Return the parameters as far as they are known when the DAG is parsed."""
        return self.parameters

    def _check_arguments(self) -> None:
        """Check what is known when the DAG is parsed; checks of what few tasks set are imported for them only."""
        waits = self.wait_for_completion
        if self.workflow_file is not None:
            from airflow_skyvern.operators.workflow_file import check_when_parsed

            check_when_parsed(self, self._parameters_when_parsed())
        if self.upload is not None:
            from airflow_skyvern.results.uploads import check_upload

            check_upload(self.task_id, self.upload, self.parameters)
        fields = {name: getattr(self, name) for name in REQUEST_FIELDS}
        check_arguments(self.task_id, fields, self._rarer_options(), skip_on=self.skip_on, durable=self.durable)
        if self.mask_output is not True:
            from airflow_skyvern.results.mask_rules import check_mask_output

            check_mask_output(self.task_id, self.mask_output)
        if self.output_schema is not None:
            from airflow_skyvern.results.contract import check_schema

            check_schema(self.task_id, self.output_schema, has_output=waits)
        files = checked_file_options(self)
        if files is not None and files.wanted and not waits:
            raise SkyvernConfigError(
                f"Task {self.task_id!r}: files_to and expect_files need wait_for_completion=True; or give run_id to "
                "a SkyvernRunSensor or a SkyvernDownloadFilesOperator with files_to."
            )
        if self.output_to is not None:
            from airflow_skyvern.results.destination import check_output_to

            check_output_to(self.task_id, self.output_to, has_output=waits)
        asks = (self.approval, self.code, self.on_reject, self.approvers)
        if asks != (None, None, "fail", None):
            from airflow_skyvern.task.approval import check_requests

            check_requests(self.task_id, *asks, waits_deferred=self.deferrable and waits)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value; an error that ends the task cancels the run of an earlier try."""
        if content == NOT_RENDERED and self.workflow_file is not None:
            from airflow_skyvern.operators.workflow_file import shown_when_rendered

            return shown_when_rendered(self, context)
        try:
            return super().render_template(content, context, jinja_env, seen_oids)
        except Exception as error:
            if internals.is_executed(context):  # and not rendered for a page of Airflow
                self._active_run.give_up(error, TaskTry(context))
            raise

    def _template_of(self, content: Any, seen_oids: Collection[int]) -> Any:
        """
        Let the path of a ``.json`` file in ``parameters`` become what the file holds.

        :param seen_oids: The values that a mapped task got from another task, which are neither templates nor paths.
        """
        return included(content) if content is self.parameters and id(content) not in seen_oids else content

    def pre_execute(self, context: Any) -> None:
        """Note the try before it runs any code: after a signal at this point, 2.11 does not execute it."""
        self._active_run.learn(TaskTry(context))
        super().pre_execute(context)

    def execute(self, context: Context) -> Any:
        """Start the run, publish it, and wait for its end or defer."""
        with no_retry_for_permanent_errors():  # before anything is noted: the run of the other task is not ours
            check_is_the_task(self, context, NO_IDENTITY)
        task_try, self.run_published = TaskTry(context), False
        self._active_run.begins(task_try)
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            if self.deferrable:
                trigger_class()  # a deployment that is half done fails here, before anything is started
            check_delivery(self, self._output_options)
            return self.start_and_wait(task_try, self._deadline(task_try) if self.browser_session_id else None)

    def start_and_wait(self, task_try: TaskTry, until: float | None = None) -> Any:
        """
        Start the run, publish it, and wait for its end or defer.

        :param until: For a run in a browser session: when the task times out, including its wait for the session.
        """
        run = self._start_in_turn(task_try, until)
        task_try.ensure_current()
        task_try.publish_run(run)
        self.run_published = True
        if not self.wait_for_completion:
            return run.run_id
        if run.is_final:
            return self._result(task_try, run)
        deadline = until or self._deadline(task_try)
        if self.deferrable and deadline > time.time():
            self._defer(task_try, run.run_id, deadline)
        return self._wait(task_try, run.run_id, deadline)

    def execute_in_turn(
        self,
        context: Context,
        event: Any = None,
        deadline: float = 0.0,
        try_number: int | None = None,
        lost_turns: int = 0,
        **_: Any,
    ) -> Any:
        """Resume after the run of another task has left the browser session, or may have: start the run."""
        task_try, self.run_published, self.lost_turns = TaskTry(context), False, lost_turns
        self.log.info("Browser session %s: %s", self.browser_session_id, event)
        if try_number is not None and try_number != task_try.number:
            return self.execute(context)
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            return self.start_and_wait(task_try, deadline)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float = 0.0,
        try_number: int | None = None,
        skyvern: Any = None,
        **_: Any,
    ) -> Any:
        """
        Resume after the trigger: fetch the run once more, and end the task accordingly.

        :param skyvern: What the run page reads of the try, see :mod:`airflow_skyvern.task.deferral`.
        """
        from airflow_skyvern.runs.wait import event_of, is_answer

        if (task_try := self._resumed_try(context, EVENT_OF_EARLIER_TRY, try_number, skyvern)) is None:
            return self.execute(context)
        if is_answer(event) and (unasked := task_try.published_run_id()):
            self.log.warning("Skyvern run %s: is not waiting for approval; ignoring an earlier answer", unasked)
            self._defer(task_try, unasked, deadline)
        with self._active_run.canceled_if_given_up():
            ended = event_of(event)
        run_id, deadline = ended["run_id"], deadline_to_fetch(ended, deadline, self.log)
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            if ended["reason"] == "code":
                self._ask_for_code(task_try, run_id, deadline, event)
            if ended["reason"] == "paused":
                self.log.info(
                    "Skyvern run %s: paused, waiting for a person in %s", run_id, ended["message"] or "Skyvern"
                )
                task_try.publish_pause(run_id, ended["message"])
                if self.approval is not None:
                    self._ask(task_try, run_id, deadline)
                self._defer(task_try, run_id, deadline, pause_known=True)
            return self._wait(task_try, run_id, deadline, ended["reason"])

    def approval_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float = 0.0,
        try_number: int | None = None,
        request: Any = None,
        skyvern: Any = None,
        **_: Any,
    ) -> Any:
        """
        Resume after a person has answered, in Airflow or in Skyvern, or after the run has ended unanswered.

        :param skyvern: As in :meth:`execute_complete`.
        """
        from airflow_skyvern.task.approval import answer_of, is_resumed

        if (task_try := self._resumed_try(context, ANSWER_TO_EARLIER_TRY, try_number, skyvern)) is None:
            return self.execute(context)
        run_id = request["run_id"]
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            approvals = self._resumed_approvals(task_try, run_id)
            if (answer := answer_of(event, request)) is None:
                approvals.note_answer_in_skyvern(request, event)
                if not is_resumed(event):
                    return self.execute_complete(context, event, deadline, try_number, skyvern)
            elif answer.approved:
                approvals.approve(request, answer)
            elif (rejected := approvals.reject(request, answer, self._active_run.is_unwanted)) is not None:
                return self._rejected(task_try, *rejected)
            return self._defer(task_try, run_id, deadline)

    def code_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float = 0.0,
        try_number: int | None = None,
        request: Any = None,
        skyvern: Any = None,
        **_: Any,
    ) -> Any:
        """
        Resume after a person has sent a code to Skyvern, or after the run has gone on or ended without one.

        :param skyvern: As in :meth:`execute_complete`.
        """
        from airflow_skyvern.task.approval import answer_of, is_resumed
        from airflow_skyvern.task.login_code import answered_now

        if (task_try := self._resumed_try(context, ANSWER_TO_EARLIER_TRY, try_number, skyvern)) is None:
            return self.execute(context)
        run_id = request["run_id"]
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            approvals, answer = self._resumed_approvals(task_try, run_id), answer_of(event, request)
            if answer is None and not is_resumed(event):
                return self.execute_complete(context, event, deadline, try_number, skyvern)
            if answer is not None and not answer.approved and self._is_at(request):
                return self._rejected(task_try, *approvals.cancel(request, answer, self._active_run.is_unwanted))
            self.log.info("Skyvern run %s: %s", run_id, _how_code_went(answer))
            return self._defer(task_try, run_id, deadline, answered=answered_now(request, answer))

    def _resumed_try(self, context: Context, is_over: str, try_number: int | None, skyvern: Any) -> TaskTry | None:
        """
        Return the try that has deferred; None if it is over.

        :param is_over: What the log says then.
        """
        task_try = TaskTry(context)
        self._group, self._traceparent = ((skyvern or {}).get(name) for name in ("group", "traceparent"))
        if try_number is not None and try_number != task_try.number:
            self.log.warning(is_over, try_number)
            return None
        return task_try

    def _resumed_approvals(self, task_try: TaskTry, run_id: str) -> Approvals:
        self._active_run.is_running(task_try, run_id)
        task_try.ensure_current()
        return self._approvals(task_try, run_id)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume after a deferral, also after one that ended without an event.

        When the trigger sent nothing until long after its deadline, Airflow fails the task without calling it: the
        run is fetched once more then, and canceled if it has not ended. When the trigger itself failed, as its class
        could not be loaded during a deployment, or a newer version of this provider has deferred the task in a way
        that this one does not know, this worker polls for a minute and then defers again.
        """
        task_try = TaskTry(context)
        run_id = note_of(next_kwargs).get("run_id") or task_try.published_run_id()
        if not can_resume(self, next_method):
            return self._resume_what_newer_has_deferred(context, run_id, next_method, next_kwargs)
        self._active_run.begins(task_try, run_id)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            if run_id is None or next_method != FAILED:
                raise
            with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
                if not internals.deferral_timed_out(next_kwargs):
                    return self._wait_and_defer_again(task_try, run_id, error)
                self.log.error("The deferral ended without an event: %s", error)
                return self._wait(task_try, run_id, deadline=0.0)

    def _resume_what_newer_has_deferred(
        self, context: Context, run_id: str | None, next_method: str, next_kwargs: dict[str, Any] | None
    ) -> Any:
        """Wait for the run of the try; one that was deferred before it had a run begins again."""
        stored, why = next_kwargs or {}, no_method(next_method)
        task_try = self._resumed_try(context, EVENT_OF_EARLIER_TRY, stored.get("try_number"), note_of(stored))
        if task_try is None or run_id is None:
            self.log.warning("%s The task begins again.", why)
            return self.execute(context)
        self._active_run.begins(task_try, run_id)
        with self._active_run.canceled_if_given_up(), no_retry_for_permanent_errors():
            return self._wait_and_defer_again(task_try, run_id, why, until=deadline_of(stored))

    def on_kill(self) -> None:
        """Cancel the run if a user has ended the task or no retry will come, else leave it to the next try."""
        self._active_run.on_kill()


def _how_code_went(answer: Answer | None) -> str:
    if answer is None:
        return "has gone on without a code from Airflow"
    who = answer.by or "an unknown user"
    return f"a code was sent by {who}" if answer.approved else f"the answer of {who} ({answer.option}) came too late"


def _workflow_of(task_id: str, workflow_id: str | None, workflow_file: Any) -> str:
    """
    Return the id of the workflow; for a workflow file, a placeholder until the run is started.

    :raises SkyvernConfigError: neither or both are given.
    """
    if (workflow_id is None) == (workflow_file is None):
        raise SkyvernConfigError(f"Task {task_id!r}: give either workflow_id or workflow_file.")
    return OF_FILE if workflow_id is None else workflow_id
