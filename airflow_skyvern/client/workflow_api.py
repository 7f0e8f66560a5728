"""The endpoints around workflows, as values: versions, tags, folders; see :mod:`airflow_skyvern.client.api`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from airflow_skyvern.client import answers
from airflow_skyvern.client.calls import Call, delete, get, given, paged, parser_of, path_segment, post, put
from airflow_skyvern.client.versions import SINGLE_CREATION, WORKFLOW_FILES, needed_by_definition
from airflow_skyvern.models import Folder, TagHistory, Tags, Workflow, WorkflowTags


def create_workflow(
    definition: Mapping[str, Any], folder_id: str | None = None, idempotency_key: str | None = None
) -> Call[Workflow]:
    """
    Create a workflow.

    Skyvern silently accepts keys that it does not know, including typos.

    :param definition: As Skyvern exports it: ``title``, ``workflow_definition`` with ``parameters`` and ``blocks``,
        and the settings beside them.
    :param folder_id: The folder to create it in.
    :param idempotency_key: 1 to 255 visible ASCII characters. The same key creates one workflow however often it is
        sent; the answer is always version 1 of it, also when there are newer versions or it was deleted. With a key
        the call is repeated when its answer is lost.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/create-workflow
    """
    call = post(
        "/v1/workflows",
        f"create workflow {definition.get('title')!r}",
        Workflow,
        body={"json_definition": dict(definition)},
        headers=given(**{"Idempotency-Key": idempotency_key}),
        repeatable=idempotency_key is not None,
        known=answers.CREATE_WORKFLOW,
        needs=(*([SINGLE_CREATION] if idempotency_key else []), *needed_by_definition(definition)),
    )
    return call.with_query(given(folder_id=folder_id))


def update_workflow(
    workflow_id: str, definition: Mapping[str, Any], expected_version: int | None = None
) -> Call[Workflow]:
    """
    Make a new version of a workflow, also when the definition is the same; a deleted one exists again then.

    :param definition: See :func:`create_workflow`. Of the settings beside ``workflow_definition``, some that are left
        out keep their values, and others lose them: give all.
    :param expected_version: The newest version, as the caller knows it: if there is another one meanwhile, or the
        workflow was deleted, nothing is changed, and Skyvern answers 409 or 404. Skyvern has this at its older
        address only, which takes YAML. Default: the new version follows whichever version is the newest.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/update-workflow
    """
    if expected_version is not None:
        return _update_of_version(workflow_id, definition, expected_version)
    return post(
        _path(workflow_id),
        f"update workflow {workflow_id}",
        Workflow,
        body={"json_definition": dict(definition)},
        repeatable=False,
        needs=needed_by_definition(definition),
    )


def _update_of_version(workflow_id: str, definition: Mapping[str, Any], version: int) -> Call[Workflow]:
    import yaml

    return Call(
        "PUT",
        f"/api/v1/workflows/{path_segment(workflow_id)}",
        f"update version {version} of workflow {workflow_id}",
        parser_of(Workflow),
        query={"expected_version": version},
        text=yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True),
        headers={"content-type": "application/x-yaml"},
        repeatable=False,
        known=answers.UPDATE_WORKFLOW,
        subject=workflow_id,
        needs=(WORKFLOW_FILES,),
    )


def delete_workflow(workflow_id: str) -> Call[None]:
    """
    Delete a workflow. Runs that are active continue.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/delete-workflow
    """
    return post(f"{_path(workflow_id)}/delete", f"delete workflow {workflow_id}", Any)


def get_workflow_version(workflow_id: str, version: int) -> Call[Workflow]:
    """
    Get a version of a workflow.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflow
    """
    return get(_path(workflow_id), f"get version {version} of workflow {workflow_id}", Workflow, {"version": version})


def list_workflow_versions(workflow_id: str) -> Call[list[Workflow]]:
    """
    List the versions of a workflow, newest first.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflow-versions
    """
    return get(f"{_path(workflow_id)}/versions", f"list the versions of workflow {workflow_id}", list[Workflow])


def reset_browser_profile(workflow_id: str) -> Call[None]:
    """Forget the browser profile that Skyvern keeps for a workflow: its next run begins logged out."""
    path = f"/v1/agents/{path_segment(workflow_id)}/browser_session/reset_profile"
    return Call("POST", path, f"reset the browser profile of workflow {workflow_id}", lambda _: None)


def get_workflow_tags(workflow_id: str) -> Call[Tags]:
    """Get the tags of a workflow."""
    return get(f"{_path(workflow_id)}/tags", f"get the tags of workflow {workflow_id}", Tags)


def get_tags_of_workflows(workflow_ids: Iterable[str]) -> Call[WorkflowTags]:
    """Get the tags of several workflows."""
    body = {"workflow_permanent_ids": list(workflow_ids)}
    return post("/v1/workflow-tags", "get the tags of workflows", WorkflowTags, body=body)


def apply_workflow_tags(workflow_id: str, tags: Mapping[str, str], remove: Iterable[str] = ()) -> Call[Tags]:
    """
    Set tags of a workflow; those that are not named stay.

    :param tags: Values by key. :func:`~airflow_skyvern.client.api.list_workflows` finds workflows by them.
    :param remove: Keys of tags to remove.
    """
    return post(f"{_path(workflow_id)}/tags", f"tag workflow {workflow_id}", Tags, body=tags_body(tags, remove))


def delete_workflow_tag(workflow_id: str, key: str) -> Call[Tags]:
    """Remove a tag of a workflow."""
    path = f"{_path(workflow_id)}/tags/{path_segment(key)}"
    return delete(path, f"remove tag {key} of workflow {workflow_id}", Tags)


def get_workflow_tag_history(
    workflow_id: str, key: str | None = None, since: datetime | None = None
) -> Call[TagHistory]:
    """Get the history of a workflow's tags, newest first."""
    query = given(key=key, since=since and since.isoformat())
    return get(
        f"{_path(workflow_id)}/tags/history", f"get the tag history of workflow {workflow_id}", TagHistory, query
    )


