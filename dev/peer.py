"""A loopback peer for the workflows of the tests: an HTTP server for their requests and a mail sink.

HTTP: /json, /echo (returns the request's body), /status/N, /big?kb=N, /slow?s=N, /file, /page, /hook[?code=N],
/statement.pdf?vendor=NAME&size=100KB (the same for the same vendor and size), /rows.csv?vendor=NAME.
Every request is kept in memory: `Peer.requests`, also GET /_requests (DELETE clears).
SMTP: accepts STARTTLS, any AUTH and any mail (a `human_interaction` block sends mail) and keeps it: `Peer.mails`.
"""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import itertools
import json
import socketserver
import ssl
import time
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_skyvern.testing.serving import serve_in_thread
from dev.browser.site import pdf, size_in_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

_FILE_HEADERS = {"content-type": "text/plain", "content-disposition": "attachment; filename=report.txt"}
_SMTP_REPLIES = {
    b"EHLO": b"250-sink\r\n250-STARTTLS\r\n250 AUTH PLAIN",
    b"STARTTLS": b"220 go",
    b"AUTH": b"235 ok",
    b"DATA": b"354 go",
    b"QUIT": b"221 bye",
}
_PAGE = b"<html><title>Peer page</title><body><h1>hi</h1></body></html>"

Answer = tuple[int, bytes, dict[str, str]]


def _json(value: Any, status: int = HTTPStatus.OK) -> Answer:
    return status, json.dumps(value).encode(), {"content-type": "application/json"}


def _body(raw: bytes) -> Any:
    try:
        return json.loads(raw or b"null")
    except ValueError:
        return raw.decode("utf-8", "replace")


def statement(vendor: str, size: str) -> bytes:
    """Return a vendor's statement, as a PDF of this size (300KB, 20MB)."""
    return pdf(f"Statement of {vendor}", size_in_bytes(size))


def rows_csv(vendor: str) -> bytes:
    """Return the rows of a vendor's statement, as many as the name has letters."""
    rows = [f"{vendor},{number},{number * 1.5}\n" for number in range(1, len(vendor) + 1)]
    return "".join(["vendor,item,price\n", *rows]).encode()


def answer(path: str, query: dict[str, str], raw: bytes) -> Answer:
    """Return the peer's answer to a request."""
    fixed = {
        "/json": _json({"ok": True, "n": 42}),
        "/echo": _json({"got": _body(raw)}),
        "/hook": _json({}, int(query.get("code", "200"))),
        "/file": (HTTPStatus.OK, b"hello file\n", _FILE_HEADERS),
        "/rows.csv": (HTTPStatus.OK, rows_csv(query.get("vendor", "")), {"content-type": "text/csv"}),
        "/page": (HTTPStatus.OK, _PAGE, {"content-type": "text/html"}),
    }
    if path == "/slow":
        time.sleep(float(query.get("s", "1")))
        return _json({})
    if path == "/big":
        return _json({"data": "x" * (1024 * int(query.get("kb", "1")))})
    if path == "/statement.pdf":
        return HTTPStatus.OK, statement(query["vendor"], query["size"]), {"content-type": "application/pdf"}
    if path.startswith("/status/"):
        return _json({"error": "as you asked"}, int(path.removeprefix("/status/")))
    return fixed.get(path) or _json({"error": f"the peer has no {path}"}, HTTPStatus.NOT_FOUND)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def _handle(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if url.path == "/_requests":
            reply = _json(list(self.server.requests))
            if self.command == "DELETE":
                self.server.requests.clear()
        else:
            self.server.requests.append(
                {
                    "time": time.time(),
                    "method": self.command,
                    "path": self.path,
                    "headers": {name.lower(): value for name, value in self.headers.items()},
                    "body": raw.decode("utf-8", "replace"),
                }
            )
            reply = answer(url.path, dict(urllib.parse.parse_qsl(url.query)), raw)
        status, body, headers = reply
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: the requests are kept in memory."""


class _HttpServer(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _SmtpHandler(socketserver.BaseRequestHandler):
    server: _SmtpServer

    def handle(self) -> None:
        stream = self.request.makefile("rwb", buffering=0)
        stream.write(b"220 sink\r\n")
        while line := stream.readline():
            verb = line.strip().upper().partition(b" ")[0]
            stream.write(_SMTP_REPLIES.get(verb, b"250 ok") + b"\r\n")
            if verb == b"STARTTLS":
                tls = self.server.tls.wrap_socket(self.request, server_side=True)
                stream = tls.makefile("rwb", buffering=0)
            elif verb == b"DATA":
                lines = list(
                    itertools.takewhile(lambda line: line not in {b".\r\n", b""}, iter(stream.readline, None))
                )
                mail = b"".join(lines)
                self.server.mails.append(mail.decode("utf-8", "replace"))
                stream.write(b"250 ok\r\n")
            elif verb == b"QUIT":
                return


class _SmtpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        self.mails: list[str] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate)
        super().__init__(("127.0.0.1", 0), _SmtpHandler)


def write_certificate(path: Path) -> None:
    """Write a self-signed certificate for 127.0.0.1 and its key into one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    builder = builder.add_extension(names, critical=False)
    builder = builder.not_valid_before(now - dt.timedelta(days=1))
    certificate = builder.not_valid_after(now + dt.timedelta(days=30)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))


class Peer:
    """The HTTP server and the mail sink, in threads of this process."""

    def __init__(self, data_dir: Path) -> None:
        certificate = data_dir / "peer.pem"
        write_certificate(certificate)
        self._http = _HttpServer()
        self._smtp = _SmtpServer(certificate)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.smtp_port = int(self._smtp.server_address[1])

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Return the requests seen so far: {time, method, path, headers (lower case names), body (text)}."""
        return list(self._http.requests)

    @property
    def mails(self) -> list[str]:
        """Return the mails received so far, as they were sent."""
        return list(self._smtp.mails)

    def start(self) -> Self:
        for server in (self._http, self._smtp):
            serve_in_thread(server)
        return self

    def stop(self) -> None:
        for server in (self._http, self._smtp):
            server.shutdown()
            server.server_close()
