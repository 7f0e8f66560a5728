"""The browser sessions and profiles of the fake, and what a start in one of them does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_skyvern.testing.fake import views
from airflow_skyvern.testing.fake.checks import detail, page_of
from airflow_skyvern.testing.fake.records import ORGANIZATION, Run, Seen, stamp


@dataclass
class Session:
    """A browser session."""

    browser_session_id: str
    timeout: int
    browser_profile_id: str | None
    generate_browser_profile: bool
    created_at: datetime
    completed_at: datetime | None = None
    status: str = "running"

    @property
    def view(self) -> dict[str, Any]:
        return {
            "browser_session_id": self.browser_session_id,
            "organization_id": ORGANIZATION,
            "status": self.status,
            "runnable_type": None,
            "runnable_id": None,
            "timeout": self.timeout,
            "app_url": f"http://localhost:8080/browser-session/{self.browser_session_id}",
            "browser_profile_id": self.browser_profile_id,
            "generate_browser_profile": self.generate_browser_profile,
            "started_at": stamp(self.created_at),
            "completed_at": stamp(self.completed_at),
            "created_at": stamp(self.created_at),
        }


@dataclass
class Profile:
    """A browser profile."""

    browser_profile_id: str
    name: str
    description: str | None
    created_at: datetime
    source: str | None = None
    is_managed: bool = False

    @property
    def view(self) -> dict[str, Any]:
        return {
            "browser_profile_id": self.browser_profile_id,
            "organization_id": ORGANIZATION,
            "name": self.name,
            "description": self.description,
            "is_managed": self.is_managed,
            "created_at": stamp(self.created_at),
            "modified_at": stamp(self.created_at),
            "deleted_at": None,
        }


class FakeBrowsers:
    """The part of :class:`~airflow_skyvern.testing.fake.skyvern.FakeSkyvern` that knows them."""

    runs: dict[str, Run]
    sessions: dict[str, Session]
    profiles: dict[str, Profile]

    def _id(self, prefix: str) -> str:
        raise NotImplementedError

    def _tick(self) -> datetime:
        raise NotImplementedError

    @property
    def open_sessions(self) -> list[str]:
        """The ids of the sessions that are open."""
        return [known.browser_session_id for known in self.sessions.values() if known.completed_at is None]

    def session(self, timeout: int = 60, *, generate_browser_profile: bool = False) -> str:
        """Open a session and return its id."""
        made = Session(self._id("pbs"), timeout, None, generate_browser_profile, self._tick())
        self.sessions[made.browser_session_id] = made
        return made.browser_session_id

    def profile(self, name: str, **more: Any) -> str:
        """Add a profile and return its id; the server refuses a second one of a name, a managed one may have it."""
        made = Profile(self._id("bp"), name, None, self._tick(), **more)
        self.profiles[made.browser_profile_id] = made
        return made.browser_profile_id

    def end_session(self, session_id: str, status: str = "completed") -> None:
        """End a session, as its close or its timeout does."""
        known = self.sessions[session_id]
        if known.completed_at is None:
            known.status, known.completed_at = status, self._tick()

    def check_browser(self, body: dict[str, Any]) -> None:
        """Refuse a start in a session that is unknown or over, or with an unknown profile."""
        if session_id := body.get("browser_session_id"):
            known = self.sessions.get(session_id)
            if known is None:
                raise detail(404, f"Browser session {session_id} does not exist or is not live.")
            if known.completed_at is not None:
                raise detail(
                    410,
                    f"Browser session {session_id} is no longer usable (status: {known.status}). Create a new "
                    "browser session and retry.",
                )
        if (profile := body.get("browser_profile_id")) and profile not in self.profiles:
            raise detail(404, f"Browser profile {profile} not found for organization {ORGANIZATION}")

    def occupier_of(self, session_id: str | None) -> str | None:
        """Return the run that is in a session now: another start there is accepted, and then fails."""
        runs = self._runs_in(session_id) if session_id else []
        return next((run.run_id for run in runs if not run.is_over and run.occupied_by is None), None)

    def _runs_in(self, session_id: str) -> list[Run]:
        return [run for run in self.runs.values() if run.request.get("browser_session_id") == session_id]

    def _session(self, session_id: str) -> Session:
        if session_id not in self.sessions:
            raise detail(404, f"Browser session {session_id} not found")
        return self.sessions[session_id]

    def _create_session(self, seen: Seen) -> Any:
        body = seen.json or {}
        profile = body.get("browser_profile_id")
        if profile and profile not in self.profiles:
            raise detail(404, f"Browser profile {profile} not found")
        session_id = self.session(
            body.get("timeout") or 60, generate_browser_profile=bool(body.get("generate_browser_profile"))
        )
        self.sessions[session_id].browser_profile_id = profile
        return self.sessions[session_id].view

    def _list_sessions(self, seen: Seen) -> Any:
        return [self.sessions[session_id].view for session_id in reversed(self.open_sessions)]

    def _get_session(self, seen: Seen, session_id: str) -> Any:
        return self._session(session_id).view

    def _update_session(self, seen: Seen, session_id: str) -> Any:
        known = self._session(session_id)
        known.generate_browser_profile = seen.json["generate_browser_profile"]
        return known.view

    def _close_session(self, seen: Seen, session_id: str) -> Any:
        self._session(session_id)
        self.end_session(session_id)
        return {"message": "Browser session closed"}

    def _runs_of_session(self, seen: Seen, session_id: str) -> Any:
        self._session(session_id)
        page, size = page_of(seen)
        rows = list(reversed(self._runs_in(session_id)))[(page - 1) * size : page * size]
        return [{**views.workflow_row(run), "browser_session_id": session_id} for run in rows]

    def _create_profile(self, seen: Seen) -> Any:
        body = seen.json
        source = body.get("browser_session_id") or body.get("workflow_run_id")
        mine = [known for known in self.profiles.values() if not known.is_managed]
        for known in mine:
            if source and (known.source, known.name) == (source, body["name"]):
                return known.view
        if session_id := body.get("browser_session_id"):
            self._check_archive(session_id)
        if any(known.name == body["name"] for known in mine):
            words = f"A browser profile named '{body['name']}' already exists."
            raise detail(409, f"{words} Use a different name or delete the existing profile.")
        profile_id = self.profile(body["name"], source=source)
        self.profiles[profile_id].description = body.get("description")
        return self.profiles[profile_id].view

    def _check_archive(self, session_id: str) -> None:
        known = self._session(session_id)
        if not known.generate_browser_profile:
            words = "This browser session was not configured to generate a browser profile. Start a session with"
            raise detail(400, f"{words} generate_browser_profile enabled to capture a profile.")
        if known.completed_at is None:
            words = "Browser session does not have a persisted profile archive. Close the session and wait for upload"
            raise detail(400, f"{words} before creating a browser profile.")

    def _profile(self, profile_id: str) -> Profile:
        if profile_id not in self.profiles:
            raise detail(404, f"Browser profile {profile_id} not found")
        return self.profiles[profile_id]

    def _list_profiles(self, seen: Seen) -> Any:
        page, size = page_of(seen)
        search = (seen.query.get("search_key") or [""])[0].lower()
        rows = [
            known
            for known in reversed(self.profiles.values())
            if search in known.name.lower() or search in (known.description or "").lower()
        ]
        return [known.view for known in rows[(page - 1) * size : page * size]]

    def _get_profile(self, seen: Seen, profile_id: str) -> Any:
        return self._profile(profile_id).view

    def _update_profile(self, seen: Seen, profile_id: str) -> Any:
        known = self._profile(profile_id)
        known.name = seen.json.get("name") or known.name
        known.description = seen.json.get("description", known.description)
        return known.view

    def _delete_profile(self, seen: Seen, profile_id: str) -> Any:
        self._profile(profile_id)
        del self.profiles[profile_id]
        return None


_ID = "([^/]+)"
BROWSER_ROUTES = (
    ("POST", "/v1/browser_sessions", "_create_session"),
    ("GET", "/v1/browser_sessions", "_list_sessions"),
    ("GET", f"/v1/browser_sessions/{_ID}", "_get_session"),
    ("PATCH", f"/v1/browser_sessions/{_ID}", "_update_session"),
    ("POST", f"/v1/browser_sessions/{_ID}/close", "_close_session"),
    ("GET", f"/v1/browser_sessions/{_ID}/workflow_runs", "_runs_of_session"),
    ("POST", "/v1/browser_profiles", "_create_profile"),
    ("GET", "/v1/browser_profiles", "_list_profiles"),
    ("GET", f"/v1/browser_profiles/{_ID}", "_get_profile"),
    ("PATCH", f"/v1/browser_profiles/{_ID}", "_update_profile"),
    ("DELETE", f"/v1/browser_profiles/{_ID}", "_delete_profile"),
)
