"""A supplier portal on loopback, for runs in a browser.

/login                 form: username, password. DEMO_USER and DEMO_PASSWORD set a cookie and lead to /invoices
/invoices              table of invoices; needs the cookie, or ?open=1
/invoices/ID.pdf       a PDF as attachment; ?size=50MB makes it that large (B, KB, MB)
/invoices.csv          the table as attachment
/upload                form with a file input; answers with name, size and SHA-256 of the file
/fail                  500 with an error page
/slow?s=5              a page that takes so many seconds
"""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import html
import http.server
import random
import re
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow_skyvern.testing.serving import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

DEMO_USER, DEMO_PASSWORD = "demo", "demo-pass"
COOKIE = "portal_session=cookie-of-the-portal"
INVOICES = (
    ("INV-1001", "2026-10-02", "Harbour Foods", "1,250.00", "Paid"),
    ("INV-1002", "2026-10-14", "Oak & Sons", "480.50", "Open"),
    ("INV-1003", "2026-11-01", "Blue Door Hotel", "3,999.99", "Overdue"),
)
HEADINGS = ("Invoice", "Date", "Customer", "Amount", "Status")
_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2}
_STYLE = """
body { font: 16px/1.5 sans-serif; margin: 0; background: #f3f5f9; color: #1c2733 }
header { background: #1f4e79; color: #fff; padding: 14px 32px; font-weight: bold }
main { max-width: 860px; margin: 32px auto; background: #fff; border-radius: 8px; padding: 24px 32px }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: 9px 12px; border-bottom: 1px solid #dde }
label { display: block; margin: 12px 0 } input { display: block; font: inherit; padding: 7px; width: 280px }
button { font: inherit; padding: 8px 22px; background: #1f4e79; color: #fff; border: 0; border-radius: 4px }
.error { color: #b00020 }
"""
_LOGIN = """<form method=post action=/login>
<label>User name <input name=username autocomplete=username required></label>
<label>Password <input name=password type=password autocomplete=current-password required></label>
<button type=submit>Sign in</button></form>"""
_LOGIN_WITH_CODE = _LOGIN.replace("action=/login", "action=/login2")
_CODE = """<p>We have sent a code to your telephone.</p><form method=post action=/code>
<label>Verification code <input name=code autocomplete=one-time-code required></label>
<button type=submit>Verify</button></form>"""
RIGHT_CODE = "482913"
_UPLOAD = """<form method=post action=/upload enctype=multipart/form-data>
<label>Receipt file <input type=file name=receipt></label><button type=submit>Send receipt</button></form>"""


