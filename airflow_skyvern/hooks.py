"""From an Airflow connection to the Skyvern API: one method per endpoint, and its twin for an event loop."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload
from urllib.parse import urlsplit

from airflow_skyvern import compat, metrics
from airflow_skyvern.client import api, browser_api, credential_api, schedule_api, task_api, workflow_api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient
from airflow_skyvern.client.settings import DEFAULT_BASE_URL, DEFAULT_MAX_ANSWER_BYTES, DEFAULT_TIMEOUT, Settings
from airflow_skyvern.compat.sdk import BaseHook, conf
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConfigError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.provider_info import CONNECTION_TYPE
from airflow_skyvern.runs.lookup import fetch_run

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.streaming import Incoming
    from airflow_skyvern.compat.sdk import Connection
    from airflow_skyvern.models import Run

P = ParamSpec("P")
T = TypeVar("T")

LARGEST_PORT = 65535

YES_AND_NO = {"true": True, "false": False, "y": True, "n": False}
"""How texts say it: URIs, and the connection form of Airflow 2."""


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
            return hook.send(self.endpoint(*args, **kwargs))

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

    Each endpoint is a method, with the parameters of its namesake in :mod:`airflow_skyvern.client`, and has a twin
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
    create_browser_profile, acreate_browser_profile = _both(browser_api.create_browser_profile)
    get_browser_profile, aget_browser_profile = _both(browser_api.get_browser_profile)
    list_browser_profiles, alist_browser_profiles = _both(browser_api.list_browser_profiles)
    get_browser_profile_usage, aget_browser_profile_usage = _both(browser_api.get_browser_profile_usage)
    update_browser_profile, aupdate_browser_profile = _both(browser_api.update_browser_profile)
    delete_browser_profile, adelete_browser_profile = _both(browser_api.delete_browser_profile)
    list_browser_types, alist_browser_types = _both(browser_api.list_browser_types)
    create_credential, acreate_credential = _both(credential_api.create_credential)
    update_credential, aupdate_credential = _both(credential_api.update_credential)
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
        self._client: SkyvernClient | None = None
        self._rotation = threading.Lock()
        self._async_client: AsyncSkyvernClient | None = None

    def get_conn(self) -> SkyvernClient:
        """Return the client of this connection; it is made once."""
        if self._client is None:
            self._client = SkyvernClient(self._settings(), retry=self.retry, observe=self.observe)
        return self._client

    async def aget_conn(self) -> AsyncSkyvernClient:
        """Return the client of this connection for the running event loop; it is made once."""
        if self._async_client is None:
            self._async_client = AsyncSkyvernClient(await self.asettings(), retry=self.retry, observe=self.observe)
        return self._async_client

    def send(self, call: Call[T]) -> T:
        """Send any call of :mod:`airflow_skyvern.client.api` and return its result."""
        client = self.get_conn()
        try:
            return client.send(call)
        except SkyvernAuthError as error:
            self._check_changed(client.settings, self._settings(), error)
            self.close()
        return self.get_conn().send(call)

    async def asend(self, call: Call[T]) -> T:
        """Send any call of :mod:`airflow_skyvern.client.api` from an event loop and return its result."""
        client = await self.aget_conn()
        try:
            return await client.send(call)
        except SkyvernAuthError as error:
            self._check_changed(client.settings, await self.asettings(), error)
            await self.aclose()
        return await (await self.aget_conn()).send(call)

    @contextmanager
    def stream(self, call: Call[Any], start: int = 0) -> Iterator[Incoming]:
        """
        Send a call and hand over its answer as it arrives; several threads may do so at once.

        See :meth:`~airflow_skyvern.client.sender.SkyvernClient.stream`.
        """
        client = self.get_conn()
        with ExitStack() as stack:
            try:
                incoming = stack.enter_context(client.stream(call, start))
            except SkyvernAuthError as error:
                with self._rotation:
                    if self._client is client:
                        self._check_changed(client.settings, self._settings(), error)
                        self._client = None  # not closed: other threads may be reading from it
                incoming = stack.enter_context(self.get_conn().stream(call, start))
            yield incoming

    def fetch_run(self, run_id: str) -> Run:
        """Get a run, also when its workflow was deleted while it runs; that is what waits call."""
        return fetch_run(self.send, run_id)

    async def afetch_run(self, run_id: str) -> Run:
        """:meth:`fetch_run` for an event loop."""
        try:
            return await self.aget_run(run_id)
        except SkyvernNotFoundError as error:
            return await self.asend(api.get_run_despite(error, run_id))

    def emergency_client(self, timeout: float = 3.5) -> SkyvernClient | None:
        """
        Make a client for a signal handler: one attempt per call, each within ``timeout`` seconds.

        The interrupted code may hold a lock of the shared client or be in the middle of a request to Airflow,
        so neither is touched: the settings are those that the hook already has. None if it has none yet, and
        so cannot have sent anything.
        """
        if self._client is None:
            return None
        return SkyvernClient(self._client.settings.within(timeout), retry=RetryPolicy(attempts=1))

    def observe(self, call: Call[Any], error: SkyvernError | None) -> None:
        """Count a request of this connection in Airflow's metrics."""
        metrics.request_sent(self.skyvern_conn_id, error)

    def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Close the client of the event loop, if there is one."""
        if self._async_client is not None:
            await self._async_client.aclose()
            self._async_client = None

    def test_connection(self) -> tuple[bool, str]:
        """Prove that the server is there and accepts the key; say what is wrong otherwise."""
        try:
            with SkyvernClient(self._settings(), retry=RetryPolicy(attempts=1)) as client:
                client.send(api.probe())
                version = client.send(api.get_version()).version
        except SkyvernError as error:
            return False, str(error)
        return True, f"The API key is valid. Server: {client.settings.base_url}, version {version}."

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
        return compat.connection_form_widgets(CONNECTION_TYPE["conn-fields"])

    def _check_changed(self, used: Settings, current: Settings, refusal: SkyvernAuthError) -> None:
        """Raise the refusal of a key, unless the connection has changed since: a rotated key."""
        if current == used:
            raise refusal
        self.log.info("The Skyvern connection %r has changed: trying its new key", self.skyvern_conn_id)

    def _settings(self) -> Settings:
        return self._checked(self.get_connection(self.skyvern_conn_id))

    async def asettings(self) -> Settings:
        """Read the connection from an event loop, as it is now."""
        return self._checked(await compat.get_connection(self.skyvern_conn_id))

    def _checked(self, connection: Connection) -> Settings:
        settings = settings_of(connection)
        if settings.exposes_key:
            self.log.warning(
                "The Skyvern connection %r sends its API key unencrypted to %s: use https.",
                self.skyvern_conn_id,
                settings.base_url,
            )
        return settings


def settings_of(connection: Connection) -> Settings:
    """
    Read the settings out of an Airflow connection, however it was written: form, JSON or URI.

    :raises SkyvernConfigError: a field is missing or wrong; the message names the connection and the field.
    """
    try:
        extra = _extra(connection.extra)
        return Settings(
            api_key=_api_key(connection.password),
            base_url=_base_url(connection.host, connection.port, connection.schema),
            timeout=_timeout(extra.get("timeout")),
            proxy=_proxy(extra.get("proxy")),
            verify=_verify(extra.get("verify")),
            max_answer_bytes=_max_answer_bytes(),
            app_url=_app_url(extra.get("app_url")),
        )
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Skyvern connection {connection.conn_id!r}: {error}") from None


def _max_answer_bytes() -> int:
    limit = int(conf.getint("skyvern", "max_answer_bytes", fallback=DEFAULT_MAX_ANSWER_BYTES))
    if limit <= 0:
        raise SkyvernConfigError(f"[skyvern] max_answer_bytes must be a positive number of bytes, not {limit}.")
    return limit


def _api_key(password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise SkyvernConfigError("the API key is missing; put it into the password field.")
    if not (key.isascii() and key.isprintable()):
        raise SkyvernConfigError("the API key (password field) holds characters that no key has.")
    return key


def _base_url(host: str | None, port: int | None, schema: str | None) -> str:
    """
    Join host, port and schema: URIs are taken apart by Airflow, ``skyvern://https://:key@host:8443/path``.

    Ends without a slash and without ``/v1``, which the endpoints' paths begin with.
    """
    path = f"/{schema.strip('/')}" if schema and schema not in ("http", "https") else ""
    text = (host or "").strip() or DEFAULT_BASE_URL
    if "://" not in text:
        text = f"{schema if schema == 'http' else 'https'}://{text}"
    try:
        url = urlsplit(text)
        own_port = url.port
    except ValueError:
        raise SkyvernConfigError("the base URL (host field) is not an address.") from None
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise SkyvernConfigError("the base URL (host field) must look like https://api.skyvern.com, without a query.")
    if url.username or url.password:
        raise SkyvernConfigError("the base URL (host field) must not hold a password.")
    if port and own_port and port != own_port:
        raise SkyvernConfigError(f"the base URL says port {own_port}, the port field {port}; clear one.")
    netloc = f"{url.netloc}:{port}" if port and not own_port else url.netloc
    if port and not 0 < port <= LARGEST_PORT:
        raise SkyvernConfigError(f"the port must be between 1 and {LARGEST_PORT}.")
    full = (url.path + path).rstrip("/")
    return f"{url.scheme}://{netloc}{full.removesuffix('/v1').removesuffix('/api')}"


def _extra(text: str | None) -> dict[str, Any]:
    try:
        extra = json.loads(text or "{}")
    except ValueError:
        raise SkyvernConfigError("the extra field is not JSON.") from None
    if not isinstance(extra, dict):
        raise SkyvernConfigError("the extra field must be a JSON object.")
    return extra


def _timeout(value: Any) -> float:
    if value in (None, ""):
        return DEFAULT_TIMEOUT
    try:
        seconds = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise SkyvernConfigError(f"timeout must be a number of seconds, not {value!r}.") from None
    if not 0 < seconds < float("inf"):
        raise SkyvernConfigError(f"timeout must be more than 0 seconds, not {value!r}.")
    return seconds


def _proxy(value: Any) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str) or not value.lower().startswith(("http://", "https://")):
        raise SkyvernConfigError("proxy must be an address such as http://proxy.example.com:3128.")
    return value


def _app_url(value: Any) -> str | None:
    if value in (None, ""):
        return None
    try:
        url = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise SkyvernConfigError("app_url must be an address such as https://app.skyvern.com, without a query.")
    if url.username or url.password:
        raise SkyvernConfigError("app_url must not hold a password: everybody who sees a task sees it.")
    return str(value).rstrip("/").removesuffix("/runs")


def _verify(value: Any) -> bool | str:
    """Read true, false, or a path; URIs can say it as text only."""
    if value in (None, ""):
        return True
    if isinstance(value, str) and value.lower() in YES_AND_NO:
        return YES_AND_NO[value.lower()]
    if isinstance(value, bool | str):
        return value
    raise SkyvernConfigError(f"verify must be true, false or the path of a certificate file, not {value!r}.")
