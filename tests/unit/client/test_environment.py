from __future__ import annotations

import asyncio
import importlib.util
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.environment import proxy_for, proxy_of
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient, tls_context
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.client.signed_addresses import AddressReader
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern

if TYPE_CHECKING:
    from airflow_skyvern.testing.loopback import Loopback
    from tests.unit.conftest import Connect

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
TARGET = "http://skyvern.test:8123"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(fake: FakeSkyvern, loopback: Loopback) -> str:
    """Host and port of a proxy that answers for every server."""
    loopback.fake = fake
    return loopback.url.removeprefix("http://")


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "{proxy}"},
        {"HTTP_PROXY": "http://{proxy}"},
        {"HTTP_PROXY": " HTTP://{proxy}/ "},
        {"all_proxy": "http://{proxy}/a/path"},
        {"ALL_PROXY": "{proxy}"},
        {"http_proxy": "{proxy}", "HTTP_PROXY": "http://127.0.0.1:9"},
        {"http_proxy": "", "HTTP_PROXY": "{proxy}"},
        {"http_proxy": "{proxy}", "ALL_PROXY": "socks5://127.0.0.1:9"},
        {"http_proxy": "{proxy}", "NO_PROXY": "127.0.0.1,[::1],fd00::/8,::1,10.0.0.0/8, .example.com"},
        {"http_proxy": "{proxy}", "NO_PROXY": "vern.test"},
        {"http_proxy": "{proxy}", "NO_PROXY": "skyvern.test:9"},
        {"http_proxy": "{proxy}", "NO_PROXY": "https://skyvern.test"},
        {"http_proxy": "{proxy}", "NO_PROXY": "999.1.1.1/99,[nonsense,fd00::/999,://,%,,"},
    ],
    ids=str,
)
def test_requests_take_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, fake: FakeSkyvern, proxy: str, variables: dict[str, str]
) -> None:
    set_all(monkeypatch, {name: value.format(proxy=proxy) for name, value in variables.items()})
    with SkyvernClient(Settings(API_KEY, TARGET)) as client:
        client.send(api.get_version())

    async def once() -> None:
        async with AsyncSkyvernClient(Settings(API_KEY, TARGET)) as again:
            await again.send(api.get_version())

    asyncio.run(once())
    assert [seen.headers["host"] for seen in fake.requests] == ["skyvern.test:8123"] * 2


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ("user:word@", "dXNlcjp3b3Jk"),
        ("user:wo%23rd@", "dXNlcjp3byNyZA=="),
        ("user:50%off@", "dXNlcjo1MCVvZmY="),
        ("user:a:b@", "dXNlcjphOmI="),
        ("user:a@b@", "dXNlcjphQGI="),
        ("user@", "dXNlcjo="),
    ],
)
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_proxy_gets_user_and_password(
    monkeypatch: pytest.MonkeyPatch, fake: FakeSkyvern, proxy: str, *, scheme: str, credentials: str, header: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}{credentials}{proxy}")
    with SkyvernClient(Settings(API_KEY, TARGET)) as client:
        client.send(api.get_version())
    assert fake.requests[-1].headers["proxy-authorization"] == f"Basic {header}"


