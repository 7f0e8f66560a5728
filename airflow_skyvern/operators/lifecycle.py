"""The steps of a task that runs a workflow: start or resume the run, wait or defer, cancel, return its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow_skyvern import metrics, traces
from airflow_skyvern.compat import internals, since_3_3
from airflow_skyvern.compat.sdk import AirflowFailException, AirflowSkipException
from airflow_skyvern.exceptions import SkyvernError, SkyvernNotFoundError, SkyvernOvertaken, SkyvernWaitTimeout
from airflow_skyvern.finished_runs.uri import runs_uri
from airflow_skyvern.results.deliver import Delivery, check_place_is_free, deliver_evidence
from airflow_skyvern.task.arguments import checked_request, endings_of, is_dynamic, with_limits
from airflow_skyvern.task.base import ChecksArguments, UsesConnection
from airflow_skyvern.task.deferral import (
    CONFIRMATION,
    NOTE,
    POLLS_AND_DEFERS_AGAIN,
    TRIGGER_FAILED_WAIT,
    airflows_timeout_for,
    deadline_after,
    note_of_run,
    patience_after,
)
from airflow_skyvern.task.endings import logged_error_of, without_retry_at

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.models import Run, Workflow
    from airflow_skyvern.results.mask_rules import MaskOutput
    from airflow_skyvern.results.output import OutputOptions
    from airflow_skyvern.results.uploads import Uploads
    from airflow_skyvern.runs.cost import Cost, RunLimits
    from airflow_skyvern.runs.wait import Reason, Wait
    from airflow_skyvern.task.active_run import ActiveRun, Names
    from airflow_skyvern.task.approval import Approvals, Approvers, Note, Request
    from airflow_skyvern.task.task_try import TaskTry
    from airflow_skyvern.triggers import SkyvernLoginTrigger, SkyvernRunTrigger

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


class RunLifecycle(ChecksArguments, UsesConnection):
    """
    The steps between the calls that Airflow makes, which are in the operator.

    Each takes the try of the task (``TaskTry``); what an author has set is read from the operator.
    """

    fields_of_start = (
        *REQUEST_FIELDS,
        "workflow_file",
        "workflow_version",
        "run_options",
        "max_steps",
        "max_elapsed_time_minutes",
        "upload",
        "upload_conn_id",
    )
    workflow_id: str
    workflow_file: str | None
    workflow_version: str | None
    version_to_publish: Mapping[str, Any] | None = None
    """The version that this try has found or made for its run."""
    parameters: Mapping[str, Any] | str | None
    run_options: Mapping[str, Any] | None
    max_steps: int | str | None
    max_elapsed_time_minutes: int | str | None
    skyvern_conn_id: str
    wait_for_completion: bool
    deferrable: bool
    durable: bool
    lost_start_timeout: float
    cancel_on_kill: bool
    skip_on: Collection[str] | str
    poll_interval: float
    timeout: float
    mask_output: MaskOutput
    output_from: str | None
    output_schema: Any
    output_to: str | None
    output_conn_id: str | None
    check_parameters: bool
    upload: Mapping[str, str] | None
    upload_conn_id: str | None
    on_reject: Literal["fail", "skip", "return"]
    approval: Literal["airflow"] | None
    approvers: Approvers
    code: Literal["airflow"] | None
    return_run: bool
    log_blocks: bool
    browser_session_id: str | None
    _started_in: tuple[str, int] | None = None
    """The try in which this object has started a run, or resumed one."""
    trigger_failed_wait: ClassVar[float] = TRIGGER_FAILED_WAIT
    """Seconds for which a worker polls the run of a trigger that failed, before it defers again."""

    confirmation: ClassVar[float] = CONFIRMATION
    """Seconds for which a worker polls a run that its trigger was refused for minutes."""
    _definition: Workflow | None = None
    """What this try knows of its workflow, right before it starts a run."""

    turn_pause: ClassVar[float] = 5.0
    """Seconds before another start after a run that has lost its turn; twice as long after each further one."""

    lost_turns = 0
    """How many runs of this try have found another one in their browser session."""
    _group: str | None = None
    """The tag of the attempt group, where this process knows it."""
    _traceparent: str | None = None
    """The position of the run's start in Airflow's trace, where there is one."""

    @cached_property
    def _active_run(self) -> ActiveRun:
        from airflow_skyvern.task.active_run import ActiveRun

        return ActiveRun(
            lambda: self.hook,
            self.log,
            cancel_on_kill=self.cancel_on_kill,
            durable=self.durable,
            names=self._names,
            refuses_retry=lambda task_try, error: since_3_3.refuses_retry(self, error, task_try.ti),
            lost_start_timeout=self.lost_start_timeout,
            is_over=self._task_is_over,
        )

    def _task_is_over(self) -> bool:
        """Return whether the task has ended during this wait for its run; False where the task itself waits."""
        return False

    def _names(self, task_try: TaskTry) -> Names | None:
        """Return what the runs of this try carry, also where templates have failed; None if they carry nothing."""
        from airflow_skyvern.client.run_request import RunRequest
        from airflow_skyvern.task.active_run import Names

        if not self.durable:
            return None
        group_known = True
        try:
            request = self._request_for_key()
        except Exception:  # noqa: BLE001  whatever a half-rendered argument raises
            request = RunRequest(workflow_id="unknown")
            group_known = internals.map_index_for_lookups(task_try.ti) is None  # a mapped task's request is in it
        key = task_try.run_key(request)
        own = task_try.ti.task_id == self.task_id
        return Names(key.group if group_known else None, key.task, only_task=key.names_airflow and own)

    def sleep_unless_killed(self, seconds: float) -> None:
        """Wait; a kill of the task ends it."""
        self._active_run.sleep(seconds)

    @cached_property
    def _output_options(self) -> OutputOptions:
        from airflow_skyvern.results.output import OutputOptions

        return OutputOptions.of(self)

    def _deadline(self, task_try: TaskTry) -> float:
        return deadline_after(time.time(), self.timeout, self.execution_timeout, task_try.started_at)

    def _start_in_turn(self, task_try: TaskTry, until: float | None) -> Run:
        """Start the run, in a browser session when no other run is in it."""
        if until is None:
            return self.start_run(task_try)
        from airflow_skyvern.operators.in_session import start_in_turn

        return start_in_turn(self, task_try, until)

    def start_and_wait(self, task_try: TaskTry, until: float | None = None) -> Any:
        """Start the run, publish it, and wait for its end or defer."""
        raise NotImplementedError

    def starts_again(self, *, lost_turn: bool = False) -> None:
        """Note that this try starts a run once more: it has started none, or one that did nothing."""
        self._started_in = None
        self.lost_turns += lost_turn

    def start_run(self, task_try: TaskTry) -> Run:
        """Start the run, or resume the run of an earlier try."""
        with traces.step(traces.START):
            self._traceparent = traces.traceparent()
            run = self._started_or_resumed(task_try)
            traces.note({traces.RUN_ID: run.run_id, traces.WORKFLOW_ID: self.workflow_id})
        return run

    def _started_or_resumed(self, task_try: TaskTry) -> Run:
        from airflow_skyvern.runs.parameter_check import refused_parameter_named

        request, self.version_to_publish, self._definition = self._request(), None, None
        if self.durable:
            self._started_in = task_try.started_in(self.task_id, self._started_in)
        task_try.ensure_current()  # a try that was overtaken must not publish over the other one, either
        with refused_parameter_named(request, self._definition_is_unread), self._deletion_is_transient():
            run = self._start_once(task_try, request) if self.durable else self._start_anew(task_try, request)
        self._active_run.is_running(task_try, run.run_id)
        if self.workflow_file is not None:
            run = self._of_file(task_try, run)
        self.log.info(
            "Skyvern run %s of workflow %s: started, see %s",
            run.run_id,
            self.workflow_id,
            run.app_url or "Skyvern",
        )
        self._active_run.stop_if_killed()
        return run

    def _definition_is_unread(self) -> bool:
        """Say whether the definition was wanted and is not known, so that names of credentials were not looked up."""
        return self.check_parameters and self._definition is None

    @contextmanager
    def _deletion_is_transient(self) -> Iterator[None]:
        """Let a later try recreate a file's workflow that somebody has deleted right before the start."""
        try:
            yield
        except SkyvernNotFoundError as error:
            if self.workflow_file is not None and error.workflow_gone:
                raise error.as_transient() from error
            raise

    def _of_file(self, task_try: TaskTry, run: Run) -> Run:
        """Publish which version of the workflow is run; and fetch the run, as its start has returned its id only."""
        from airflow_skyvern.operators.workflow_file import publish_version, with_address

        run = with_address(self, run)
        self._learn_workflow(run)
        publish_version(self, task_try, run.run_id)
        return run

    @property
    def _workflow_is_found(self) -> bool:
        """Whether the workflow is found, or made, right before the start; otherwise it is known from the run only."""
        return self.workflow_file is not None

    def _learn_workflow(self, run: Run) -> None:
        """Note the workflow of a run that another process, or an earlier try, has started."""
        if self._workflow_is_found:
            self.workflow_id = str((run.run_request or {}).get("workflow_id") or self.workflow_id)

    def _start_anew(self, task_try: TaskTry, request: RunRequest) -> Run:
        from airflow_skyvern.client.api import start_run
        from airflow_skyvern.client.retry import did_nothing
        from airflow_skyvern.client.session import checked

        self._before_start(request)
        self._announce(task_try, None)
        send = checked(self.hook.send, task_try.ensure_current)
        call = start_run(self._with_uploads(task_try, request))
        try:
            run: Run = send(call)
        except SkyvernError as error:
            if did_nothing(error):
                self._active_run.was_not_started()
            raise
        metrics.run_started(self.skyvern_conn_id, resumed=False)
        return run

    def _before_start(self, request: RunRequest) -> None:
        from airflow_skyvern.runs.parameter_check import check_before_start

        if self.run_options or self.approval is not None or self.upload:
            self._check_server(request)
        check_place_is_free(self, self._output_options)
        if request.browser_session_id is not None:
            from airflow_skyvern.runs.browser_sessions import check_turn

            check_turn(self.hook.send, request.browser_session_id, self.log)
        if self.workflow_file is not None:
            from airflow_skyvern.operators.workflow_file import check_before_start as check_file

            self._definition = check_file(self, request.parameters)
        elif self.check_parameters:
            client = self.hook.get_conn()  # a refused key is for the start to find out
            block = self.output_from or None
            self._definition = check_before_start(client.send, request, client.settings, self.log, block=block)
        self._active_run.stop_if_killed()

    def _check_server(self, request: RunRequest) -> None:
        """Ask whether the server has what this run needs, before files are uploaded or workflows are made."""
        from airflow_skyvern.client.api import start_run
        from airflow_skyvern.client.versions import FILE_IDS, PAUSES

        call = start_run(request)
        more = {PAUSES: self.approval is not None, FILE_IDS: bool(self.upload)}
        if needs := (*call.needs, *(feature for feature, is_used in more.items() if is_used)):
            self.hook.get_conn().check(replace(call, needs=needs))

    def _start_once(self, task_try: TaskTry, request: RunRequest) -> Run:
        from airflow_skyvern.runs.submission import Attempt, Submission

        key = task_try.run_key(self._request_for_key())
        self._group = key.group
        self._announce(task_try, key.group)
        submission = Submission(
            self.hook.send,
            request,
            key,
            log=self.log,
            store=task_try.start_store,
            lost_start_timeout=self.lost_start_timeout,
            before_start=lambda: self._before_start(request),
            ensure_current=task_try.ensure_current,
            did_nothing=lambda run: self._run_that_took_turn(run) is not None,
            final_request=partial(self._to_send, task_try),
            rejects=self._output_options.rejects,
            sleep=self._active_run.sleep,
        )
        attempt = Attempt(
            earlier_tries=task_try.earlier_tries,
            after_clear=task_try.is_after_clear(self.retries or 0),
            cancel_predecessor=self.cancel_on_kill,
            seconds_left=self._deadline(task_try) - time.time(),
        )
        try:
            run = submission.start(attempt)
        except SkyvernError:
            if submission.was_refused:
                self._active_run.was_not_started()
            raise
        metrics.run_started(self.skyvern_conn_id, resumed=submission.resumed)
        traces.note({"skyvern.resumed": submission.resumed})
        if submission.resumed or submission.was_unanswered:
            self._cancel_twins(run)
        return run

    @property
    def _run_ends_with_task(self) -> bool:
        return self.cancel_on_kill and self.wait_for_completion

    def _to_send(self, task_try: TaskTry, request: RunRequest) -> RunRequest:
        """Complete the request of a run, right before it is started."""
        from airflow_skyvern.runs.key import ENDS_WITH_TASK, with_trace

        request = self._with_uploads(task_try, request)
        ends = ENDS_WITH_TASK if self._run_ends_with_task else {}
        metadata = with_trace({**(request.run_metadata or {}), **ends}, self._traceparent)
        return request.model_copy(update={"run_metadata": metadata or None})

    def _cancel_twins(self, run: Run) -> None:
        """Cancel second runs of the same start, if there are any; a few seconds at most, and never an error."""
        from airflow_skyvern.runs.twins import cancel_twins

        client = self.hook.emergency_client(observed=True) if self._group is not None else None
        if self._group is not None and client is not None:
            with client:
                cancel_twins(client.send, self._group, run.run_id, self.log)

    def _announce(self, task_try: TaskTry, group: str | None) -> None:
        """Let Airflow's other processes find the run when the task ends, even before the start was answered."""
        if self._run_ends_with_task:
            task_try.publish_connection_and_run_key(self.skyvern_conn_id, group)

    def _approvals(self, task_try: TaskTry, run_id: str) -> Approvals:
        from airflow_skyvern.task.approval import Approvals, users_of

        users, codes = users_of(self.task_id, self.approvers), self.code is not None
        return Approvals(self.hook, task_try, run_id, self.log, self._active_run.sleep, users, asks_for_codes=codes)

    def _ask(self, task_try: TaskTry, run_id: str, deadline: float) -> NoReturn:
        """Ask a person in Airflow, and wait for the answer; or wait for the run, if it no longer needs one."""
        from airflow_skyvern.triggers import SkyvernApprovalTrigger

        self._active_run.is_running(task_try, run_id)
        if self._workflow_is_found:
            self._learn_workflow(self.hook.fetch_run(run_id))
        request = self._approvals(task_try, run_id).ask(self.workflow_id)
        if request is None:
            self._defer(task_try, run_id, deadline)
        trigger = partial(SkyvernApprovalTrigger, ti_id=str(task_try.id))
        self._defer_until_answered(task_try, run_id, deadline, trigger, "approval_complete", request)

    def _ask_for_code(self, task_try: TaskTry, run_id: str, deadline: float, event: Any) -> NoReturn:
        """Show in Airflow that the run waits for a code, unless it has continued meanwhile, and keep waiting."""
        from airflow_skyvern.runs.login_code import CodeStep, still_at
        from airflow_skyvern.runs.question import asking
        from airflow_skyvern.task.approval import users_of
        from airflow_skyvern.task.login_code import ask_for_code
        from airflow_skyvern.triggers import SkyvernCodeTrigger

        self._active_run.is_running(task_try, run_id)
        step = CodeStep.of(event["step"])
        if not asking(self._active_run.sleep)(still_at, self.hook.send, run_id, step):
            self._defer(task_try, run_id, deadline)
        app_url, users = task_try.published_app_url(run_id), users_of(self.task_id, self.approvers)
        approvals = self.approval is not None
        request = ask_for_code(task_try, run_id, step, app_url, users, asks_for_approvals=approvals)
        self.log.info("Skyvern run %s: waits for a code at block %s, see its page in Airflow", run_id, step.label)
        trigger = partial(SkyvernCodeTrigger, ti_id=str(task_try.id), step=step.stored())
        self._defer_until_answered(task_try, run_id, deadline, trigger, "code_complete", request)

    def _is_at(self, request: Mapping[str, Any]) -> bool:
        """Return whether the run still waits for the code that was asked for."""
        from airflow_skyvern.runs.login_code import CodeStep, still_at
        from airflow_skyvern.runs.question import asking

        step = CodeStep.of(request["step"])
        found: bool = asking(self._active_run.sleep)(still_at, self.hook.send, request["run_id"], step)
        return found

    def _defer_until_answered(
        self,
        task_try: TaskTry,
        run_id: str,
        deadline: float,
        make_trigger: Callable[..., SkyvernRunTrigger],
        then: str,
        request: Request,
    ) -> NoReturn:
        """Wait until a person has answered the request that this task has made in Airflow, or need not any more."""
        self._stop_if_ended_by_user(task_try, run_id)
        note = self._note_of(run_id, request["app_url"])
        wait = (run_id, self.skyvern_conn_id, self.poll_interval, deadline)
        self.defer(
            trigger=make_trigger(*wait, cancel_on_kill=self.cancel_on_kill),
            method_name=then,
            kwargs={"deadline": deadline, "try_number": task_try.number, "request": request, NOTE: note},
            timeout=airflows_timeout_for(deadline),
        )

    def _note_of(self, run_id: str, app_url: str | None) -> dict[str, Any]:
        return note_of_run(run_id, self.skyvern_conn_id, app_url, self._group, self._traceparent)

    def _rejected(self, task_try: TaskTry, run: Run, note: Note) -> Any:
        """End the task after a person's rejection, unless the run has completed before it was canceled."""
        if run.succeeded:
            return self._result(task_try, run)
        self._active_run.ended()
        self._note_cost(run)
        self._cancel_twins(run)
        who = note["answered_by"] or "A person"
        message = f"Skyvern run {run.run_id}: {who} rejected it in Airflow ({note['answer']})."
        if self.on_reject == "return":
            return note
        raise (AirflowSkipException if self.on_reject == "skip" else AirflowFailException)(message)

    def _stop_if_ended_by_user(self, task_try: TaskTry, run_id: str) -> None:
        self._active_run.is_running(task_try, run_id)
        task_try.ensure_current()
        if task_try.ended_by_user():
            self._active_run.stop_for_user()

    def _defer(
        self,
        task_try: TaskTry,
        run_id: str,
        deadline: float,
        *,
        pause_known: bool = False,
        answered: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """
        Wait for the run in the triggerer.

        :param answered: The step for which a person has just sent a code.
        """
        self._stop_if_ended_by_user(task_try, run_id)
        note = self._note_of(run_id, task_try.published_app_url(run_id))
        kind = trigger_class() if self.code is None else partial(login_trigger_class(), answered=answered)
        self.defer(
            trigger=kind(
                run_id,
                self.skyvern_conn_id,
                self.poll_interval,
                deadline,
                cancel_on_kill=self.cancel_on_kill,
                pause_known=pause_known,
                log_blocks=self.log_blocks,
                run_known=True,
                max_elapsed_time_minutes=self._minutes_allowed,
            ),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "try_number": task_try.number, NOTE: note},
            timeout=airflows_timeout_for(deadline),
        )

    def _wait(self, task_try: TaskTry, run_id: str, deadline: float, reason: Reason | None = None) -> Any:
        """
        Wait on this worker, and return the result.

        :param reason: Why the trigger has ended, if one has waited before.
        """
        wait = self._new_wait(task_try, run_id, deadline, reason)
        if (run := self._poll(task_try, wait)) is not None:
            return self._result_or_replacement(task_try, run, deadline)
        return self._result(task_try, self._cancel_at_deadline(task_try, wait))

    def _wait_and_defer_again(
        self, task_try: TaskTry, run_id: str, why: object, *, until: float | None = None
    ) -> Any:
        """
        Continue a wait that cannot be resumed; during a deployment, deferring at once would fail again.

        :param until: When the wait times out, if that is known.
        """
        self.log.warning(POLLS_AND_DEFERS_AGAIN, run_id, why)
        deadline = until or self._deadline(task_try)
        wait = self._new_wait(task_try, run_id, min(deadline, time.time() + self.trigger_failed_wait))
        if (run := self._poll(task_try, wait)) is not None:
            return self._result_or_replacement(task_try, run, deadline)
        if wait.deadline < deadline:
            self._defer(task_try, run_id, deadline)
        return self._result(task_try, self._cancel_at_deadline(task_try, wait))

    def _new_wait(self, task_try: TaskTry, run_id: str, deadline: float, reason: Reason | None = None) -> Wait[Run]:
        from airflow_skyvern.runs.wait import Wait

        return Wait(
            run_id,
            poll_interval=self.poll_interval,
            deadline=deadline,
            log=self.log,
            on_pause=lambda run: task_try.publish_pause(run_id, run.app_url),
            end_known=reason == "ended",
            run_known=True,
            longest_refusal=patience_after(reason, self.confirmation),
            minutes_allowed=self._minutes_allowed,
        )

    def _poll(self, task_try: TaskTry, wait: Wait[Run]) -> Run | None:
        """Poll until the run has ended, or the deadline."""
        from airflow_skyvern.runs.wait import wait_for_end

        self._active_run.is_running(task_try, wait.run_id)
        run = wait_for_end(wait, self._fetch_of(wait.run_id), self._active_run.sleep)
        self._active_run.stop_if_killed()
        return run

    def _fetch_of(self, run_id: str) -> Callable[[], Run]:
        """Return the function that fetches a run, and logs its blocks where no trigger does."""
        fetch = partial(self.hook.fetch_run, run_id)
        if self.deferrable or not self.log_blocks:
            return fetch
        from airflow_skyvern.runs.block_log import BlockLog, with_blocks

        return with_blocks(fetch, self.hook.send, BlockLog(run_id, self.log))

    def _result_or_replacement(self, task_try: TaskTry, run: Run, deadline: float) -> Any:
        """Return the result, or wait for the run that Skyvern itself has started in place of a failed one."""
        self._learn_workflow(run)
        if (by := self._run_that_took_turn(run)) is not None:
            from airflow_skyvern.operators.in_session import start_after_lost_turn

            return start_after_lost_turn(self, task_try, run, by, deadline)
        replacement = self._replacement_of(run)
        if replacement is None:
            return self._result(task_try, run)
        self.log.warning(
            "Skyvern run %s: %s; waiting for %s, which Skyvern started in its place with a fallback credential",
            run.run_id,
            run.status,
            replacement.run_id,
        )
        task_try.ensure_current()
        self._active_run.is_running(task_try, replacement.run_id)
        task_try.start_store.replaced(run.run_id, replacement.run_id)
        task_try.publish_run(replacement)
        if self.deferrable and deadline > time.time():
            self._defer(task_try, replacement.run_id, deadline)
        return self._wait(task_try, replacement.run_id, deadline)

    def _run_that_took_turn(self, run: Run) -> str | None:
        """Return the other run that used the browser session when this one began; if so, this one did nothing."""
        if run.status != "failed":
            return None
        from airflow_skyvern.runs.browser_sessions import lost_turn_to

        return lost_turn_to(run, run.browser_session_id or self.browser_session_id)

    def _replacement_of(self, run: Run) -> Run | None:
        if run.succeeded:
            return None
        from airflow_skyvern.runs.lookup import find_replacement

        try:
            return find_replacement(self.hook.send, run, self.workflow_id, self._active_run.sleep)
        except SkyvernError as error:
            self._active_run.stop_if_killed()
            self.log.warning(
                "Skyvern run %s: Skyvern may have started another one in its place. %s", run.run_id, error
            )
            return None

    def _origin_of_files(self) -> str | None:
        """Return the workflow's address for lineage; `tasks test` of 2.11 resumes a task without its templates."""
        return None if is_dynamic(self.workflow_id) else runs_uri(self.workflow_id, self.skyvern_conn_id)

    def _result(self, task_try: TaskTry, run: Run) -> Any:
        self._active_run.ended()
        self._learn_workflow(run)
        cost = self._note_cost(run)
        self._cancel_twins(run)
        try:
            return self._delivered(task_try, run, cost) if run.succeeded else self._end_badly(task_try, run)
        finally:
            cost.log_as_last_line(run, self.log)

    def _delivered(self, task_try: TaskTry, run: Run, cost: Cost) -> Any:
        delivery = Delivery(self, task_try, run, self._active_run.stop_if_killed, origin=self._origin_of_files)
        value, files = delivery.bring(self._output_options)
        task_try.start_store.done(run.run_id)
        return self._whole_run(run, value, files, cost) if self.return_run else value

    def _end_badly(self, task_try: TaskTry, run: Run) -> NoReturn:
        deliver_evidence(self, task_try, run, self._active_run.stop_if_killed)
        limits = self._limits()
        limit = limits.reached(run) if limits else None
        error = logged_error_of(run, self.log, self.hook.send, limit)
        if run.status in endings_of("skip_on", self.skip_on):
            raise AirflowSkipException(str(error)) from error
        raise without_retry_at(limit, error, self)

    def _limits(self) -> RunLimits | None:
        """Return the limits that this task has set for its run; None if it has set none."""
        if self.run_options is None and self.max_steps is None and self.max_elapsed_time_minutes is None:
            return None
        from airflow_skyvern.runs.cost import RunLimits

        return RunLimits.of(self._rarer_options())

    @property
    def _minutes_allowed(self) -> int | None:
        """The limit of time that this task has set for its run."""
        limits = self._limits()
        return limits.max_elapsed_time_minutes if limits else None

    def _note_cost(self, run: Run) -> Cost:
        """Count and trace a run that has ended, and what it has cost, and warn if it nearly reached a limit."""
        from airflow_skyvern.runs.cost import account

        cost = account(run, self.hook.emergency_client, self.log, self._limits())
        metrics.run_ended(self.skyvern_conn_id, run, cost)
        make_client = partial(self.hook.emergency_client, observed=True)
        traces.run_ended(run, self.workflow_id, self._traceparent, make_client)
        return cost

    def _whole_run(self, run: Run, output: Any, files: Sequence[Any], cost: Cost) -> dict[str, Any]:
        from airflow_skyvern.results.fitting import fitted_for_xcom
        from airflow_skyvern.results.output import whole_run

        given, masks = self._parameters_of(run), self.mask_output is not False
        value = whole_run(run, given, output, files, cost, mask=masks)
        fitting: dict[str, Any] = fitted_for_xcom(value, run.run_id, self.log)
        return fitting

    def _cancel_at_deadline(self, task_try: TaskTry, wait: Wait[Run]) -> Run:
        """Cancel the run, and store what its browser showed; return it only if it completed at that very moment."""
        from airflow_skyvern.client.session import checked
        from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, cancel_and_fetch

        task_try.stop_if_overtaken()  # a process that was stopped for long finds its deadline passed
        self._active_run.is_unwanted()
        send = checked(self.hook.send, task_try.stop_if_overtaken)
        link = f" See {wait.run.app_url}" if wait.run and wait.run.app_url else ""
        try:
            run = cancel_and_fetch(send, wait.run_id, DEADLINE_PATIENCE, self._active_run.sleep)
        except SkyvernOvertaken:
            raise
        except SkyvernError as error:
            self._active_run.stop_if_killed()
            self._active_run.ended()
            raise SkyvernWaitTimeout(
                f"Skyvern run {wait.run_id} did not end in time and may still be running: {error}{link}",
                wait.run,
            ) from error
        self._active_run.ended()
        if run.succeeded:
            return run
        cost = self._note_cost(run)
        self._cancel_twins(run)
        deliver_evidence(self, task_try, run, self._active_run.stop_if_killed)
        cost.log_as_last_line(run, self.log)
        raise SkyvernWaitTimeout(f"Skyvern run {wait.run_id} did not end in time; it is {run.status} now.{link}", run)

    def _parameters_of(self, run: Run) -> Mapping[str, Any] | None:
        """Return the parameters of a run of this task, as its author gave them."""
        return self._request().parameters

    def _given_parameters(self) -> Any:
        """Return the parameters as the author gives them, rendered."""
        return self.parameters

    def _request_for_key(self) -> RunRequest:
        """Build the request that the key of a mapped task's run is made of: the same in each try."""
        return self._request()

    def _request(self) -> RunRequest:
        """Build the request from the rendered arguments."""
        fields = {name: getattr(self, name) for name in REQUEST_FIELDS} | {"parameters": self._given_parameters()}
        request = checked_request(fields, self._rarer_options(), durable=self.durable)
        return self._uploads.announced_in(request) if self.upload else request

    def _rarer_options(self) -> Any:
        """Return what ``run_options`` has, rendered, and the limits."""
        if self.max_steps is None and self.max_elapsed_time_minutes is None:
            return self.run_options
        limits = {"max_steps": self.max_steps, "max_elapsed_time_minutes": self.max_elapsed_time_minutes}
        return with_limits(self.task_id, self.run_options, **limits)

    @property
    def _uploads(self) -> Uploads:
        from airflow_skyvern.results.uploads import Uploads

        return Uploads(self.upload or {}, self.upload_conn_id)

    def _with_uploads(self, task_try: TaskTry, request: RunRequest) -> RunRequest:
        """
        Find credentials and profile, find or make the workflow, send the files.

        Only a try that starts a run does this, right before the start: other tries resume their run even if these
        have changed.
        """
        request = self._with_profile(self._with_workflow(self._with_credentials(request)))
        if self.upload:
            request = self._uploads.sent_for(request, self.hook.upload_file, self.log)
        self._active_run.will_start(task_try)
        return request

    def _with_credentials(self, request: RunRequest) -> RunRequest:
        """Replace names of credentials by ids; a name that does not exist exactly once ends the task."""
        from airflow_skyvern.client.workflow_parameters import credential_names

        given = request.parameters or {}
        if self._definition is None or not (names := credential_names(self._definition, given)):
            return request
        from airflow_skyvern.credentials.names import ids_of

        return request.model_copy(update={"parameters": {**given, **ids_of(self.hook.send, names, self.log)}})

    def _with_profile(self, request: RunRequest) -> RunRequest:
        """Put the id of the browser profile in the place of its name."""
        if request.browser_profile_id is None:
            return request
        from airflow_skyvern.runs.browser_profiles import profile_id_of

        profile_id = profile_id_of(self.hook.send, request.browser_profile_id, self._active_run.sleep)
        return request.model_copy(update={"browser_profile_id": profile_id})

    def _with_workflow(self, request: RunRequest) -> RunRequest:
        """Name the workflow in the request, where it is found or made only now."""
        if self.workflow_file is None:
            return request
        from airflow_skyvern.operators.workflow_file import with_version

        return with_version(self, request)


def trigger_class() -> type[SkyvernRunTrigger]:
    """Return the trigger's class, imported when it is needed only."""
    from airflow_skyvern.triggers import SkyvernRunTrigger

    return SkyvernRunTrigger


def login_trigger_class() -> type[SkyvernLoginTrigger]:
    """Return the class of a trigger that also notices that a run waits for a code."""
    from airflow_skyvern.triggers import SkyvernLoginTrigger

    return SkyvernLoginTrigger
