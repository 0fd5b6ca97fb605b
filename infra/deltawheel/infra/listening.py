"""Who listens where: free ports, ports in use, and whether a server answers."""

import errno
import http.client
import socket
import urllib.request
from typing import Final

__all__ = [
    "answers_200",
    "find_free_port",
    "find_free_ports",
    "port_holder",
    "port_in_use",
    "why_unreachable",
]

PROBE_TIMEOUT_S: Final = 1.0


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on at the moment."""
    return find_free_ports(1, host)[0]


def find_free_ports(num_ports: int, host: str = "127.0.0.1") -> tuple[int, ...]:
    """Return so many different ports that nobody listens on at the moment."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(num_ports):
            sockets.append(_bind(host, 0))
        return tuple(opened.getsockname()[1] for opened in sockets)
    finally:
        for opened in sockets:
            opened.close()


def port_in_use(host: str, port: int) -> bool:
    """Whether somebody listens there.

    Raises:
        OSError: the port cannot be used for another reason: not our address, or a reserved port.
    """
    try:
        _bind(host, port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        raise
    return False


def why_unreachable(host: str, port: int, *, timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Return why no connection comes about, in the system's words; None if one does."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except TimeoutError:
        return f"no connection within {timeout_s:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return None


def port_holder(port: int) -> str | None:
    """Return name and pid of who listens on a port, as far as this user may see it."""
    import psutil

    try:
        for found in psutil.net_connections("tcp"):
            if found.status != psutil.CONN_LISTEN or not found.laddr or found.pid is None:
                continue
            if found.laddr.port == port:
                return f"{psutil.Process(found.pid).name()} (pid {found.pid})"
    except psutil.Error:
        return None
    return None


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    # As servers do: a port whose last connections are still being wound up counts as free.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def answers_200(url: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a GET is answered with 200 in time; proxies of the environment are not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as response:
            return bool(response.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False
