"""From an Airflow connection to the Skyvern API: one method per endpoint, and its twin for an event loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from airflow_skyvern import metrics
from airflow_skyvern.client import api, browser_api, credential_api, schedule_api, task_api, workflow_api
from airflow_skyvern.client.plain_types import plain_annotations
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient
from airflow_skyvern.client.session import AsyncSession, Session, afetch_run, fetch_run
from airflow_skyvern.client.settings import DEFAULT_MAX_ANSWER_BYTES, Settings, settings_from
from airflow_skyvern.client.versions import described, version_of_server
from airflow_skyvern.compat import internals, since_3_2, teams
from airflow_skyvern.compat.sdk import BaseHook, conf
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.models.base import whole
from airflow_skyvern.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.sender import Observe
    from airflow_skyvern.client.streaming import Incoming
    from airflow_skyvern.compat.sdk import Connection
    from airflow_skyvern.models import Run

P = ParamSpec("P")
T = TypeVar("T")

AGENTS = "airflow_skyvern.agents.agent"
"""
The module behind :meth:`SkyvernHook.agent`. The methods that Airflow's AI provider calls on a hook need the task
layer, which is above the hook. So the module is only named here, and imported on the first call.
"""

OF_THIS_PROCESS = frozenset({"_session", "_async_sessions", "_making"})
"""What a copy of a hook does not take over: clients, loops and locks."""


class _Method(Generic[P, T]):
    """A hook method made of an endpoint: ``hook.get_run("wr_1")`` sends ``api.get_run("wr_1")``."""

    def __init__(self, endpoint: Callable[P, Call[T]]) -> None:
        self.endpoint = endpoint

    @overload
    def __get__(self, hook: None, owner: type) -> _Method[P, T]: ...
    @overload
    def __get__(self, hook: SkyvernHook, owner: type) -> Callable[P, T]: ...
    def __get__(self, hook: SkyvernHook | None, owner: type) -> _Method[P, T] | Callable[P, T]:
        if hook is None:
            return self

        @functools.wraps(self.endpoint)
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return whole(hook.send(self.endpoint(*args, **kwargs)))

        method.__annotations__ = plain_annotations(self.endpoint)
        return method


class _AsyncMethod(Generic[P, T]):
    """The same for an event loop: ``await hook.aget_run("wr_1")``."""

    def __init__(self, endpoint: Callable[P, Call[T]]) -> None:
        self.endpoint = endpoint

    @overload
    def __get__(self, hook: None, owner: type) -> _AsyncMethod[P, T]: ...
    @overload
    def __get__(self, hook: SkyvernHook, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, hook: SkyvernHook | None, owner: type) -> _AsyncMethod[P, T] | Callable[P, Awaitable[T]]:
        if hook is None:
            return self

        @functools.wraps(self.endpoint)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await hook.asend(self.endpoint(*args, **kwargs))

        return method


def _both(endpoint: Callable[P, Call[T]]) -> tuple[_Method[P, T], _AsyncMethod[P, T]]:
    return _Method(endpoint), _AsyncMethod(endpoint)


class SkyvernHook(BaseHook):
    """
    Talk to Skyvern with the API key and address of an Airflow connection.

    Endpoints are methods, each with the parameters of its namesake in :mod:`airflow_skyvern.client` and a twin
    with an ``a`` before its name for event loops. Requests have timeouts, reuse connections and are repeated where
    that is safe; a key that was rotated is picked up by reading the connection again.

    ::

        run = SkyvernHook().get_run("wr_123")
        run = await SkyvernHook().aget_run("wr_123")

    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``.
    :param retry: When failed requests are sent again. Default: up to 5 times within about 10 s.
    :raises SkyvernConfigError: the connection is incomplete or wrong; the message names the field.
    """

    conn_name_attr = "skyvern_conn_id"
    default_conn_name = "skyvern_default"
    conn_type = "skyvern"
    hook_name = "Skyvern"
    agent_platform = "skyvern.browser"

    run_workflow, arun_workflow = _both(api.run_workflow)
    get_run, aget_run = _both(api.get_run)
    get_run_of_deleted_workflow, aget_run_of_deleted_workflow = _both(api.get_run_of_deleted_workflow)
    cancel_run, acancel_run = _both(api.cancel_run)
    cancel_runs, acancel_runs = _both(api.cancel_runs)
    retry_run, aretry_run = _both(api.retry_run)
    continue_run, acontinue_run = _both(api.continue_run)
    list_runs, alist_runs = _both(api.list_runs)
    find_runs, afind_runs = _both(api.find_runs)
    get_run_tags, aget_run_tags = _both(api.get_run_tags)
    list_workflow_runs, alist_workflow_runs = _both(api.list_workflow_runs)
    get_run_timeline, aget_run_timeline = _both(api.get_run_timeline)
    list_run_artifacts, alist_run_artifacts = _both(api.list_run_artifacts)
    get_artifact_content, aget_artifact_content = _both(api.get_artifact_content)
    list_workflows, alist_workflows = _both(api.list_workflows)
    get_workflow, aget_workflow = _both(api.get_workflow)
    upload_file, aupload_file = _both(api.upload_file)
    retry_webhook, aretry_webhook = _both(api.retry_webhook)
    get_version, aget_version = _both(api.get_version)
    create_schedule, acreate_schedule = _both(schedule_api.create_schedule)
    get_schedule, aget_schedule = _both(schedule_api.get_schedule)
    list_schedules, alist_schedules = _both(schedule_api.list_schedules)
    list_all_schedules, alist_all_schedules = _both(schedule_api.list_all_schedules)
    update_schedule, aupdate_schedule = _both(schedule_api.update_schedule)
    enable_schedule, aenable_schedule = _both(schedule_api.enable_schedule)
    disable_schedule, adisable_schedule = _both(schedule_api.disable_schedule)
    delete_schedule, adelete_schedule = _both(schedule_api.delete_schedule)
    apply_run_tags, aapply_run_tags = _both(api.apply_run_tags)
    list_run_tags, alist_run_tags = _both(api.list_run_tags)
    delete_run_tag, adelete_run_tag = _both(api.delete_run_tag)
    get_run_tag_history, aget_run_tag_history = _both(api.get_run_tag_history)
    delete_file, adelete_file = _both(api.delete_file)
    cancel_schedule, acancel_schedule = _both(schedule_api.cancel_schedule)
    create_workflow, acreate_workflow = _both(workflow_api.create_workflow)
    update_workflow, aupdate_workflow = _both(workflow_api.update_workflow)
    delete_workflow, adelete_workflow = _both(workflow_api.delete_workflow)
    get_workflow_version, aget_workflow_version = _both(workflow_api.get_workflow_version)
    list_workflow_versions, alist_workflow_versions = _both(workflow_api.list_workflow_versions)
    reset_browser_profile, areset_browser_profile = _both(workflow_api.reset_browser_profile)
    get_workflow_tags, aget_workflow_tags = _both(workflow_api.get_workflow_tags)
    get_tags_of_workflows, aget_tags_of_workflows = _both(workflow_api.get_tags_of_workflows)
    apply_workflow_tags, aapply_workflow_tags = _both(workflow_api.apply_workflow_tags)
    delete_workflow_tag, adelete_workflow_tag = _both(workflow_api.delete_workflow_tag)
    get_workflow_tag_history, aget_workflow_tag_history = _both(workflow_api.get_workflow_tag_history)
    create_folder, acreate_folder = _both(workflow_api.create_folder)
    get_folder, aget_folder = _both(workflow_api.get_folder)
    list_folders, alist_folders = _both(workflow_api.list_folders)
    update_folder, aupdate_folder = _both(workflow_api.update_folder)
    delete_folder, adelete_folder = _both(workflow_api.delete_folder)
    move_workflow, amove_workflow = _both(workflow_api.move_workflow)
    create_browser_session, acreate_browser_session = _both(browser_api.create_browser_session)
    get_browser_session, aget_browser_session = _both(browser_api.get_browser_session)
    list_browser_sessions, alist_browser_sessions = _both(browser_api.list_browser_sessions)
    extend_browser_session, aextend_browser_session = _both(browser_api.extend_browser_session)
    update_browser_session, aupdate_browser_session = _both(browser_api.update_browser_session)
    close_browser_session, aclose_browser_session = _both(browser_api.close_browser_session)
    list_runs_of_browser_session, alist_runs_of_browser_session = _both(browser_api.list_runs_of_browser_session)
    create_browser_profile, acreate_browser_profile = _both(browser_api.create_browser_profile)
    get_browser_profile, aget_browser_profile = _both(browser_api.get_browser_profile)
    list_browser_profiles, alist_browser_profiles = _both(browser_api.list_browser_profiles)
    get_browser_profile_usage, aget_browser_profile_usage = _both(browser_api.get_browser_profile_usage)
    update_browser_profile, aupdate_browser_profile = _both(browser_api.update_browser_profile)
    delete_browser_profile, adelete_browser_profile = _both(browser_api.delete_browser_profile)
    list_browser_types, alist_browser_types = _both(browser_api.list_browser_types)
    create_credential, acreate_credential = _both(credential_api.create_credential)
    update_credential, aupdate_credential = _both(credential_api.update_credential)
    rename_credential, arename_credential = _both(credential_api.rename_credential)
    get_credential, aget_credential = _both(credential_api.get_credential)
    list_credentials, alist_credentials = _both(credential_api.list_credentials)
    delete_credential, adelete_credential = _both(credential_api.delete_credential)
    send_totp_code, asend_totp_code = _both(credential_api.send_totp_code)
    run_task, arun_task = _both(task_api.run_task)
    run_login_task, arun_login_task = _both(task_api.run_login_task)
    run_download_task, arun_download_task = _both(task_api.run_download_task)
    list_scripts, alist_scripts = _both(task_api.list_scripts)
    get_script, aget_script = _both(task_api.get_script)

    def __init__(
        self, skyvern_conn_id: str = default_conn_name, *, retry: RetryPolicy | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.skyvern_conn_id = skyvern_conn_id
        self.retry = retry
        self.observe: Observe = functools.partial(metrics.request_sent, skyvern_conn_id)
        self._prepare()

    def _prepare(self) -> None:
        self._session = Session(self._settings, self._new_client, self._log_change)
        self._async_sessions: dict[asyncio.AbstractEventLoop, AsyncSession] = {}
        self._making = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def agent(
        self,
        workflow_id: str | None = None,
        *,
        sites: Sequence[str] = (),
        url: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        output_from: str | None = None,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        timeout: timedelta | float = timedelta(hours=1),
        **options: Any,
    ) -> Any:
        """
        Let an agent of Airflow's AI provider use a browser: a workflow, or prompts on some sites.

        ``hook.agent("wpid_123").toolset("read_invoices")`` is a tool for the ``toolsets`` of ``AgentOperator`` and
        ``@task.agent``, whose arguments are the workflow's parameters. ``hook.agent(sites=["shop.example.com"])``
        takes prompts. Each tool call is one run, also when the task is retried; the run is canceled when the task is
        killed. Needs Airflow 3 and the extra ``ai``.

        :param workflow_id: The workflow that the agent runs, ``wpid_…``.
        :param sites: Instead of it, the sites that prompts may be about, as ``shop.example.com``, ``*.example.com``
            or ``https://shop.example.com/prices``. A prompt that begins on, or names, another one is refused; the
            browser's model is instructed to visit no other.
        :param url: The page at which each prompt begins. Default: the first of the sites, unless the calling model
            gives one of them.
        :param parameters: Parameters of the workflow that are fixed: the calling model neither sees nor sets them.
            Logins belong here.
        :param output_from: The label of the block whose output is the answer. Default: the whole output.
        :param output_schema: The required form of the answer, as for the operators.
        :param timeout: Seconds, or a timedelta, after which a run is canceled. Default: an hour.
        :param options: Other arguments of the operators: ``max_steps``, ``max_elapsed_time_minutes``, ``engine``,
            ``error_code_mapping``, ``proxy_location``, ``browser_profile_id``, ``run_options``, ``title``,
            ``mask_output``, ``poll_interval`` (default: 5 s).
        :return: An :class:`~airflow_skyvern.agents.agent.SkyvernAgent`.
        :raises SkyvernConfigError: an argument is wrong, or the AI provider is missing.
        """
        return import_module(AGENTS).SkyvernAgent(
            self,
            workflow_id,
            sites=sites,
            url=url,
            parameters=parameters,
            output_from=output_from,
            output_schema=output_schema,
            timeout=timeout,
            **options,
        )

    def resolve_agent(self, agent: str) -> Any:
        """Return what Airflow's AI provider calls the workflow: a ``ManagedAgentRef``."""
        return self.agent(agent).ref

    def get_agent_capabilities(self, agent: str) -> Any:
        """Return what a workflow can do as an agent: ``ManagedAgentCapabilities``."""
        return self.agent(agent).capabilities

    def invoke_agent(self, agent: str, request: Any) -> Any:
        """Run a workflow for a ``ManagedAgentRequest``, wait, and return a ``ManagedAgentResponse``."""
        return self.agent(agent).invoke(request)

    def get_conn(self) -> SkyvernClient:
        """Return the client of this connection, which all threads share; it is made once."""
        return self._session.client()

    async def aget_conn(self) -> AsyncSkyvernClient:
        """Return the client of this connection for the running event loop; it is made once per loop."""
        return await self._async_session().client()

    def send(self, call: Call[T]) -> T:
        """Send any call of :mod:`airflow_skyvern.client.api` and return its result; several threads may do so."""
        return self._session.send(call)

    async def asend(self, call: Call[T]) -> T:
        """Send any call of :mod:`airflow_skyvern.client.api` from an event loop and return its result."""
        return await self._async_session().send(call)

    def stream(self, call: Call[Any], start: int = 0) -> AbstractContextManager[Incoming]:
        """
        Send a call and hand over its answer as it arrives; several threads may do so at once.

        See :meth:`~airflow_skyvern.client.sender.SkyvernClient.stream`.
        """
        return self._session.stream(call, start)

    def _async_session(self) -> AsyncSession:
        """Return the session of the running event loop; sessions of closed loops are dropped."""
        loop = asyncio.get_running_loop()
        if (known := self._async_sessions.get(loop)) is not None:
            return known
        with self._making:
            made = AsyncSession(self.asettings, self._new_async_client, lambda _: self._log_change())
            open_ones = {known: session for known, session in self._async_sessions.items() if not known.is_closed()}
            self._async_sessions = {**open_ones, loop: made}
        return made

    def _new_client(self, settings: Settings) -> SkyvernClient:
        """Make a client that closes when nobody uses it any more: other threads may use it longer than this hook."""
        client = SkyvernClient(settings, retry=self.retry, observe=self.observe)
        client.close_when_unused()
        return client

    def _new_async_client(self, settings: Settings) -> AsyncSkyvernClient:
        client = AsyncSkyvernClient(settings, retry=self.retry, observe=self.observe)
        client.close_when_unused()
        return client

    def _log_change(self) -> None:
        self.log.info("The Skyvern connection %r has changed: trying it as it is now", self.skyvern_conn_id)

    def fetch_run(self, run_id: str) -> Run:
        """Get a run, even if its workflow was deleted while it was running; waits call this."""
        return fetch_run(self.send, run_id)

    async def afetch_run(self, run_id: str) -> Run:
        """:meth:`fetch_run` for an event loop."""
        return await afetch_run(self.asend, run_id)

    def emergency_client(
        self, timeout: float = 3.5, *, observed: bool = False, longest_answer: int | None = None
    ) -> SkyvernClient | None:
        """
        Make a client for a signal handler: one attempt per call, each within ``timeout`` seconds.

        :param observed: Whether its requests are counted, which a signal handler must not do.
        :param longest_answer: Bytes of the longest answer that is read. Default: the connection's.

        The interrupted code may hold a lock of the shared client or be in the middle of a request to Airflow,
        so neither is touched: the client uses the settings that the hook has already read. Returns None if it has not
        read them yet, and so cannot have sent anything.
        """
        client = self._session.current
        if client is None:
            return None
        observe = self.observe if observed else None
        settings = client.settings.within(timeout, longest_answer)
        return SkyvernClient(settings, retry=RetryPolicy(attempts=1), observe=observe)

    def close(self) -> None:
        """Release the client, if any; it closes when no thread is using it."""
        self._session.forget()

    async def aclose(self) -> None:
        """Close the client of the running event loop, if there is one."""
        with self._making:
            session = self._async_sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()

    def test_connection(self) -> tuple[bool, str]:
        """Prove that the server is there and accepts the key; say what is wrong otherwise."""
        try:
            with SkyvernClient(self._settings(), retry=RetryPolicy(attempts=1)) as client:
                client.send(api.probe())
                version = described(client.ask(version_of_server()))
        except Exception as error:  # noqa: BLE001  the form shows an answer, and nothing of what is raised
            return False, str(error) if isinstance(error, SkyvernError) else f"{type(error).__name__}: {error}"
        return True, f"The API key is valid. Server: {client.settings.base_url}. {version}"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels of the connection form, for Airflow versions that ask the hook (below 3.2)."""
        behaviour = CONNECTION_TYPE["ui-field-behaviour"]
        return {
            "hidden_fields": behaviour["hidden-fields"],
            "relabeling": behaviour["relabeling"],
            "placeholders": behaviour["placeholders"],
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection form, for Airflow versions that ask the hook (below 3.2)."""
        return since_3_2.connection_form_widgets(CONNECTION_TYPE["conn-fields"])

    def _connection(self) -> Connection:
        connection: Connection = self.get_connection(self.skyvern_conn_id)
        return connection

    def _settings(self) -> Settings:
        with teams.advised(teams.RULE):
            return self._checked(self._connection())

    async def asettings(self) -> Settings:
        """
        Read the connection from an event loop, as it is now.

        :raises AirflowNotFoundException: it does not exist, or belongs to a team; triggerers cannot read a team's
            connections.
        """
        with teams.advised(self._async_advice()):
            return self._checked(await internals.in_thread(self._connection))

    def _async_advice(self) -> str:
        return teams.advice_for_triggerer(self.skyvern_conn_id)

    def _checked(self, connection: Connection) -> Settings:
        settings = settings_of(connection)
        if settings.exposes_key:
            self.log.warning(
                "The Skyvern connection %r sends its API key unencrypted to %s: use https.",
                self.skyvern_conn_id,
                settings.base_url,
            )
        return settings


