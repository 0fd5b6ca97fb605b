"""How clients are connected, and what an operator reads when a broker does not let them in."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.errors import ConfigError, DeltawheelError, RetryLaterError
from deltawheel.contracts.settings import BrokerSecurity, BrokerSettings
from deltawheel.infra.credentials import BROKER_KEY_PASSWORD_VARIABLE, BROKER_PASSWORD_VARIABLE
from tests.secured_kafka import KEY_PASSWORD, PASSWORD, USER, make_certificates

# kafka-python reads its schemas that way as it is imported, so it is imported inside tests here.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

SASL: dict[str, Any] = {"protocol": "sasl-ssl", "mechanism": "SCRAM-SHA-512", "username": USER}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    (folder / "text.pem").write_text("no certificate\n")
    return folder


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.setenv(BROKER_KEY_PASSWORD_VARIABLE, KEY_PASSWORD)


def broker(bootstrap: str = "kafka-1:9092", **security: Any) -> BrokerSettings:
    return BrokerSettings.model_validate(
        {"kind": "kafka", "bootstrap": bootstrap, "security": security}
    )


def context(folder: Path, **files: str) -> ssl.SSLContext:
    from deltawheel.infra.kafka_access import tls_context

    paths = {name: folder / file for name, file in files.items()}
    return tls_context(BrokerSecurity.model_validate({"protocol": "ssl", **paths}))


# Certificates


def test_certificates_are_read_and_the_brokers_name_is_checked(certificates: Path) -> None:
    made = context(
        certificates, ca_file="ca.pem", certificate_file="client.pem", key_file="client.key"
    )
    assert [one["subject"][0][0][1] for one in made.get_ca_certs()] == ["deltawheel tests"]
    assert made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED


def test_certificate_may_hold_its_key(certificates: Path) -> None:
    context(certificates, certificate_file="broker.pem")


def test_unchecked_name_still_needs_a_trusted_certificate() -> None:
    from deltawheel.infra.kafka_access import tls_context

    security = BrokerSecurity.model_validate({"protocol": "ssl", "is_hostname_checked": False})
    made = tls_context(security)
    assert not made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"ca_file": "none.pem"}, r"ca_file: .*none\.pem cannot be read \(No such file"),
        ({"ca_file": "text.pem"}, r"ca_file: .*text\.pem cannot be used .*; name a PEM file with"),
        ({"certificate_file": "client.pem"}, r"certificate_file: .*; name a PEM file with our cer"),
        (
            {"certificate_file": "client.pem", "key_file": "broker.key"},
            r"key_file: .*broker\.key cannot be used \(KEY_VALUES_MISMATCH\); name the PEM file of",
        ),
    ],
)
def test_file_that_cannot_be_used_is_told_with_its_key(
    files: dict[str, str], said: str, certificates: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^broker\.security\.{said}"):
        context(certificates, **files)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_key_that_cannot_be_decrypted_is_told_with_the_variable(
    password: str | None, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BROKER_KEY_PASSWORD_VARIABLE)
    if password is not None:
        monkeypatch.setenv(BROKER_KEY_PASSWORD_VARIABLE, password)
    with pytest.raises(ConfigError, match=f"set {BROKER_KEY_PASSWORD_VARIABLE} if it is encrypted"):
        context(certificates, certificate_file="client.pem", key_file="client.key")


# Connecting


def test_missing_password_is_told_before_anything_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deltawheel.infra.kafka_access import KafkaAccess

    monkeypatch.delenv(BROKER_PASSWORD_VARIABLE)
    said = rf"protocol is sasl-ssl, but .* {BROKER_PASSWORD_VARIABLE} is not set; set it to"
    with (
        pytest.raises(ConfigError, match=said),
        KafkaAccess("kafka-1:9092", broker(**SASL)).connecting(),
    ):
        pytest.fail("it goes on without a password")


def test_user_and_password_are_passed_on_as_the_client_wants_them() -> None:
    from deltawheel.infra.kafka_access import KafkaAccess

    with KafkaAccess("a:1, b:2", broker(**SASL)).connecting() as options:
        assert options["bootstrap_servers"] == ["a:1", "b:2"]
        assert options["security_protocol"] == "SASL_SSL"
        assert options["sasl_mechanism"] == "SCRAM-SHA-512"
        assert options["sasl_plain_username"] == USER
        assert options["sasl_plain_password"] == PASSWORD


@contextmanager
def listening(*, answers: bytes | None = None) -> Iterator[str]:
    """Take connections; answer each and hang up, or say nothing at all. Yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
                    if answers is not None:
                        taken[-1].recv(100)
                        taken.pop().close()
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


