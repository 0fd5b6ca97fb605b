"""How every client of a Kafka is connected: TLS, SASL, and errors that say what was refused.

kafka-python retries whatever is wrong with a connection and says "Unable to bootstrap" in the end.
Here the cause is kept, told apart and put into words: the world is not ready (wait), or the broker
says no (an operator has to act). Both are `RetryLaterError`s, for in both every record keeps its
offset and nothing is lost; services go on by themselves once they are let in.

Inner parts of kafka-python 3.0.12 are used for it (net/manager.py, net/transport.py, net/inet.py);
`tests/infra/test_kafka_access.py` and `test_secured_kafka.py` notice when they change.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from deltawheel.contracts.errors import (
    ConfigError,
    DeltawheelError,
    InvalidRecordError,
    RetryLaterError,
)
from deltawheel.contracts.settings import BrokerKind, BrokerSecurity, BrokerSettings
from deltawheel.infra.credentials import broker_key_password, broker_password
from deltawheel.infra.kafka_refusals import refusal_of

__all__ = ["BrokerRefusalError", "KafkaAccess", "tls_context"]

_TIMEOUT_MS: Final = 15_000
_BROKER: Final = "broker"
_GROUP_MOVES: Final = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
    errors.UnknownMemberIdError,
)


class BrokerRefusalError(RetryLaterError):
    """The broker answers and says no; nothing is lost, but waiting alone does not help."""


def tls_context(security: BrokerSecurity) -> ssl.SSLContext:
    """Read the certificates that the settings name.

    Raises:
        ConfigError: a file cannot be read or is not what its key says.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = security.is_hostname_checked
    if security.ca_file is None:
        context.load_default_certs()
    else:
        authorities = _readable("ca_file", security.ca_file)
        _load("ca_file", authorities, lambda: context.load_verify_locations(authorities))
    if security.certificate_file is not None:
        _load_own_certificate(context, security, security.certificate_file)
    return context


def _load_own_certificate(
    context: ssl.SSLContext, security: BrokerSecurity, certificate_file: Path
) -> None:
    certificate = _readable("certificate_file", certificate_file)
    key = _readable("key_file", security.key_file) if security.key_file else None
    # Without a password, OpenSSL would ask for one at the terminal.
    password = broker_key_password() or ""
    name = "key_file" if key else "certificate_file"
    _load(name, key or certificate, lambda: context.load_cert_chain(certificate, key, password))


def _readable(name: str, file: Path) -> Path:
    path = file.expanduser()
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"broker.security.{name}: {path} cannot be read ({error.strerror}); name a PEM file "
            "that this user may read"
        ) from error
    return path


def _load(name: str, path: Path, load: Callable[[], object]) -> None:
    try:
        load()
    except (ssl.SSLError, ValueError) as error:
        what = {
            "ca_file": "name a PEM file with the certificates of authorities",
            "certificate_file": "name a PEM file with our certificate and, if not apart, its key",
            "key_file": "name the PEM file of the certificate's key, and set "
            "DELTAWHEEL_BROKER_KEY_PASSWORD if it is encrypted",
        }[name]
        said = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            f"broker.security.{name}: {path} cannot be used ({said}); {what}"
        ) from error


class _ClosedSocket(KafkaNetSocket):  # type: ignore[misc]
    """Closes a socket whose connection fails; kafka-python leaves it to the garbage collector."""

    SCHEMES = ("closed-on-failure",)

    async def sock_connect(self, net: Any, sock: socket.socket, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        try:
            return await super().sock_connect(net, sock, *args, **options)
        except BaseException:
            sock.close()
            raise


class _LastWords:
    """Reads to the end: kafka-python drops what arrives together with the end of a connection.

    That is the broker's reason, where it refuses a password or a certificate and hangs up.
    """

    _sock: Any

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received, error = super()._sock_recv()  # type: ignore[misc]
        return received, None if received else error

    def _sock_send(self) -> tuple[int, Exception | None]:
        sent, error = super()._sock_send()  # type: ignore[misc]
        if error is not None and self._sock is not None:
            # Since TLS 1.3 a certificate is refused after the handshake, while we write already.
            _, reason = super()._sock_recv()  # type: ignore[misc]
            error = reason or error
        return sent, error


class _TcpTransport(_LastWords, KafkaTCPTransport):  # type: ignore[misc]
    """A connection in the open."""


class _TlsTransport(_LastWords, KafkaSSLTransport):  # type: ignore[misc]
    """An encrypted connection, whose handshake ends in time; kafka-python's may wait for ever."""

    async def shake_hands(self, timeout_at: float) -> None:
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at)
            else:
                return


