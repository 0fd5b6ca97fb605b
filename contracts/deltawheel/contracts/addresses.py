"""Addresses: which of them only this machine reaches, how they are written, and shown."""

import ipaddress
import re
from typing import Final

__all__ = ["host_port", "is_loopback", "without_password"]

_PASSWORD: Final = re.compile(
    r"(?<=://)(?P<user>[^:/?#\s]*):\S*(?=@)|(?P<key>[?&](?:ssl)?password=)[^&\s]*"
)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can connect to what listens there.

    A name other than localhost counts as reachable: what it resolves to may change.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_port(host: str, port: int) -> str:
    """Return host and port as URLs and broker lists hold them: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def without_password(text: str) -> str:
    """Return a text with the password of each URL in it hidden, fit to be shown or logged.

    It may hold any sign but a space, so where it ends is a guess: rather too much is hidden.
    """
    return _PASSWORD.sub(lambda found: f"{found['key'] or found['user'] + ':'}***", text)