def ask(settings: BrokerSettings, *, timeout_s: float = 1.0) -> None:
    from deltawheel.infra import kafka_bus

    kafka_bus.list_topics(settings.bootstrap or "", broker=settings, timeout_s=timeout_s)


def test_peer_that_is_silent_in_the_handshake_is_not_waited_for_for_ever() -> None:
    started_s, threads_before = time.monotonic(), threading.active_count()
    with listening() as address, pytest.raises(RetryLaterError, match="does not answer") as caught:
        ask(broker(address, protocol="ssl"))
    assert time.monotonic() - started_s < 5
    assert threading.active_count() == threads_before
    assert caught.value.dependency == "broker"


def test_listener_that_hangs_up_in_the_handshake_is_told() -> None:
    from deltawheel.infra.kafka_access import BrokerRefusalError

    with listening(answers=b"") as address, pytest.raises(BrokerRefusalError) as caught:
        ask(broker(address, protocol="ssl"))
    assert f"the broker at {address} breaks off the TLS handshake" in str(caught.value)
    assert "broker.security.protocol: plaintext" in str(caught.value)


def test_listener_that_speaks_otherwise_is_doubted() -> None:
    with listening(answers=b"") as address, pytest.raises(RetryLaterError) as caught:
        ask(broker(address))
    assert f"the broker at {address} does not answer" in str(caught.value)
    assert "set broker.security to what its listener asks for (now protocol pl" in str(caught.value)