class _Connections(KafkaConnectionManager):  # type: ignore[misc]
    """Connections that remember why the latest of them did not come about."""

    def __init__(self, net: NetworkSelector, access: "KafkaAccess", **options: Any) -> None:  # noqa: ANN401
        super().__init__(net, **options)
        self._access = access

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:  # noqa: ANN401
        ends_at = timeout_at or time.monotonic() + _TIMEOUT_MS / 1_000
        # Anew for each connection: renewed certificates count without a restart.
        context = tls_context(self._access.broker.security) if self.ssl_enabled else None
        opened = await self._open_socket(node, ends_at)
        if context is None:
            return _TcpTransport(self._net, opened, host=node.host)
        transport = _TlsTransport(self._net, opened, host=node.host, ssl_context=context)
        try:
            await transport.shake_hands(ends_at)
        except Exception as error:
            transport.abort(error)
            raise errors.KafkaConnectionError(f"TLS handshake failed: {error}") from error
        return transport

    async def _open_socket(self, node: Any, ends_at: float) -> socket.socket:  # noqa: ANN401
        try:
            opened: socket.socket = await create_connection(
                self._net,
                node.host,
                node.port,
                self.config["socket_options"],
                proxy_url=self.config["proxy_url"],
                timeout_at=ends_at,
            )
        except errors.KafkaConnectionError:
            self._access.refusal = None  # who is away refuses nobody
            raise
        return opened

    async def _connect(
        self,
        node: Any,  # noqa: ANN401
        conn: Any,  # noqa: ANN401
        reset_backoff_on_connect: bool = True,
        timeout_at: float | None = None,
    ) -> None:
        await super()._connect(node, conn, reset_backoff_on_connect=False, timeout_at=timeout_at)
        if conn.connected:
            self._access.refusal = None
            if reset_backoff_on_connect:
                self.reset_backoff(node.node_id)
        elif conn.init_future.failed():
            self._access.learn_from(conn.init_future.exception)
            if not self.connection_delay(node.node_id):
                # kafka-python knocks again at once where TLS was fine and SASL was not.
                self.update_backoff(node.node_id)


class KafkaAccess:
    """The way of one client to the brokers, and what its errors mean.

    Args:
        address: Where clients connect first, `host:port,host:port`.
        broker: Of which kind the brokers are, and what they ask for.
    """

    def __init__(self, address: str, broker: BrokerSettings) -> None:
        self.address = address
        self.broker = broker
        self.refusal: str | None = None
        """Why the latest connection was refused, until one comes about."""

    @contextmanager
    def connecting(self) -> Iterator[dict[str, Any]]:
        """Yield what all clients are made with; end the threads of one that cannot be made.

        kafka-python starts them before it first asks the broker, and forgets them where that fails.

        Raises:
            ConfigError: a secret is missing, or a certificate cannot be used.
            BrokerRefusalError: the broker answers, and refuses us.
            RetryLaterError: it does not answer.
        """
        if self.broker.security.protocol.has_tls:
            tls_context(self.broker.security)
        opened: list[KafkaNetClient] = []

        def open_client(**options: Any) -> KafkaNetClient:  # noqa: ANN401
            net = NetworkSelector(**options)
            manager = _Connections(net, self, **options)
            opened.append(KafkaNetClient(net=net, manager=manager, **options))
            return opened[-1]

        options = {
            "bootstrap_servers": [one.strip() for one in self.address.split(",")],
            "bootstrap_timeout_ms": _TIMEOUT_MS,
            "request_timeout_ms": _TIMEOUT_MS,
            "proxy_url": f"{_ClosedSocket.SCHEMES[0]}://",
            "kafka_client": open_client,
            **_credentials(self.broker),
        }
        try:
            with self.reaching():
                yield options
        except BaseException:
            for client in opened:
                client.close()
            raise

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn the client's errors into ours, which name what has to be done.

        Mostly it is to try later; a record that is too large for the broker is invalid.
        """
        try:
            yield
        except (errors.KafkaError, OSError) as error:
            raise self._in_words(error) from error

    def require_entry(self) -> None:
        """Say that the broker refuses us, if it did so lately.

        Raises:
            BrokerRefusalError: no connection has come about since.
        """
        if self.refusal is not None:
            raise BrokerRefusalError(self.refusal, dependency=_BROKER)

    def learn_from(self, error: BaseException) -> None:
        """Remember why a connection did not come about, if that tells of a refusal."""
        if isinstance(error, ConfigError):
            self.refusal = str(error)
        elif sentence := refusal_of(error, self.address, self.broker.security):
            self.refusal = sentence

    def _in_words(self, error: BaseException) -> DeltawheelError:
        if isinstance(error, errors.MessageSizeTooLargeError):
            return InvalidRecordError(
                f"the broker at {self.address} takes no record of this size: raise "
                f"broker.max_message_bytes (and its max.message.bytes): {error}"
            )
        if isinstance(error, errors.FencedInstanceIdError):
            return DeltawheelError(
                "another process has joined the group as this very static member; end one of the "
                "two, or set runtime.static_membership: false"
            )
        if isinstance(error, _GROUP_MOVES):
            return RetryLaterError(f"the group deals its partitions anew: {error!r}")
        refusal = refusal_of(error, self.address, self.broker.security) or self.refusal
        if refusal is not None:
            return BrokerRefusalError(refusal, dependency=_BROKER)
        return RetryLaterError(
            f"the broker at {self.address} does not answer: {error!r}{self._doubt(error)}",
            dependency=_BROKER,
        )

    def _doubt(self, error: BaseException) -> str:
        if self.broker.kind is not BrokerKind.KAFKA or "bootstrap" not in str(error):
            return ""
        return (
            "; start it, or, if it runs, set broker.security to what its listener asks for (now "
            f"protocol {self.broker.security.protocol})"
        )


def _credentials(broker: BrokerSettings) -> dict[str, Any]:
    security = broker.security
    options: dict[str, Any] = {
        "security_protocol": security.protocol.value.upper().replace("-", "_")
    }
    if security.protocol.has_sasl:
        options |= {
            "sasl_mechanism": security.mechanism and security.mechanism.value,
            "sasl_plain_username": security.username,
            "sasl_plain_password": broker_password(broker),
        }
    return options
