"""Small servers on loopback that stand for what may be between Airflow and Skyvern."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_skyvern.testing.serving import LoopbackServer

Answer = Callable[[str, Mapping[str, str]], tuple[int, Mapping[str, str], bytes]]
"""Answers a path and headers with a status, headers and a body."""


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        status, headers, body = self.server.answer(
            self.path, {name.lower(): value for name, value in self.headers.items()}
        )
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_CONNECT = do_GET  # noqa: N815  the standard library's names

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Serve what a function answers, and yield the address."""
    server = LoopbackServer(_Handler)
    server.answer = answer  # type: ignore[attr-defined]  # for the handler
    with server:
        yield server.url


@contextmanager
def answering_with_tls(answer: Answer, folder: Path) -> Iterator[str]:
    """Serve it with TLS; yields the address with https, whose certificate nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder))
    server = LoopbackServer(_Handler)
    server.answer = answer  # type: ignore[attr-defined]  # for the handler
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that speaks no TLS is expected
    with server:
        yield server.url.replace("http://", "https://")


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(private + made.public_bytes(encoding))
    return path
