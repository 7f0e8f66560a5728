from __future__ import annotations

import pytest

from airflow_skyvern.client.settings import Settings
from airflow_skyvern.client.signed_addresses import AddressReader
from airflow_skyvern.exceptions import SkyvernAddressRefused, SkyvernConnectionError, SkyvernResponseError
from tests.support.file_server import FileServer

SECRET = "made-up-key-of-the-fake"
PUBLIC = "93.184.216.34"


def reader(base_url: str = "https://api.skyvern.com", *ips: str) -> AddressReader:
    return AddressReader(Settings(SECRET, base_url=base_url), resolve=lambda host, port: list(ips or (PUBLIC,)))


def opened(found: AddressReader, address: str) -> None:
    with found.stream(address):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://example.com/x",
        "/etc/passwd",
        "",
        "http://[::1/x",
        "gopher://example.com",
        "https://user:word@example.com/x",
        "http://example.com:99999/x",
    ],
)
def test_what_is_no_web_address_is_refused(address: str) -> None:
    with pytest.raises(SkyvernAddressRefused) as refused:
        reader().checked(address)
    assert "passwd" not in str(refused.value)
    assert "word" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "10.0.0.7",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "fe80::1%eth0",
    ],
)
def test_a_host_of_a_private_network_is_refused(ip: str) -> None:
    with pytest.raises(SkyvernAddressRefused, match="private network"):
        reader("https://api.skyvern.com", PUBLIC, ip).checked("https://files.example.com/x?sig=s3cr3t")


def test_a_public_host_and_skyverns_own_address_are_read() -> None:
    reader().checked("https://files.example.com/x?sig=1")
    reader("http://127.0.0.1:8000", "127.0.0.1").checked("http://127.0.0.1:8000/v1/artifacts/a_1/content?sig=1")


def test_another_port_of_skyverns_own_host_is_another_service() -> None:
    with pytest.raises(SkyvernAddressRefused):
        reader("http://127.0.0.1:8000", "127.0.0.1").checked("http://127.0.0.1:9000/x")


def test_a_file_is_read_without_the_key() -> None:
    with FileServer({"/x": b"hello"}) as server:
        found = reader(server.url, "127.0.0.1")
        with found.stream(f"{server.url}/x?sig=s3cr3t") as incoming:
            assert b"".join(incoming.chunks) == b"hello"
        assert (incoming.start, incoming.total) == (0, 5)
        assert SECRET not in str(server.requests)


def test_a_redirect_is_not_followed() -> None:
    with FileServer({"/x": b"not for us"}) as foreign, FileServer({}) as own:
        own.redirects["/x"] = f"{foreign.url}/x"
        with pytest.raises(SkyvernResponseError, match="a redirect, which is not followed"):
            opened(reader(own.url, "127.0.0.1"), f"{own.url}/x")
        assert foreign.requests == []


def test_a_name_that_leads_elsewhere_when_it_is_used_is_noticed() -> None:
    """The check saw a public address; the connection was made to this machine."""
    with FileServer({"/x": b"inside"}) as inside, pytest.raises(SkyvernAddressRefused, match="private network"):
        opened(reader(), f"http://localhost:{inside.port}/x")


def test_what_goes_wrong_does_not_show_the_address() -> None:
    with FileServer({}) as server:
        found = reader(server.url, "127.0.0.1")
        with pytest.raises(SkyvernResponseError, match="answered 404") as gone:
            opened(found, f"{server.url}/x?sig=s3cr3t")
    with pytest.raises(SkyvernConnectionError) as refused:
        opened(found, f"{server.url}/x?sig=s3cr3t")
    assert "s3cr3t" not in f"{gone.value}{refused.value}"
