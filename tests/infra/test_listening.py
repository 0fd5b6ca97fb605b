import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from deltawheel.infra.listening import (
    answers_200,
    find_free_port,
    find_free_ports,
    port_holder,
    port_in_use,
)

HOST = "127.0.0.1"


@contextmanager
def a_listener(host: str = HOST) -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((host, 0))
        listening.listen()
        yield listening.getsockname()[1]


@contextmanager
def a_server(reply: bytes) -> Iterator[str]:
    """Answer every request with these bytes; with none, the connection is held open in silence."""
    with socket.create_server((HOST, 0)) as listening:
        held: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.recv(65_536)
                    connection.sendall(reply)
                    if reply:
                        connection.close()
                    held.append(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://{HOST}:{listening.getsockname()[1]}/health"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def a_reply(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", ""]).encode()


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = find_free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        assert not port_in_use(HOST, port)
        socket.create_server((HOST, port)).close()


def test_a_free_port_is_none_that_somebody_listens_on() -> None:
    with a_listener() as taken:
        assert taken not in find_free_ports(50)
        assert find_free_port() != taken


def test_no_ports_are_none() -> None:
    assert find_free_ports(0) == ()


def test_a_port_is_in_use_as_long_as_somebody_listens() -> None:
    with a_listener() as port:
        assert port_in_use(HOST, port)
    assert not port_in_use(HOST, port)


def test_who_listens_everywhere_listens_here_too() -> None:
    with a_listener("0.0.0.0") as port:
        assert port_in_use(HOST, port)
        assert port_in_use("0.0.0.0", port)
    with a_listener() as port:
        assert port_in_use("0.0.0.0", port)


def test_a_port_whose_connections_are_being_wound_up_is_free() -> None:
    with a_listener_that_hangs_up() as port:
        pass
    assert not port_in_use(HOST, port)


@contextmanager
def a_listener_that_hangs_up() -> Iterator[int]:
    """Close accepted connections first, which leaves them in TIME_WAIT on the listener's side."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            accepted, _ = listening.accept()
            accepted.close()
            client.recv(1)
        yield port


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ports_of_version_6_are_looked_at_too() -> None:
    with a_listener("::1") as port:
        assert port_in_use("::1", port)
    assert not port_in_use("::1", find_free_port("::1"))


def test_an_address_of_another_machine_is_an_error_and_not_a_busy_port() -> None:
    with pytest.raises(OSError, match="Cannot assign requested address"):
        port_in_use("192.0.2.1", 8600)


def test_the_holder_of_a_port_is_named_with_its_pid() -> None:
    with a_listener() as port:
        assert f"(pid {os.getpid()})" in (port_holder(port) or "")
    assert port_holder(port) is None


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (a_reply("200 OK"), True),
        (a_reply("204 No Content"), False),
        (a_reply("404 Not Found"), False),
        (a_reply("503 Service Unavailable"), False),
        (b"no HTTP at all\r\n\r\n", False),
        (b"HTTP/1.1 2", False),
    ],
)
def test_only_200_is_an_answer(reply: bytes, expected: bool) -> None:
    with a_server(reply) as url:
        assert answers_200(url) is expected


def test_nobody_there_is_no_answer() -> None:
    assert not answers_200(f"http://{HOST}:{find_free_port()}/health")


@pytest.mark.timeout(10)
def test_a_server_that_keeps_silent_has_not_answered_in_time() -> None:
    with a_server(b"") as url:
        assert not answers_200(url, timeout_s=0.05)


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with a_server(a_reply("200 OK")) as url:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{HOST}:{find_free_port()}")
        assert answers_200(url)