def page(title: str, content: str) -> bytes:
    """Return a page of the portal."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style></head>"
        "<body><header>Northwind Supplies: supplier portal</header>"
        f"<main><h1>{title}</h1>{content}</main></body></html>"
    ).encode()


def _error(text: str) -> str:
    return f"<p class=error role=alert>{text}</p>"


def _table(size: str | None) -> str:
    query = f"?size={urllib.parse.quote(size)}" if size else ""
    link = "<td><a href='/invoices/{0}.pdf{1}'>Download {0} PDF</a></td>"
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) + link.format(row[0], query) for row in INVOICES)
    head = "".join(f"<th>{heading}</th>" for heading in (*HEADINGS, "File"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"


def _invoices(size: str | None) -> bytes:
    links = "<p>Total open: 4,480.49 EUR</p><p><a href=/invoices.csv>Download all as CSV</a></p>"
    return page("Invoices", f"<p>Signed in as {DEMO_USER}.</p>{_table(size)}{links}")


def _csv() -> bytes:
    return "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in (HEADINGS, *INVOICES)).encode()


def pdf(text: str, size: int = 0) -> bytes:
    """Return a PDF of one page with this text, padded to this many bytes."""
    drawing = f"BT /F1 24 Tf 72 760 Td ({text}) Tj ET".encode()
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources 6 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Font << /F1 5 0 R >> >>",
    ]
    return _pdf_of(bodies, max(0, size - len(_pdf_of(bodies, 0))))


def _pdf_of(bodies: list[bytes], padding: int) -> bytes:
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    noise = random.Random(padding).randbytes(padding)  # no two parts are alike, so a part in a wrong place is noticed
    padded = b"<< /Length %010d >>\nstream\n%s\nendstream" % (padding, noise)
    for number, body in enumerate([*bodies, padded], 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, count = len(out), len(offsets) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % count
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%010d\n%%%%EOF\n" % (count, start))


def size_in_bytes(size: str) -> int:
    """Read a size such as 300KB."""
    found = re.fullmatch(r"(\d+)(B|KB|MB)", size)
    if found is None:
        raise ValueError(f"not a size: {size!r}")
    return int(found[1]) * _UNITS[found[2]]


class _Server(http.server.ThreadingHTTPServer):
    logins = 0
    logouts = 0

    @property
    def cookie(self) -> str:
        """What a browser has that logged in since everybody was logged out."""
        return f"{COOKIE}-{self.logouts}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _send(self, body: bytes, *, status: int = 200, kind: str = "text/html; charset=utf-8", **more: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if invoice := re.fullmatch(r"/invoices/([\w-]+)\.pdf", url.path):
            attachment = f'attachment; filename="{invoice[1]}.pdf"'
            content = pdf(f"Invoice {invoice[1]}", size_in_bytes(query.get("size", "0B")))
            self._send(content, kind="application/pdf", content_disposition=attachment)
            return
        pages: dict[str, Callable[[dict[str, str]], None]] = {
            "/login": lambda _: self._send(page("Sign in", _LOGIN)),
            "/login2": lambda _: self._send(page("Sign in", _LOGIN_WITH_CODE)),
            "/code": lambda _: self._send(page("Second step", _CODE)),
            "/invoices": self._show_invoices,
            "/invoices.csv": self._send_csv,
            "/upload": lambda _: self._send(page("Upload a receipt", _UPLOAD)),
            "/fail": self._fail,
            "/slow": self._show_slowly,
        }
        pages.get(url.path, self._miss)(query)

    def _show_invoices(self, query: dict[str, str]) -> None:
        if "open" in query or self.server.cookie in self.headers.get("cookie", ""):
            self._send(_invoices(query.get("size")))
        else:
            self._send(b"", status=303, location="/login")

    def _send_csv(self, query: dict[str, str]) -> None:
        self._send(_csv(), kind="text/csv", content_disposition='attachment; filename="invoices.csv"')

    def _fail(self, query: dict[str, str]) -> None:
        self._send(page("Internal server error", _error("The portal is out of order (500).")), status=500)

    def _show_slowly(self, query: dict[str, str]) -> None:
        time.sleep(float(query.get("s", "5")))
        self._send(page("Slow page", "<p>Here at last.</p>"))

    def _miss(self, query: dict[str, str]) -> None:
        self._send(page("Not found", _error("There is no such page (404).")), status=404)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/login":
            self._sign_in(dict(urllib.parse.parse_qsl(raw.decode())))
        elif self.path == "/login2":
            self._ask_for_code(dict(urllib.parse.parse_qsl(raw.decode())))
        elif self.path == "/code":
            self._check_code(dict(urllib.parse.parse_qsl(raw.decode())))
        elif self.path == "/upload":
            self._receive(raw)
        else:
            self._miss({})

    def _ask_for_code(self, form: dict[str, str]) -> None:
        if (form.get("username"), form.get("password")) == (DEMO_USER, DEMO_PASSWORD):
            self._send(b"", status=303, location="/code")
        else:
            self._send(page("Sign in", _error("Wrong user name or password.") + _LOGIN_WITH_CODE))

    def _check_code(self, form: dict[str, str]) -> None:
        if form.get("code") == RIGHT_CODE:
            self._send(b"", status=303, location="/invoices", set_cookie=f"{self.server.cookie}; Path=/; HttpOnly")
        else:
            self._send(page("Second step", _error("Wrong code.") + _CODE))

    def _sign_in(self, form: dict[str, str]) -> None:
        if (form.get("username"), form.get("password")) == (DEMO_USER, DEMO_PASSWORD):
            self.server.logins += 1
            self._send(b"", status=303, location="/invoices", set_cookie=f"{self.server.cookie}; Path=/; HttpOnly")
        else:
            self._send(page("Sign in", _error("Wrong user name or password.") + _LOGIN))

    def _receive(self, raw: bytes) -> None:
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        [part] = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + raw).iter_parts()
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        told = f"Name: {part.get_filename()}</p><p>SHA-256: {hashlib.sha256(content).hexdigest()}"
        self._send(page("Receipt received", f"<p>{told}</p><p>Size: {len(content)} bytes</p>"))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""


class Site:
    """The portal, in threads of this process."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def logins(self) -> int:
        """How often somebody has logged in at /login."""
        return self._server.logins

    def log_everybody_out(self) -> None:
        """Let no cookie be valid any more, as portals do after some weeks."""
        self._server.logouts += 1

    def start(self) -> Self:
        serve_in_thread(self._server)
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
