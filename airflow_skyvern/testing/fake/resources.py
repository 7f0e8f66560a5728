"""What the fake keeps besides runs and schedules: versions, tags and folders of workflows, credentials."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from airflow_skyvern.testing.fake import views
from airflow_skyvern.testing.fake.checks import detail, page_of
from airflow_skyvern.testing.fake.records import ORGANIZATION, Run, Seen, Step, Workflow, stamp

NOT_SECRET = {
    "password": ("username", "totp_type", "totp_identifier"),
    "credit_card": (),
    "secret": ("secret_label",),
}


@dataclass
class Credential:
    """A credential; the fake keeps no secret of it but the password, for tests."""

    credential_id: str
    name: str
    credential_type: str
    content: dict[str, Any]
    user_context: str | None = None

    @property
    def view(self) -> dict[str, Any]:
        shown = {key: self.content.get(key) for key in NOT_SECRET[self.credential_type]}
        if self.credential_type == "password":
            shown |= {"totp_type": self.content.get("totp_type", "none"), "has_totp": bool(self.content.get("totp"))}
        if self.credential_type == "credit_card":
            shown = {"last_four": self.content["card_number"][-4:], "brand": self.content["card_brand"]}
        return {
            "credential_id": self.credential_id,
            "name": self.name,
            "credential_type": self.credential_type,
            "credential": shown,
            "vault_type": "skyvern",
            "user_context": self.user_context,
        }


@dataclass
class Folder:
    """A folder of workflows."""

    folder_id: str
    title: str
    description: str | None
    created_at: datetime
    workflows: set[str] = field(default_factory=set)

    @property
    def view(self) -> dict[str, Any]:
        return {
            "folder_id": self.folder_id,
            "title": self.title,
            "description": self.description,
            "organization_id": ORGANIZATION,
            "workflow_count": len(self.workflows),
            "created_at": stamp(self.created_at),
            "modified_at": stamp(self.created_at),
        }


class FakeResources:
    """The part of :class:`~airflow_skyvern.testing.fake.skyvern.FakeSkyvern` that knows them."""

    workflows: dict[str, Workflow]
    runs: dict[str, Run]
    folders: dict[str, Folder]
    credentials: dict[str, Credential]
    idempotency_keys: dict[str, str]
    totp_codes: list[dict[str, Any]]
    uploads: dict[str, tuple[str, bytes]]
    created_plan: Sequence[Step] = ("running", "completed")
    created_output: Any = {"pause_output": {"success": True}, "extracted_information": []}  # noqa: RUF012
    """What the runs of workflows do and return that are created through the API."""

    def _id(self, prefix: str) -> str:
        raise NotImplementedError

    def _tick(self) -> datetime:
        raise NotImplementedError

    def _create_workflow(self, seen: Seen) -> Any:
        definition = _definition(seen)
        key = seen.headers.get("idempotency-key")
        if key is not None and not (1 <= len(key) <= 255 and all("!" <= char <= "~" for char in key)):
            raise detail(422, "Idempotency-Key must contain 1 to 255 visible ASCII bytes.")
        if key is not None and (known := self.idempotency_keys.get(key)):
            made = self.workflows[known]
            first = {**views.workflow_view(made, version=1), "deleted_at": stamp(made.created_at)}
            return first if made.deleted else {**first, "deleted_at": None}
        workflow_id = self._id("wpid") if key is None else f"wpid_{hashlib.sha256(key.encode()).hexdigest()}"
        made = Workflow(
            workflow_id,
            definition["title"],
            self.created_plan,
            self.created_output,
            self._tick(),
        )
        made.definitions.append(definition)
        self.workflows[workflow_id] = made
        if key is not None:
            self.idempotency_keys[key] = workflow_id
        return views.workflow_view(made)

    def _update_workflow(self, seen: Seen, workflow_id: str) -> Any:
        definition = _definition(seen)
        made = self.workflows.get(workflow_id)
        if made is None:
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow_id}")
        made.definitions.append(definition)
        made.title, made.deleted = definition["title"], False
        return views.workflow_view(made)

    def _update_of_version(self, seen: Seen, workflow_id: str) -> Any:
        """Skyvern's older address: it takes YAML, and knows which version the sender expects."""
        definition = _checked(yaml.safe_load(seen.content))
        made = self.workflows.get(workflow_id)
        expected = int((seen.query.get("expected_version") or ["0"])[0])
        if made is None or (made.deleted and expected):
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow_id}")
        if expected and made.version != expected:
            raise detail(409, f"Concurrent update detected for workflow {workflow_id}. Please retry.")
        made.definitions.append(definition)
        made.title, made.deleted = definition["title"], False
        return views.workflow_view(made)

    def _delete_workflow(self, seen: Seen, workflow_id: str) -> Any:
        if workflow_id in self.workflows:
            self.workflows[workflow_id].deleted = True
        return None

    def _versions(self, seen: Seen, workflow_id: str) -> Any:
        made = self.workflows.get(workflow_id)
        if made is None or made.deleted:
            return []
        return [views.workflow_view(made, version=number) for number in range(made.version, 0, -1)]

    def _tagged_workflow(self, workflow_id: str) -> Workflow:
        made = self.workflows.get(workflow_id)
        if made is None or made.deleted:
            raise detail(404, f"Workflow {workflow_id} not found")
        return made

    def _workflow_tags(self, seen: Seen, workflow_id: str) -> Any:
        made = self._tagged_workflow(workflow_id)
        return {"workflow_permanent_id": workflow_id, "tags": _rows(made.tags)}

    def _tags_of_workflows(self, seen: Seen) -> Any:
        ids = seen.json["workflow_permanent_ids"]
        known = {made: self.workflows[made] for made in ids if made in self.workflows}
        return {"workflow_tags": {made: _rows(workflow.tags) for made, workflow in known.items()}}

    def _tag_workflow(self, seen: Seen, workflow_id: str) -> Any:
        _apply(self._tagged_workflow(workflow_id).tags, seen.json)
        return self._workflow_tags(seen, workflow_id)

    def _untag_workflow(self, seen: Seen, workflow_id: str, key: str) -> Any:
        self._tagged_workflow(workflow_id).tags.pop(key, None)
        return self._workflow_tags(seen, workflow_id)

    def _tags_of_run(self, seen: Seen, run_id: str) -> Any:
        if run_id not in self.runs:
            raise detail(404, f"Workflow run not found {run_id}")
        return {"workflow_run_id": run_id, "tags": _rows({"skyvern.trigger": "api", **self.runs[run_id].tags})}

    def _tag_run(self, seen: Seen, run_id: str) -> Any:
        if run_id in self.runs:
            _apply(self.runs[run_id].tags, seen.json)
        return self._tags_of_run(seen, run_id)

    def _untag_run(self, seen: Seen, run_id: str, key: str) -> Any:
        if run_id in self.runs:
            self.runs[run_id].tags.pop(key, None)
        return self._tags_of_run(seen, run_id)

    def _folder(self, folder_id: str) -> Folder:
        if folder_id not in self.folders:
            raise detail(404, f"Folder {folder_id} not found")
        return self.folders[folder_id]

    def _create_folder(self, seen: Seen) -> Any:
        made = Folder(self._id("fld"), seen.json["title"], seen.json.get("description"), self._tick())
        self.folders[made.folder_id] = made
        return made.view

    def _get_folder(self, seen: Seen, folder_id: str) -> Any:
        return self._folder(folder_id).view

    def _list_folders(self, seen: Seen) -> Any:
        page, size = page_of(seen)
        search = (seen.query.get("search") or [""])[0].lower()
        rows = [made for made in reversed(self.folders.values()) if search in made.title.lower()]
        return [made.view for made in rows[(page - 1) * size : page * size]]

    def _update_folder(self, seen: Seen, folder_id: str) -> Any:
        made = self._folder(folder_id)
        made.title = seen.json.get("title") or made.title
        made.description = seen.json.get("description", made.description)
        return made.view

    def _delete_folder(self, seen: Seen, folder_id: str) -> Any:
        made = self._folder(folder_id)
        deletes = seen.query.get("delete_workflows") == ["true"]
        for workflow_id in made.workflows:
            self.workflows[workflow_id].deleted = self.workflows[workflow_id].deleted or deletes
        del self.folders[folder_id]
        return {"status": "deleted", "folder_id": folder_id, "workflows_deleted": deletes}

    def _move_workflow(self, seen: Seen, workflow_id: str) -> Any:
        folder_id = seen.json["folder_id"]
        for made in self.folders.values():
            made.workflows.discard(workflow_id)
        if folder_id is not None:
            self._folder(folder_id).workflows.add(workflow_id)
        return views.workflow_view(self.workflows[workflow_id])

    def _create_credential(self, seen: Seen) -> Any:
        made = Credential(self._id("cred"), seen.json["name"], seen.json["credential_type"], seen.json["credential"])
        self.credentials[made.credential_id] = made
        return made.view

    def _credential(self, credential_id: str, complaint: str) -> Credential:
        if credential_id not in self.credentials:
            raise detail(404, complaint)
        return self.credentials[credential_id]

    def _get_credential(self, seen: Seen, credential_id: str) -> Any:
        return self._credential(credential_id, "Credential not found").view

    def _list_credentials(self, seen: Seen) -> Any:
        page, size = page_of(seen)
        search = (seen.query.get("search") or [""])[0].lower()
        rows = [
            made
            for made in reversed(self.credentials.values())
            if search in made.name.lower() or search in str(made.content.get("username", "")).lower()
        ]
        return [made.view for made in rows[(page - 1) * size : page * size]]

    def _update_credential(self, seen: Seen, credential_id: str) -> Any:
        made = self._credential(credential_id, f"Credential not found, credential_id={credential_id}")
        made.name, made.credential_type = seen.json["name"], seen.json["credential_type"]
        made.content = seen.json["credential"]
        return made.view

    def _rename_credential(self, seen: Seen, credential_id: str) -> Any:
        made = self._credential(credential_id, f"Credential not found, credential_id={credential_id}")
        made.name = seen.json.get("name", made.name)
        made.user_context = seen.json.get("user_context", made.user_context)
        return made.view

    def _delete_credential(self, seen: Seen, credential_id: str) -> Any:
        self._credential(credential_id, f"Credential not found, credential_id={credential_id}")
        del self.credentials[credential_id]
        return None

    def _send_totp(self, seen: Seen) -> Any:
        run_id = seen.json.get("workflow_run_id")
        if run_id is not None and run_id not in self.runs:
            raise detail(400, f"Invalid workflow run id: {run_id}")
        made = {"totp_code_id": self._id("totp"), "expired_at": None, **seen.json, "code": seen.json["content"]}
        self.totp_codes.append({**made, "sent_at": self._tick()})
        return made

    def _delete_file(self, seen: Seen, file_id: str) -> Any:
        if file_id not in self.uploads:
            raise detail(404, f"File {file_id} not found")
        del self.uploads[file_id]
        return None