def create_folder(title: str, description: str | None = None) -> Call[Folder]:
    """
    Create a folder for workflows; another one may have the same title.

    https://www.skyvern.com/docs/api-reference/api-reference/folders/create-folder
    """
    body = given(title=title, description=description)
    return post("/v1/folders", f"create folder {title!r}", Folder, body=body, repeatable=False)


def get_folder(folder_id: str) -> Call[Folder]:
    """
    Get a folder.

    https://www.skyvern.com/docs/api-reference/api-reference/folders/get-folder
    """
    return get(f"/v1/folders/{path_segment(folder_id)}", f"get folder {folder_id}", Folder)


def list_folders(search: str | None = None) -> Call[list[Folder]]:
    """
    List the folders, all pages.

    :param search: A part of title or description.

    https://www.skyvern.com/docs/api-reference/api-reference/folders/get-folders
    """
    return paged("/v1/folders", "list folders", Folder, {"search": search})


def update_folder(folder_id: str, title: str | None = None, description: str | None = None) -> Call[Folder]:
    """
    Rename a folder.

    https://www.skyvern.com/docs/api-reference/api-reference/folders/update-folder
    """
    body = given(title=title, description=description)
    return put(f"/v1/folders/{path_segment(folder_id)}", f"update folder {folder_id}", Folder, body)


def delete_folder(folder_id: str, *, delete_workflows: bool = False) -> Call[Any]:
    """
    Delete a folder.

    :param delete_workflows: Whether its workflows are deleted, too. Default: they stay, in no folder.

    https://www.skyvern.com/docs/api-reference/api-reference/folders/delete-folder
    """
    query = {"delete_workflows": "true"} if delete_workflows else {}
    return delete(f"/v1/folders/{path_segment(folder_id)}", f"delete folder {folder_id}", dict[str, Any], query)


def move_workflow(workflow_id: str, folder_id: str | None) -> Call[Workflow]:
    """
    Move a workflow into a folder, or out of any.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/update-workflow-folder
    """
    return put(f"{_path(workflow_id)}/folder", f"move workflow {workflow_id}", Workflow, {"folder_id": folder_id})


def tags_body(tags: Mapping[str, str], remove: Iterable[str]) -> dict[str, Any]:
    """Return what sets and removes tags, of a workflow or of a run."""
    return {
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "tags_to_delete": [{"key": key} for key in remove],
    }


def _path(workflow_id: str) -> str:
    return f"/v1/workflows/{path_segment(workflow_id)}"