class ServerHook(SkyvernHook):
    """
    The hook of Airflow's own processes and of the command line, which also reads the connections of teams.

    :param dag_id: Read the connection as a task of this DAG may. Default: regardless of its team.
    """

    def __init__(self, skyvern_conn_id: str, *, dag_id: str | None = None) -> None:
        super().__init__(skyvern_conn_id)
        self._dag_id = dag_id

    def _connection(self) -> Connection:
        return teams.read_connection(self.skyvern_conn_id, self._dag_id)

    def _async_advice(self) -> str:
        return teams.RULE


def settings_of(connection: Connection) -> Settings:
    """
    Read the settings from an Airflow connection in any format: form, JSON or URI.

    :raises SkyvernConfigError: a field is missing or wrong; the message names the connection and the field.
    """
    try:
        return settings_from(
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            login=connection.login,
            password=connection.password,
            extra=connection.extra,
            max_answer_bytes=_max_answer_bytes(),
        )
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Skyvern connection {connection.conn_id!r}: {error}") from None


def _max_answer_bytes() -> int:
    limit = int(conf.getint("skyvern", "max_answer_bytes", fallback=DEFAULT_MAX_ANSWER_BYTES))
    if limit <= 0:
        raise SkyvernConfigError(f"[skyvern] max_answer_bytes must be a positive number of bytes, not {limit}.")
    return limit
