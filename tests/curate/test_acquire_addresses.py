"""Which addresses may be asked."""

from __future__ import annotations

import socket

import pytest

from curate.acquire.addresses import RefusedAddress, is_public, resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "64:ff9b:1::a00:1",
        "fec0::1",
        "100::1",
        "192.0.0.8",
        "192.88.99.1",
        "198.18.0.1",
        "240.0.0.1",
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
def test_loopback_in_any_spelling_is_refused(host: str) -> None:
    with pytest.raises(RefusedAddress):
        resolve(host, 80, allow_private=False)


@pytest.mark.parametrize("port", [22, 25, 6667])
def test_ports_of_other_protocols_are_refused(port: int) -> None:
    with pytest.raises(RefusedAddress, match=f"port {port}"):
        resolve("93.184.216.34", port, allow_private=False)
    assert resolve("127.0.0.1", port, allow_private=True) == ["127.0.0.1"]


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)
    with pytest.raises(RefusedAddress):
        resolve("two-faced.example", 80, allow_private=False)


def test_a_host_name_that_is_none() -> None:
    with pytest.raises(socket.gaierror):
        resolve("a" * 300 + ".example", 80, allow_private=False)
