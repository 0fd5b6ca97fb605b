"""Addresses as they are judged, written and shown."""

import pytest

from deltawheel.contracts.addresses import host_port, is_loopback, without_password


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.200.0.9", "::1"])
def test_loopback_is_reached_by_this_machine_only(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "[::1]"]
)
def test_everything_else_counts_as_reachable(host: str) -> None:
    assert not is_loopback(host)


def test_ipv6_stands_in_brackets() -> None:
    assert host_port("::1", 80) == "[::1]:80"
    assert host_port("127.0.0.1", 80) == "127.0.0.1:80"
    assert host_port("localhost", 0) == "localhost:0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:secret@host:5432/d", "postgresql://u:***@host:5432/d"),
        ("postgresql+psycopg://u:s:e@c/r'e?t@host/d", "postgresql+psycopg://u:***@host/d"),
        ("http://:secret@host", "http://:***@host"),
        ("a http://u:secret@a and http://v:secret@b", "a http://u:***@a and http://v:***@b"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
    ],
)
def test_password_in_a_url_is_hidden(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert without_password(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sqlite:////srv/a:b@c/store.db",
        "http://127.0.0.1:8000/v1 refuses strong@sha256:0123",
        "http://[::1]:8000/v1",
        "postgresql://u@host/d",
        "unknown server 'a:b@c'",
    ],
)
def test_text_without_password_stays_as_it_is(text: str) -> None:
    assert without_password(text) == text
