"""Wait for Skyvern runs that something else has started."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_skyvern.compat import internals, since_3_0
from airflow_skyvern.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_skyvern.durations import interval_of, seconds_of
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.results.deliver import (
    Delivery,
    StopsTransfers,
    check_delivery,
    checked_file_options,
    deliver_evidence,
)
from airflow_skyvern.task.arguments import run_id_of
from airflow_skyvern.task.base import ChecksArguments, UsesConnection, check_untemplated
from airflow_skyvern.task.deferral import (
    CONFIRMATION,
    FAILED,
    NOTE,
    POLLS_AND_DEFERS_AGAIN,
    TRIGGER_FAILED_WAIT,
    airflows_timeout_for,
    can_resume,
    deadline_after,
    deadline_of,
    deadline_to_fetch,
    has_outlasted_first_poll,
    no_method,
    note_of_run,
    patience_after,
)
from airflow_skyvern.task.endings import errors_for_airflow, logged_error_of
from airflow_skyvern.task.task_try import NO_WAIT_OUTSIDE, TaskTry, check_is_the_task

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.mask_rules import MaskOutput
    from airflow_skyvern.results.options import ExpectedFiles, IfExists
    from airflow_skyvern.results.output import OutputOptions
    from airflow_skyvern.runs.wait import Wait


class SkyvernRunSensor(StopsTransfers, ChecksArguments, UsesConnection, BaseSensorOperator):
    """
    Wait for a Skyvern run to complete, and return its output.

    Works in all three modes: ``mode="poke"``, ``mode="reschedule"`` and ``deferrable=True`` (which does not use
    ``mode``). A sensor never cancels the run. Transient errors do not end the wait before ``timeout``.

    XCom: ``return_value`` is the run's output; ``run_id`` and ``app_url`` are pushed at the first poll.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run

    :param run_id: The run to wait for: of a workflow (``wr_…``) or of Skyvern's own endpoint for prompts (``tsk_…``),
        which has no blocks. (templated)
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``.
        (templated)
    :param deferrable: Whether to wait in the triggerer. Default: ``[operators] default_deferrable``.
    :param poke_interval: Seconds between two polls of the run, or a timedelta. Default: 10.
    :param timeout: Seconds, or a timedelta, after which the task fails, in all modes. Default:
        ``[sensors] default_timeout``, which is 7 days.
    :param soft_fail: Skip instead of failing, after a timeout and when the run ended badly. A wrong key
        or an unknown run still fails.
    :param start_from_trigger: Wait in the triggerer from the start, and use a worker only once, to push the output.
        Needs Airflow 3.3; on older versions, and for mapped tasks, a worker starts the wait as with
        ``deferrable=True``, and says so in the log. Default: False.
    :param end_from_trigger: With ``start_from_trigger``: end the task in the triggerer, without any worker. Nothing
        is pushed to XCom, and Airflow calls no ``on_success_callback`` and no ``on_skipped_callback``. A worker is
        used only after a timeout, or where the run cannot be fetched. Default: False.
    :param log_blocks: Whether to log, while the task is deferred, which blocks of the workflow have begun and ended;
        see there. Default: False.
    :param output_from: Label of the block whose output is taken; see there. Default: the whole output.
        (templated)
    :param output_schema: What the output has to look like: a pydantic model class, a JSON Schema, or the path of one;
        see there. Default: not checked.
    :param output_to: File that the output is written to instead of XCom; see there. (templated)
    :param output_conn_id: Id of the Airflow connection for that store; see there. (templated)
    :param output_run_columns: Whether each row in that file gets the run's id and the time; see there.
    :param mask_output: Whether secrets that blocks echo are replaced by ``***`` in the output before it is pushed,
        and the paths to keep or to add; see :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator`. Default:
        True.
    :param files_to: Where to store the files that the run has downloaded, ``s3://bucket/folder`` or an absolute path;
        this and the following as with :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator`. Default: they
        stay in Skyvern. (templated)
    :param files_conn_id: Id of the Airflow connection for that store. (templated)
    :param file_name: Names for the files. (templated)
    :param overwrite: Whether a file may replace another file of the same name. Default: False.
    :param if_exists: What happens to files and outputs that already exist; see there. Default: ``"skip_same"``
        for files, ``"replace"`` for the output.
    :param manifest_to: Address of a JSON file that lists what was stored, written last; see there. (templated)
    :param expect_files: How many files a completed run must have downloaded, or name patterns. Default: any.
    :param recording: Whether the recording is stored there too, also of a run that ended badly. Default: False.
    :param screenshots: The same for screenshots. Default: False.
    :raises SkyvernTransferError: a file could not be stored in full; a retry continues.
    :raises AirflowSensorTimeout: the run did not end in time.
    :raises AirflowFailException: the run ended badly (its cause is a
        :class:`~airflow_skyvern.exceptions.SkyvernRunError` that carries the run), its output does not match
        ``output_schema`` or ``output_from`` (:class:`~airflow_skyvern.exceptions.SkyvernOutputError`), or the key or
        the run id is wrong: a retry could not change that.
    """

    template_fields: Sequence[str] = (
        "run_id",
        "skyvern_conn_id",
        "output_from",
        "output_to",
        "output_conn_id",
        "files_to",
        "files_conn_id",
        "file_name",
        "manifest_to",
    )
    operator_extra_links = (SkyvernRunLink(),)
    ui_color = "#e8eefc"

    confirmation: ClassVar[float] = CONFIRMATION
    """Seconds for which a worker polls a run that its trigger was refused for minutes."""

    trigger_failed_wait: ClassVar[float] = TRIGGER_FAILED_WAIT
    """Seconds for which a worker polls the run of a trigger that failed, before it defers again."""

    def __init__(
        self,
        *,
        run_id: str,
        skyvern_conn_id: str = "skyvern_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 10.0,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        log_blocks: bool = False,
        output_from: str | None = None,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        output_to: str | None = None,
        output_conn_id: str | None = None,
        output_run_columns: bool = False,
        mask_output: MaskOutput = True,
        files_to: str | None = None,
        files_conn_id: str | None = None,
        file_name: str | None = None,
        overwrite: bool = False,
        if_exists: IfExists | None = None,
        manifest_to: str | None = None,
        expect_files: ExpectedFiles = None,
        recording: bool = False,
        screenshots: bool = False,
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(poke_interval=interval_of("poke_interval", poke_interval), **kwargs)
        seconds_of("timeout", self.timeout, or_zero=True)
        self.run_id = run_id
        self.skyvern_conn_id = skyvern_conn_id
        self.deferrable = deferrable
        self.mask_output = mask_output
        self.output_from = output_from
        self.output_schema = output_schema
        self.output_to = output_to
        self.output_conn_id = output_conn_id
        self.output_run_columns = output_run_columns
        self.log_blocks = log_blocks
        self._wait: Wait[Run] | None = None
        if not run_id:
            raise SkyvernConfigError(f"Task {self.task_id!r}: run_id is empty.")
        if end_from_trigger and not start_from_trigger:
            raise SkyvernConfigError(f"Task {self.task_id!r}: end_from_trigger needs start_from_trigger=True.")
        if mask_output is not True:
            from airflow_skyvern.results.mask_rules import check_mask_output

            check_mask_output(self.task_id, mask_output)
        if output_schema is not None:
            from airflow_skyvern.results.contract import check_schema

            check_schema(self.task_id, output_schema, has_output=not end_from_trigger)
        if output_to is not None:
            from airflow_skyvern.results.destination import check_output_to

            check_output_to(self.task_id, output_to, has_output=not end_from_trigger)
        self.files_to = files_to
        self.files_conn_id = files_conn_id
        self.file_name = file_name
        self.overwrite = overwrite
        self.if_exists = if_exists
        self.manifest_to = manifest_to
        self.recording = recording
        self.screenshots = screenshots
        self.expect_files = expect_files
        files = checked_file_options(self)
        if end_from_trigger and files is not None and files.wanted:
            raise SkyvernConfigError(
                f"Task {self.task_id!r}: files_to and expect_files need a worker at the end, which "
                "end_from_trigger=True leaves out."
            )
        self._without_worker = start_from_trigger
        if start_from_trigger:
            from airflow_skyvern.task.start_in_trigger import start_trigger_args

            self.start_trigger_args = start_trigger_args(
                self, run_id, skyvern_conn_id, end_from_trigger=end_from_trigger, log_blocks=log_blocks
            )
            self.start_from_trigger = self.start_trigger_args is not None

    def execute(self, context: Context) -> Any:
        """Poll once; then wait as the mode says."""
        with errors_for_airflow():
            run_id_of(self.run_id)
            if self._without_worker or self.deferrable or self.reschedule:
                check_is_the_task(self, context, NO_WAIT_OUTSIDE)
            check_delivery(self, self._output_options)
            if self._without_worker:
                self.log.info(
                    "start_from_trigger needs Airflow 3.3 and an unmapped task: this worker starts the wait"
                )
            elif not self.deferrable:
                return super().execute(context)
            result = self.poke(context)
            return result.xcom_value if isinstance(result, PokeReturnValue) else self._defer(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll the run once."""
        wait = self._run_wait(self._deadline())
        try:
            wait.update(self.hook.fetch_run(self.run_id))
        except SkyvernError as error:
            wait.run_known = wait.run_known or (not error.transient and self._has_polled_before(context))
            wait.poll_failed(error)
            return False
        assert wait.run is not None
        TaskTry(context).publish_run(wait.run)
        return PokeReturnValue(is_done=True, xcom_value=self._output(context, wait.run)) if wait.ended else False

    def _has_polled_before(self, context: Context) -> bool:
        """
        Return whether another process of this task has polled the run.

        A wrong key or an unknown run would have ended the task there, without a retry. So the key was valid and the
        run is there, or Skyvern could not be reached, and then patience only delays the error.
        """
        is_retry = not TaskTry(context).is_first_of_group(self.retries or 0)
        return is_retry or (self.reschedule and since_3_0.was_rescheduled(context))

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float | None = None,
        skyvern: Any = None,
        *,
        run_known: bool = False,
        **_: Any,
    ) -> Any:
        """
        Resume after the trigger: fetch the run once more, and end the task accordingly.

        :param skyvern: What the run page reads of the try, see :mod:`airflow_skyvern.task.deferral`; not used here.
        :param run_known: Whether the run was polled before the deferral.
        """
        from airflow_skyvern.runs.wait import event_of, wait_for_end

        ended = event_of(event)
        if deadline is None:  # Airflow itself started the wait, in the triggerer
            started = TaskTry(context).started_at
            run_known = has_outlasted_first_poll(started or time.time())
            deadline = 0.0 if ended["reason"] == "deadline" else self._deadline(started)
        deadline = deadline_to_fetch(ended, deadline, self.log)
        wait = self._run_wait(
            deadline,
            run_known=run_known or ended["status"] is not None,
            longest_refusal=patience_after(ended["reason"], self.confirmation),
        )
        run = wait_for_end(wait, lambda: self.hook.fetch_run(ended["run_id"]), time.sleep)
        if wait.run is not None and self._without_worker:
            TaskTry(context).publish_run(wait.run)
        if run is None:
            raise self._late()
        return self._output(context, run)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume after a deferral; a wrong key fails the task also with ``soft_fail``.

        When the trigger failed, as its class could not be loaded during a deployment, or a newer version of this
        provider has deferred the task in a way that this one does not know, this worker polls for a minute and then
        defers again.
        """
        with errors_for_airflow():
            if not can_resume(self, next_method):
                return self._wait_and_defer_again(context, no_method(next_method), deadline_of(next_kwargs))
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowException as error:
                if next_method != FAILED or internals.deferral_timed_out(next_kwargs):
                    raise
                return self._wait_and_defer_again(context, error)

    def _wait_and_defer_again(self, context: Context, why: object, until: float | None = None) -> Any:
        from airflow_skyvern.runs.wait import wait_for_end

        self.log.warning(POLLS_AND_DEFERS_AGAIN, self.run_id, why)
        started = TaskTry(context).started_at
        deadline = until or self._deadline(started)
        wait = self._run_wait(
            min(deadline, time.time() + self.trigger_failed_wait),
            run_known=has_outlasted_first_poll(started or time.time()),
        )
        run = wait_for_end(wait, lambda: self.hook.fetch_run(self.run_id), time.sleep)
        if run is not None:
            return self._output(context, run)
        if wait.deadline < deadline:
            self._defer(context, deadline)
        raise self._late()

    def _late(self) -> AirflowException:
        return AirflowSensorTimeout(f"Skyvern run {self.run_id} did not end within {self.timeout} seconds.")

    def _defer(self, context: Context, until: float | None = None) -> NoReturn:
        from airflow_skyvern.triggers import SkyvernRunTrigger

        deadline = until or self._deadline()
        known = {"run_known": self._run_wait(deadline).run is not None or self._has_polled_before(context)}
        note = note_of_run(self.run_id, self.skyvern_conn_id)
        self.defer(
            trigger=SkyvernRunTrigger(
                self.run_id, self.skyvern_conn_id, self.poke_interval, deadline, log_blocks=self.log_blocks, **known
            ),
            method_name="execute_complete",
            kwargs={"deadline": deadline, **known, NOTE: note},
            timeout=airflows_timeout_for(deadline),
        )

    def _deadline(self, started: float | None = None) -> float:
        return deadline_after(started or time.time(), self.timeout, self.execution_timeout)

    def _run_wait(self, deadline: float, **known: Any) -> Wait[Run]:
        if self._wait is None:
            from airflow_skyvern.runs.wait import Wait

            self._wait = Wait(self.run_id, poll_interval=self.poke_interval, deadline=deadline, log=self.log, **known)
        return self._wait

    @property
    def _output_options(self) -> OutputOptions:
        from airflow_skyvern.results.output import OutputOptions

        return OutputOptions.of(self)

    def _output(self, context: Context, run: Run) -> Any:
        from airflow_skyvern.runs.cost import account

        cost = account(run, self.hook.emergency_client, self.log)
        try:
            return self._delivered(context, run)
        finally:
            cost.log_as_last_line(run, self.log)

    def _delivered(self, context: Context, run: Run) -> Any:
        if run.succeeded:
            value, _ = Delivery(self, TaskTry(context), run, self.stop_if_killed).bring(self._output_options)
            return value
        deliver_evidence(self, TaskTry(context), run, self.stop_if_killed)
        error = logged_error_of(run, self.log)
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(str(error)) from error
        raise AirflowFailException(str(error)) from error
