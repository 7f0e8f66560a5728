"""
The endpoints around credentials, as values; see :mod:`airflow_skyvern.client.api`.

No answer has a secret in it, and no error repeats what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

from airflow_skyvern.client.calls import Call, get, given, no_body, paged, patch, path_segment, post
from airflow_skyvern.client.versions import SEARCHES
from airflow_skyvern.models import Credential, TotpCode

CredentialType = Literal["password", "credit_card", "secret"]


def create_credential(name: str, credential_type: CredentialType, credential: Mapping[str, Any]) -> Call[Credential]:
    """
    Give Skyvern a login, a card or a secret to keep.

    :param name: Not unique: look for it first.
    :param credential: Of a ``password``: ``username``, ``password``, and ``totp`` for a login in two steps. Of a
        ``credit_card``: ``card_number``, ``card_cvv``, ``card_exp_month``, ``card_exp_year``, ``card_brand``,
        ``card_holder_name``. Of a ``secret``: ``secret_value``, ``secret_label``.
    :raises SkyvernConfigError: something is missing that Skyvern would not miss; nothing was sent.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/create-credential
    """
    sent = _sent(name, credential_type, credential)
    return post("/v1/credentials", f"create credential {name!r}", Credential, **sent, repeatable=False)


def update_credential(
    credential_id: str, name: str, credential_type: CredentialType, credential: Mapping[str, Any]
) -> Call[Credential]:
    """
    Replace a credential, all of it: rotate a password. Its id stays.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/update-credential
    """
    sent = _sent(name, credential_type, credential)
    return post(f"{_path(credential_id)}/update", f"update credential {credential_id}", Credential, **sent)


def rename_credential(
    credential_id: str, name: str | None = None, user_context: str | None = None
) -> Call[Credential]:
    """
    Change the name and the context of a credential, not its secret.

    :param name: Its new name. Default: it stays.
    :param user_context: How to log in, in words, at most 1,000 characters: what Skyvern's form calls additional
        context. Skyvern gives it to the model that tests the login. Default: it stays.
    """
    body = given(name=name, user_context=user_context)
    return patch(_path(credential_id), f"rename credential {credential_id}", Credential, body)


def get_credential(credential_id: str) -> Call[Credential]:
    """
    Get a credential, without its secrets.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/get-credential
    """
    return get(_path(credential_id), f"get credential {credential_id}", Credential)


def list_credentials(search: str | None = None) -> Call[list[Credential]]:
    """
    List the credentials, without their secrets, all pages.

    :param search: A part of the name, or of the user name.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/get-credentials
    """
    needs = (SEARCHES,) if search else ()
    return paged("/v1/credentials", "list credentials", Credential, {"search": search}, needs=needs)


def delete_credential(credential_id: str) -> Call[None]:
    """
    Delete a credential for good. Of one that is gone already the server says 404.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/delete-credential
    """
    return Call("POST", f"{_path(credential_id)}/delete", f"delete credential {credential_id}", no_body)


def send_totp_code(
    totp_identifier: str, content: str, workflow_run_id: str | None = None, expired_at: datetime | None = None
) -> Call[TotpCode]:
    """
    Give Skyvern a code for a login in two steps that has arrived by mail or SMS.

    :param totp_identifier: The mail address or phone number that the login waits for, as the block or its credential
        in Skyvern has it.
    :param content: The code, or the message that it is in: beyond 10 characters Skyvern's model looks for the code.
    :param workflow_run_id: The only run that may use it. Default: any run that waits for this identifier.
    :param expired_at: Until when it may be used; without a time zone, in UTC. Default: ten minutes.
    :raises SkyvernConfigError: identifier or code are empty; nothing was sent.

    https://www.skyvern.com/docs/api-reference/api-reference/credentials/send-totp-code
    """
    from airflow_skyvern.client.credential_check import check_code

    check_code(totp_identifier, content)
    body = given(
        totp_identifier=totp_identifier,
        content=content,
        workflow_run_id=workflow_run_id,
        expired_at=expired_at and _in_utc(expired_at).isoformat(),
    )
    what, secrets = "send a code for a login", (content,)
    return post("/v1/credentials/totp", what, TotpCode, body=body, repeatable=False, secrets=secrets)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


def _sent(name: str, credential_type: CredentialType, credential: Mapping[str, Any]) -> dict[str, Any]:
    from airflow_skyvern.client.credential_check import check_credential, secrets_of

    check_credential(name, credential_type, credential)
    body = {"name": name, "credential_type": credential_type, "credential": dict(credential)}
    return {"body": body, "secrets": secrets_of(credential)}


def _path(credential_id: str) -> str:
    return f"/v1/credentials/{path_segment(credential_id)}"
