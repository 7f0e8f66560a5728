"""Store the files that a Skyvern run has downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernTransferError
from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.results.deliver import Delivery, StopsTransfers, check_delivery, checked_file_options
from airflow_skyvern.task.arguments import run_id_of
from airflow_skyvern.task.base import ChecksArguments, UsesConnection, check_untemplated
from airflow_skyvern.task.endings import errors_for_airflow
from airflow_skyvern.task.task_try import TaskTry

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.results.options import ExpectedFiles, IfExists


class SkyvernDownloadFilesOperator(StopsTransfers, ChecksArguments, UsesConnection):
    """
    Store the files that a finished Skyvern run has downloaded, however it ended.

    :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator` and
    :class:`~airflow_skyvern.sensors.SkyvernRunSensor` do the same with their run when they have ``files_to``.

    XCom: ``return_value`` and ``files``: a list of ``{"path", "filename", "size", "checksum"}``, which can be mapped
    over; ``run_id`` and ``app_url``.

    https://www.skyvern.com/docs/api-reference/api-reference/artifacts/get-artifact-content

    :param run_id: The run. (templated)
    :param files_to: Where to store them: an absolute path, ``file://``, or an address such as ``s3://bucket/folder``.
        Each file is stored completely or not at all. (templated)
    :param files_conn_id: Id of the Airflow connection for the store. Default: the settings in the worker's
        environment. (templated)
    :param file_name: Names for the files: after Jinja, ``{index}`` counts from 1, ``{name}`` is Skyvern's name
        without extension, ``{extension}`` the extension with its dot. ``{skyvern_run_id}`` is Skyvern's id of the
        run, here and in ``files_to``. Default: Skyvern's names. (templated)
    :param overwrite: Whether a file may replace another file of the same name. A file that is already stored with the
        same size and checksum is never fetched again. Default: False.
    :param if_exists: ``"replace"`` is the same, and with ``manifest_to`` replaces all that an earlier run has left;
        ``"skip_same"`` and ``"fail"`` replace no other file. Default: ``"skip_same"``.
    :param manifest_to: Address of a JSON file that lists what was stored, written last; as with
        :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator`. (templated)
    :param expect_files: How many files the run must have downloaded: a number, ``[least, most]``, or name patterns
        such as ``["*.pdf"]`` that each must match a file. Default: any.
    :param recording: Whether the run's recording is stored there too. Default: False.
    :param screenshots: Whether its screenshots are stored there too. Default: False.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises SkyvernTransferError: a file could not be stored in full, or the run is not over; a retry continues.
    :raises AirflowFailException: no retry can help: another file is there, other files were expected, the address of
        a file is refused, or the key or the run id is wrong.
    """

    template_fields: Sequence[str] = (
        "run_id",
        "files_to",
        "files_conn_id",
        "file_name",
        "manifest_to",
        "skyvern_conn_id",
    )
    operator_extra_links = (SkyvernRunLink(),)
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        run_id: str,
        files_to: str,
        files_conn_id: str | None = None,
        file_name: str | None = None,
        overwrite: bool = False,
        if_exists: IfExists | None = None,
        manifest_to: str | None = None,
        expect_files: ExpectedFiles = None,
        recording: bool = False,
        screenshots: bool = False,
        skyvern_conn_id: str = "skyvern_default",
        **kwargs: Any,
    ) -> None:
        check_untemplated(type(self), {**kwargs, **locals()})
        super().__init__(**kwargs)
        self.run_id = run_id
        self.files_to = files_to
        self.files_conn_id = files_conn_id
        self.file_name = file_name
        self.overwrite = overwrite
        self.if_exists = if_exists
        self.manifest_to = manifest_to
        self.recording = recording
        self.screenshots = screenshots
        self.expect_files = expect_files
        self.skyvern_conn_id = skyvern_conn_id
        if not run_id or not files_to:
            raise SkyvernConfigError(f"Task {self.task_id!r}: {'files_to' if run_id else 'run_id'} is empty.")
        checked_file_options(self)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Fetch the run, and store its files."""
        task_try = TaskTry(context)
        with errors_for_airflow():
            check_delivery(self)
            run = self.hook.fetch_run(run_id_of(self.run_id))
            task_try.publish_run(run)
            if not run.is_final:
                raise SkyvernTransferError(
                    f"Skyvern run {run.run_id} is {run.status}: its files are known when it has ended. Put a "
                    "SkyvernRunSensor before this task."
                )
            _, files = Delivery(self, task_try, run, self.stop_if_killed).bring()
            return [file.as_xcom() for file in files]
