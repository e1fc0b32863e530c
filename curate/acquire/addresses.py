"""Which hosts may be asked: only public addresses, unless the user says otherwise.

A crawler that follows hostile links must not become a way into the network it runs in (cloud metadata
services, routers, databases on loopback). The check is made on the resolved address that is then connected
to, for every connection, so neither a redirect nor a name that changes its address between check and use gets
around it.
"""

from __future__ import annotations

import ipaddress
import socket
import time

# Ports where another protocol listens, which a request could be made to speak: the list that browsers refuse
# (https://fetch.spec.whatwg.org/#port-blocking).
_OTHER_PROTOCOLS = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
    5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
))  # fmt: skip
# What Python's `is_global` lets through, or not in all its versions.
_INSIDE = tuple(
    map(
        ipaddress.ip_network,
        (
            "::/96",  # IPv4-compatible: ::127.0.0.1
            "64:ff9b:1::/48",  # NAT64 of a local network, RFC 8215
            "100::/64",  # discarded, RFC 6666
            "fec0::/10",  # site-local, RFC 3879
            "192.0.0.0/24",  # protocol assignments, RFC 6890
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "198.18.0.0/15",  # benchmarks, RFC 2544
        ),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MAX_ADDRESSES = 4  # tried per host


class RefusedAddress(OSError):
    """The host's address is private, loopback, link-local or otherwise not public, or its port another's."""


def is_public(address: str) -> bool:
    """Whether an IP address, as text, is one of the public internet's.

    >>> is_public("93.184.216.34"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address.split("%", 1)[0])  # a zone index only occurs in link-local addresses
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    if any(ip in network for network in _INSIDE if network.version == ip.version):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The host's addresses in the resolver's order.

    Raises RefusedAddress if any of them is not public (unless `allow_private`): a name with one foot inside
    is not to be trusted at all; and for the port of another protocol. Raises socket.gaierror if the name does
    not resolve.
    """
    if port in _OTHER_PROTOCOLS and not allow_private:
        raise RefusedAddress(f"port {port} is not one of the web's")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (UnicodeError, ValueError, OverflowError) as wrong:  # empty or endless labels, odd ports
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from wrong
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise RefusedAddress(f"{address} is not a public address")
    return addresses


def never_resolves(error: socket.gaierror) -> bool:
    """Whether the resolver said that there is no such host, and not that it could not tell."""
    return error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


def connect(host: str, port: int, timeout: float, deadline: float, *, allow_private: bool) -> socket.socket:
    """A TCP connection to the first of the host's addresses that answers within `timeout` seconds.

    Raises:
        RefusedAddress, socket.gaierror: as `resolve` does.
        OSError: none answered; TimeoutError where the monotonic time `deadline` passed.
    """
    failure: OSError | None = None
    for address in resolve(host, port, allow_private=allow_private)[:_MAX_ADDRESSES]:
        left = min(timeout, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError("the whole request took too long")
        try:
            return socket.create_connection((address, port), left)
        except OSError as failed:
            failure = failed
    raise failure or OSError("no address")