@pytest.mark.parametrize(
    ("address", "no_proxy"),
    [
        (TARGET, "*"),
        (TARGET, "a,*"),
        (TARGET, "skyvern.test"),
        (TARGET, "SKYVERN.TEST."),
        (TARGET, ".test"),
        (TARGET, "test"),
        (TARGET, "*.test"),
        (TARGET, "a.b skyvern.test"),
        (TARGET, "skyvern.test:8123"),
        (TARGET, "http://skyvern.test"),
        ("http://127.0.0.1:8000", "127.0.0.1"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "127.0.0.0/8"),
        ("http://[::1]:8000", "[::1]"),
        ("http://[::1]:8000", "::1"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]:8000", "0:0:0:0:0:0:0:1"),
        ("http://[fd00::5]", "fd00::/8"),
        ("http://[fd00::5]", "[fd00::]/8"),
    ],
)
@pytest.mark.parametrize("spelling", ["NO_PROXY", "no_proxy"])
def test_exceptions_from_the_proxy_are_read_in_every_form(
    monkeypatch: pytest.MonkeyPatch, *, address: str, no_proxy: str, spelling: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert proxy_for(address) is not None
    monkeypatch.setenv(spelling, no_proxy)
    assert proxy_for(address) is None
    assert proxy_for("http://elsewhere.example.com") is None or "*" not in no_proxy.split(",")


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"http_proxy": "http://user:s3cr3t#more@proxy:3128"}, "http_proxy .*percent-encode it"),
        ({"HTTP_PROXY": "http://user:s3cr3t/more@proxy:3128"}, "HTTP_PROXY .*percent-encode it"),
        ({"HTTP_PROXY": "user:s3cr3t?more@proxy:3128"}, "HTTP_PROXY .*percent-encode it"),
        ({"HTTP_PROXY": "http://user:s3cr3t"}, "HTTP_PROXY .*its port must be a number .*percent-encode it"),
        ({"HTTP_PROXY": "http://u:s3cr3t@proxy:99999"}, "HTTP_PROXY .*from 1 to 65535"),
        ({"HTTP_PROXY": "http://"}, "HTTP_PROXY .*is not an address"),
        ({"HTTP_PROXY": "http://u:s3cr3t@"}, "HTTP_PROXY .*is not an address"),
        ({"HTTP_PROXY": "::1:3128"}, "HTTP_PROXY .*is not an address"),
        ({"HTTP_PROXY": "http://[::1:3128"}, "HTTP_PROXY .*is not an address"),
        ({"HTTP_PROXY": "http://a b:3128"}, "HTTP_PROXY .*is not an address"),
        ({"HTTP_PROXY": "http://xn--s3cr3t-\u00df\u0130.:3128"}, "HTTP_PROXY .*is not an address"),
        ({"ALL_PROXY": "ftp://u:s3cr3t@proxy:21"}, "ALL_PROXY .*only http://, https:// and socks5://"),
        ({"all_proxy": "socks4://proxy:1080"}, "all_proxy .*only http://, https:// and socks5://"),
        ({"ALL_PROXY": "socks5://u:s3cr3t@127.0.0.1:1080"}, "ALL_PROXY .*pip install 'httpx\\[socks\\]'"),
        ({"ALL_PROXY": "SOCKS5H://127.0.0.1"}, "ALL_PROXY .*pip install 'httpx\\[socks\\]'"),
        ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE .*cannot read certificates from /nowhere/ca.pem"),
        ({"SSL_CERT_FILE": "{tmp}"}, "SSL_CERT_FILE .*cannot read certificates from"),
        ({"SSL_CERT_FILE": "{tmp}/wrong.pem"}, "SSL_CERT_FILE .*cannot read certificates from"),
        ({"SSL_CERT_DIR": "/nowhere:/neither"}, "SSL_CERT_DIR .*the folder does not exist"),
        ({"SSLKEYLOGFILE": "/nowhere/keys"}, "SSLKEYLOGFILE .*cannot write to /nowhere/keys"),
    ],
    ids=str,
)
def test_a_wrong_variable_is_named_and_the_test_button_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, connect: Connect, variables: dict[str, str], complaint: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "socksio" else ...)
    (tmp_path / "wrong.pem").write_text("no certificate")
    set_all(monkeypatch, {name: value.format(tmp=tmp_path) for name, value in variables.items()})
    connect(host=TARGET)
    good, message = SkyvernHook().test_connection()
    assert not good
    with pytest.raises(SkyvernConfigError, match=complaint) as caught:
        SkyvernClient(Settings(API_KEY, TARGET))
    assert message == str(caught.value)
    assert "s3cr3t" not in message
    assert "more" not in message
    with pytest.raises(SkyvernConfigError, match=complaint):
        AsyncSkyvernClient(Settings(API_KEY, TARGET))
    assert caught.value.transient is False


