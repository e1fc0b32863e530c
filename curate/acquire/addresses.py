"""Which hosts may be asked: only public addresses, unless the user says otherwise.

A crawler that follows hostile links must not become a way into the network it runs in (cloud metadata
services, routers, databases on loopback). The check is made on the resolved address that is then connected
to, for every connection, so neither a redirect nor a name that changes its address between check and use gets
around it.
"""

from __future__ import annotations

import ipaddress
import socket


class RefusedAddress(OSError):
    """The host's address is private, loopback, link-local or otherwise not public."""


def is_public(address: str) -> bool:
    """Whether an IP address, as text, is one of the public internet's.

    >>> is_public("93.184.216.34"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address.split("%", 1)[0])  # a zone index only occurs in link-local addresses
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        nat64 = ip in ipaddress.ip_network("64:ff9b::/96")
        if nat64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast


def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The host's addresses in the resolver's order.

    Raises RefusedAddress if any of them is not public (unless `allow_private`): a name with one foot inside
    is not to be trusted at all. Raises socket.gaierror if the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as wrong:  # labels that are too long or empty
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from wrong
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise RefusedAddress(f"{address} is not a public address")
    return addresses


def connect(host: str, port: int, timeout: float, *, allow_private: bool) -> socket.socket:
    """A TCP connection to the first of the host's addresses that answers; raises OSError if none does."""
    failure: OSError | None = None
    for address in resolve(host, port, allow_private=allow_private)[:4]:
        try:
            return socket.create_connection((address, port), timeout)
        except OSError as failed:
            failure = failed
    raise failure or OSError("no address")
