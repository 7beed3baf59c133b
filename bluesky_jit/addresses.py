"""Addresses in the settings: what one may look like, and whether other machines reach it."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

HIGHEST_PORT = 65535
HOST_AND_PORT = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})")
"""0MQ itself takes more, such as * for all of a machine's addresses and for any port, and numbers with a sign."""


def require_address(name: str, address: str) -> None:
    """Raise ValueError unless an address is a host and a port; name: what the message calls it."""
    found = HOST_AND_PORT.fullmatch(address)
    if found is None or not 1 <= int(found[3]) <= HIGHEST_PORT:
        raise ValueError(
            f"{name} is {address!r}: give HOST:PORT with a port from 1 to {HIGHEST_PORT}, such as 127.0.0.1:5577"
        )


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches a host and port, such as 127.0.0.1:5577."""
    host = address.rpartition(":")[0]
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_interface(name: str, interface: str) -> None:
    """Raise ValueError for what no server could listen on."""
    try:
        ipaddress.IPv4Address(interface)
    except ValueError:
        raise ValueError(
            f"{name} is {interface!r}: give the IPv4 address of one of this machine's networks, such as 127.0.0.1, or "
            "0.0.0.0 for all of them"
        ) from None


def require_uri(name: str, uri: str) -> None:
    """Raise ValueError unless an address is a web server's; it is shown without what may hold a key or password."""
    try:
        parts = urlsplit(uri)
        port = 80 if parts.port is None else parts.port
        host = (parts.hostname or "").encode("idna")
        fits = parts.scheme in ("http", "https") and bool(host) and 1 <= port <= HIGHEST_PORT
    except ValueError:
        # Such as a bracket that is not closed, a port that is no number, or a name with an empty part.
        fits = False
    if not fits or not uri.isprintable() or " " in uri:
        shown = re.sub("//[^/]*@", "//", re.split("[?#]", uri)[0])
        raise ValueError(
            f"{name} is {shown!r}: give a server's address with a port from 1 to {HIGHEST_PORT}, such as "
            "http://127.0.0.1:8000"
        )


def require_key(name: str, key: str) -> None:
    """Raise ValueError for a key that no HTTP header can carry; the message does not hold it."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"{name} holds a blank, or a character that is not ASCII: give the key as the server has it, in letters, "
            "digits and signs"
        )