@contextmanager
def hung_up_for_want_of_a_certificate(folder: Path) -> Iterator[socket.socket]:
    """Yield a connection whose server refuses us and is gone, once a handshake is made."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(folder / "broker.pem")
    asking.load_verify_locations(folder / "ca.pem")
    asking.verify_mode = ssl.CERT_REQUIRED

    def serve() -> None:
        taken = asking.wrap_socket(
            server.accept()[0], server_side=True, do_handshake_on_connect=False
        )
        # A reset instead of an orderly end, as of a broker that leaves unread what we wrote.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with taken, pytest.raises(ssl.SSLError, match="did not return a certificate"):
            taken.do_handshake()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(server.getsockname()) as connection:
            yield connection
            thread.join()


def test_certificate_refused_while_we_write_is_told(certificates: Path) -> None:
    from deltawheel.infra.kafka_access import _TlsTransport
    from deltawheel.infra.kafka_refusals import refusal_of

    with hung_up_for_want_of_a_certificate(certificates) as connection:
        trusting = context(certificates, ca_file="ca.pem")
        transport = _TlsTransport(None, connection, host="127.0.0.1", ssl_context=trusting)
        transport._sock.settimeout(5)
        transport._sock.do_handshake()
    transport._sock.setblocking(False)
    transport._write_buffer.append(b"a request")
    _, error = transport._sock_send()
    transport._sock.close()
    assert error is not None
    said = refusal_of(error, "kafka-1:9092", BrokerSecurity.model_validate({"protocol": "ssl"}))
    assert "does not accept our certificate" in str(said)


# Refusals in words


def told(error: Exception, *, knows: Exception | None = None, **security: Any) -> DeltawheelError:
    """Return what an error of the client becomes, where a connection has failed before it."""
    from deltawheel.infra.kafka_access import KafkaAccess

    access = KafkaAccess("kafka-1:9092", broker(**security))
    if knows is not None:
        access.learn_from(knows)
    with pytest.raises(DeltawheelError) as caught, access.reaching():
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("kind", "argument", "said", "todo"),
    [
        (
            "TopicAuthorizationFailedError",
            {"w.traces", "w.pairs"},
            f"lets user '{USER}' not use w.pairs, w.traces",
            "; grant READ, WRITE and DESCRIBE on topics with the prefix 'w.'",
        ),
        (
            "GroupAuthorizationFailedError",
            "w.judging",
            f"lets user '{USER}' not join w.judging",
            "; grant READ on groups with the prefix 'w.'",
        ),
        (
            "KafkaError",
            "Unexpected error in InitProducerIdResponse: [Error 31] ClusterAuthorizationFailedErro"
            "r",
            f"lets user '{USER}' write to no topic",
            "; grant WRITE on the wheel's topics",
        ),
        (
            "SaslAuthenticationFailedError",
            "SaslAuthenticationFailedError: Invalid credentials",
            f"refuses user '{USER}' with SCRAM-SHA-512 (Invalid credentials)",
            f"; put the right password into {BROKER_PASSWORD_VARIABLE}",
        ),
        ("UnsupportedSaslMechanismError", "", "does not offer SCRAM-SHA-512", "; set broker.sec"),
        (
            "InconsistentGroupProtocolError",
            "",
            "has members in the group that deal partitions otherwise",
            "; end those of another version, or with another runtime.static_membership",
        ),
        ("IllegalSaslStateError", "", "asks for no user and password", "protocol: ssl"),
    ],
)
def test_refusal_says_what_and_what_to_do(kind: str, argument: Any, said: str, todo: str) -> None:
    from kafka import errors

    from deltawheel.infra.kafka_access import BrokerRefusalError

    error = told(getattr(errors, kind)(argument), **SASL)
    assert isinstance(error, BrokerRefusalError)
    assert error.dependency == "broker"
    assert f"the broker at kafka-1:9092 {said}" in str(error)
    assert todo in str(error)
    assert PASSWORD not in str(error)


@pytest.mark.parametrize(
    ("openssl", "said"),
    [
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired "
            "(_ssl.c:1006)",
            "is not trusted by /ca.pem (certificate has expired); let broker.security.ca_file",
        ),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: IP address mismatch, "
            "certificate is not valid for '10.0.0.1'. (_ssl.c:1006)",
            "is for another name (IP address mismatch, certificate is not valid for '10.0.0.1'); "
            "name the brokers",
        ),
        (
            "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required "
            "(_ssl.c:2580)",
            "does not accept our certificate (tlsv13 alert certificate required), nothing is lost",
        ),
    ],
)
def test_refused_certificate_says_whose_and_why(openssl: str, said: str) -> None:
    from kafka.errors import KafkaConnectionError, KafkaTimeoutError

    cause = KafkaConnectionError(f"TLS handshake failed: {openssl}")
    error = told(KafkaTimeoutError("late"), knows=cause, protocol="ssl", ca_file="/ca.pem")
    assert said in str(error)


def test_refusal_stands_through_failures_that_tell_nothing() -> None:
    from kafka import errors

    from deltawheel.infra.kafka_access import BrokerRefusalError, KafkaAccess

    access = KafkaAccess("kafka-1:9092", broker(**SASL))
    access.require_entry()
    access.learn_from(errors.SaslAuthenticationFailedError("no"))
    access.learn_from(errors.KafkaConnectionError("socket disconnected"))
    with pytest.raises(BrokerRefusalError, match="refuses user"):
        access.require_entry()


def test_rebalance_is_no_outage_of_the_broker() -> None:
    from kafka.errors import CommitFailedError

    error = told(CommitFailedError("moved"))
    assert isinstance(error, RetryLaterError)
    assert error.dependency is None


def test_static_member_whose_name_another_has_taken_stops() -> None:
    from kafka.errors import FencedInstanceIdError

    error = told(FencedInstanceIdError("w.judging"))
    assert not isinstance(error, RetryLaterError)
    assert "set runtime.static_membership: false" in str(error)