_ID = "([^/]+)"
RESOURCE_ROUTES = (
    ("POST", "/v1/workflows", "_create_workflow"),
    ("POST", "/v1/workflow-tags", "_tags_of_workflows"),
    ("POST", f"/v1/workflows/{_ID}", "_update_workflow"),
    ("PUT", f"/api/v1/workflows/{_ID}", "_update_of_version"),
    ("POST", f"/v1/workflows/{_ID}/delete", "_delete_workflow"),
    ("GET", f"/v1/workflows/{_ID}/versions", "_versions"),
    ("GET", f"/v1/workflows/{_ID}/tags", "_workflow_tags"),
    ("POST", f"/v1/workflows/{_ID}/tags", "_tag_workflow"),
    ("DELETE", f"/v1/workflows/{_ID}/tags/{_ID}", "_untag_workflow"),
    ("PUT", f"/v1/workflows/{_ID}/folder", "_move_workflow"),
    ("GET", f"/v1/runs/{_ID}/tags", "_tags_of_run"),
    ("POST", f"/v1/runs/{_ID}/tags", "_tag_run"),
    ("DELETE", f"/v1/runs/{_ID}/tags/{_ID}", "_untag_run"),
    ("POST", "/v1/folders", "_create_folder"),
    ("GET", "/v1/folders", "_list_folders"),
    ("GET", f"/v1/folders/{_ID}", "_get_folder"),
    ("PUT", f"/v1/folders/{_ID}", "_update_folder"),
    ("DELETE", f"/v1/folders/{_ID}", "_delete_folder"),
    ("POST", "/v1/credentials", "_create_credential"),
    ("GET", "/v1/credentials", "_list_credentials"),
    ("POST", "/v1/credentials/totp", "_send_totp"),
    ("GET", f"/v1/credentials/{_ID}", "_get_credential"),
    ("PATCH", f"/v1/credentials/{_ID}", "_rename_credential"),
    ("POST", f"/v1/credentials/{_ID}/update", "_update_credential"),
    ("POST", f"/v1/credentials/{_ID}/delete", "_delete_credential"),
    ("DELETE", f"/v1/files/{_ID}", "_delete_file"),
)


def _definition(seen: Seen) -> dict[str, Any]:
    definition = seen.json.get("json_definition")
    if not definition:
        reason = "Workflow should be provided in either yaml or json format."
        raise detail(422, f"Invalid workflow definition. {reason}")
    return _checked(definition)


def _checked(definition: dict[str, Any]) -> dict[str, Any]:
    if any(row.get("parameter_type") == "output" for row in definition["workflow_definition"]["parameters"]):
        raise detail(422, "Cannot manually create output parameters")
    return dict(definition)


def _rows(tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def _apply(tags: dict[str, str], body: dict[str, Any]) -> None:
    for row in body.get("tags_to_delete") or ():
        tags.pop(row["key"], None)
    tags.update({row["key"]: row["value"] for row in body.get("tags") or ()})