def test_a_socks_proxy_is_used_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: ...)
    found = proxy_of("proxy", "socks5h://user:s3cr3t@[::1]")
    assert (found.scheme, found.host, found.port, found.auth) == ("socks5", "::1", 1080, ("user", "s3cr3t"))
    assert "s3cr3t" not in repr(found)


@pytest.mark.parametrize("field", ["http://user:word@{proxy}", "HTTP://{proxy}/"])
def test_the_field_of_the_connection_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, fake: FakeSkyvern, connect: Connect, *, proxy: str, field: str
) -> None:
    set_all(monkeypatch, {"http_proxy": "nonsense://", "no_proxy": "*"})
    connect(host=TARGET, extra={"proxy": field.format(proxy=proxy)})
    assert SkyvernHook().test_connection()[0]
    assert len(fake.requests) == 2


def test_a_variable_that_is_not_for_this_address_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, skyvern: FakeSkyvern
) -> None:
    set_all(monkeypatch, {"HTTPS_PROXY": "nonsense://", "http_proxy": "nonsense://", "NO_PROXY": "127.0.0.1,[::1]"})
    assert SkyvernHook().test_connection()[0]


def test_files_at_other_addresses_take_the_same_proxy(
    monkeypatch: pytest.MonkeyPatch, fake: FakeSkyvern, proxy: str
) -> None:
    set_all(monkeypatch, {"http_proxy": proxy, "NO_PROXY": "skyvern.test"})
    reader = AddressReader(Settings(API_KEY, TARGET), resolve=lambda host, port: ["93.184.216.34"])
    with reader.stream("http://files.test/v1/version") as incoming:
        assert b"version" in b"".join(incoming.chunks)
    reader.close()
    assert fake.requests[-1].headers["host"] == "files.test"
    monkeypatch.setenv("http_proxy", "http://user:s3cr3t#more@proxy:3128")
    with pytest.raises(SkyvernConfigError, match="http_proxy"), reader.stream("http://other.test/a"):
        pass


def test_credentials_of_a_netrc_file_go_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, skyvern: FakeSkyvern
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    SkyvernHook().get_version()
    assert "authorization" not in skyvern.requests[-1].headers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    subprocess.run([*made, "-keyout", folder / "key.pem", "-out", folder / "ca.pem"], check=True, capture_output=True)
    return folder / "ca.pem"


def subjects(context: ssl.SSLContext) -> list[Any]:
    return [found["subject"] for found in context.get_ca_certs()]


@pytest.mark.slow
def test_certificates_of_the_environment_are_trusted_and_a_new_file_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Path
) -> None:
    mine = tmp_path / "ca.pem"
    mine.write_bytes(authority.read_bytes())
    settings = Settings(API_KEY, "https://skyvern.test")
    before = settings.fingerprint
    assert len(subjects(tls_context(settings))) > 10
    monkeypatch.setenv("SSL_CERT_FILE", str(mine))
    assert subjects(tls_context(settings)) == [((("commonName", "test"),),)]
    assert settings.fingerprint != before
    mine.write_text("no certificate any more")
    with pytest.raises(SkyvernConfigError, match="SSL_CERT_FILE"):
        tls_context(settings)
    assert len(subjects(tls_context(Settings(API_KEY, verify=str(authority))))) == 1


def test_the_folder_of_certificates_may_be_one_of_several(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", f"/nowhere:{tmp_path}")
    assert tls_context(Settings(API_KEY)).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.slow
def test_a_key_log_is_written_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert tls_context(Settings(API_KEY)).keylog_filename == str(tmp_path / "keys")


def test_nothing_is_sent_where_the_environment_is_wrong(
    monkeypatch: pytest.MonkeyPatch, skyvern: FakeSkyvern
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(SkyvernConfigError, match="SSL_CERT_FILE"):
        SkyvernHook().run_workflow("wpid_1")
    assert skyvern.requests == []
