"""XCom backends as users have them: what is in Airflow's database is not the value."""

from __future__ import annotations

import base64
import json
import os
import uuid
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_skyvern.compat import since_3_0

BaseXCom: Any = import_module(
    "airflow.sdk.bases.xcom" if since_3_0.is_airflow_3() else "airflow.models.xcom"
).BaseXCom


class FolderXCom(BaseXCom):  # type: ignore[misc]  # of Airflow 2 or 3
    """Keeps values in a folder, as an object store; the database has their address."""

    @staticmethod
    def serialize_value(value: Any, **_: Any) -> Any:
        """Write a value, and return its address."""
        file = Path(os.environ["XCOM_FOLDER"]) / uuid.uuid4().hex
        file.write_text(json.dumps(value))
        return BaseXCom.serialize_value(f"store://{file}")

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Read the value at an address."""
        return json.loads(Path(BaseXCom.deserialize_value(result).removeprefix("store://")).read_text())


class ScrambledXCom(BaseXCom):  # type: ignore[misc]  # of Airflow 2 or 3
    """Encodes values, as one that encrypts them."""

    @staticmethod
    def serialize_value(value: Any, **_: Any) -> Any:
        """Encode a value."""
        return BaseXCom.serialize_value(base64.b85encode(json.dumps(value).encode()).decode())

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Decode a value."""
        return json.loads(base64.b85decode(BaseXCom.deserialize_value(result)))


BACKENDS = (FolderXCom, ScrambledXCom)
