"""Whether a Kafka that runs elsewhere can be used, and if not, which of the possible causes it is.

kafka-python says "Unable to bootstrap" to whatever is wrong, so the addresses are tried first as
plain sockets: what accepts a connection and yet gives no answer speaks another protocol.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from kafka.record import util

from deltawheel.contracts.errors import ConfigError, RetryLaterError
from deltawheel.infra import kafka_bus
from deltawheel.infra.listening import why_unreachable

__all__ = ["has_c_checksum", "list_topics", "unreachable_brokers"]

_DEFAULT_PORT: Final = 9092


def has_c_checksum() -> bool:
    """Whether checksums are computed in C; in Python, encoding is 20 to 40 times slower."""
    return util.crc32c_c is not None


def unreachable_brokers(bootstrap: str, *, timeout_s: float) -> dict[str, str]:
    """Return why no connection comes about, by address, for those of the list where none does."""
    addresses = [address.strip() for address in bootstrap.split(",")]

    def look(address: str) -> str | None:
        return why_unreachable(*_host_and_port(address), timeout_s=timeout_s)

    with ThreadPoolExecutor(len(addresses)) as executor:
        reasons = executor.map(look, addresses)
        return {one: why for one, why in zip(addresses, reasons, strict=True) if why is not None}


def list_topics(bootstrap: str, *, timeout_s: float) -> frozenset[str]:
    """Connect as clients do, and return the topics that may be seen.

    Raises:
        RetryLaterError: a connection comes about nowhere.
        ConfigError: one does, but what listens there does not answer as Kafka does.
    """
    down = unreachable_brokers(bootstrap, timeout_s=timeout_s)
    if len(down) == len(bootstrap.split(",")):
        raise RetryLaterError(", ".join(f"{address}: {why}" for address, why in down.items()))
    try:
        return kafka_bus.list_topics(bootstrap, timeout_s=timeout_s)
    except RetryLaterError as error:
        raise ConfigError(
            f"{bootstrap} takes connections, but kafka-python says {str(error.__cause__)!r}: "
            "either no Kafka listens there, or its listener asks for TLS or SASL"
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, str(_DEFAULT_PORT)
    return host.strip("[]"), int(port)
