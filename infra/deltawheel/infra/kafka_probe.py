"""Whether a Kafka that runs elsewhere can be used, and if not, which of the possible causes it is.

The addresses are tried first as plain sockets: what accepts a connection, refuses nothing and yet
gives no answer speaks another protocol.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from kafka.admin import KafkaAdminClient
from kafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from kafka.record import util

from deltawheel.contracts.addresses import is_loopback
from deltawheel.contracts.errors import ConfigError, RetryLaterError
from deltawheel.contracts.settings import BrokerSettings
from deltawheel.infra import kafka_bus
from deltawheel.infra.kafka_access import BrokerRefusalError
from deltawheel.infra.kafka_refusals import refusal_of
from deltawheel.infra.listening import why_unreachable

__all__ = [
    "has_c_checksum",
    "is_on_this_machine",
    "list_topics",
    "missing_rights",
    "unreachable_brokers",
]

_DEFAULT_PORT: Final = 9092
_USED: Final = frozenset({"DESCRIBE", "READ", "WRITE"})


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


def is_on_this_machine(bootstrap: str) -> bool:
    """Whether all that is sent there stays on this machine."""
    return all(is_loopback(_host_and_port(one.strip())[0]) for one in bootstrap.split(","))


def list_topics(bootstrap: str, *, broker: BrokerSettings, timeout_s: float) -> frozenset[str]:
    """Connect as clients do, and return the topics that may be seen.

    Raises:
        BrokerRefusalError: the broker answers, and refuses us.
        RetryLaterError: a connection comes about nowhere.
        ConfigError: one does, but what listens there does not answer as Kafka does; or a secret or
            a certificate is missing.
    """
    reachable = _reachable(bootstrap, timeout_s=timeout_s)
    try:
        return kafka_bus.list_topics(reachable, broker=broker, timeout_s=timeout_s)
    except BrokerRefusalError:
        raise
    except RetryLaterError as error:
        raise ConfigError(
            f"{bootstrap} takes connections, but kafka-python says {str(error.__cause__)!r}: "
            "either no Kafka listens there, or its listener asks for more than broker.security "
            f"says (protocol {broker.security.protocol}); name a listener in broker.bootstrap "
            "that speaks this protocol, or set broker.security to what it asks for"
        ) from error


def missing_rights(
    bootstrap: str,
    *,
    broker: BrokerSettings,
    topics: Iterable[str],
    groups: Iterable[str],
    timeout_s: float,
) -> list[str]:
    """Return a sentence for topics and one for groups of which ACLs withhold something we need.

    Only asks; where neither user nor certificate is shown, there is nobody to grant anything to.

    Raises:
        RetryLaterError: the broker does not answer, or refuses us.
    """
    security = broker.security
    if not (security.protocol.has_sasl or security.certificate_file):
        return []
    reachable = _reachable(bootstrap, timeout_s=timeout_s)
    with kafka_bus.administering(reachable, broker, timeout_s=timeout_s) as admin:
        errors = [*_topics_withheld(admin, list(topics)), *_groups_withheld(admin, groups)]
    told = (refusal_of(error, reachable, security) for error in errors)
    return [sentence for sentence in told if sentence is not None]


def _reachable(bootstrap: str, *, timeout_s: float) -> str:
    """Return the addresses that take connections, so that no time is spent on the others.

    Raises:
        RetryLaterError: none does.
    """
    down = unreachable_brokers(bootstrap, timeout_s=timeout_s)
    if up := [one.strip() for one in bootstrap.split(",") if one.strip() not in down]:
        return ",".join(up)
    raise RetryLaterError(", ".join(f"{address}: {why}" for address, why in down.items()))


def _topics_withheld(admin: KafkaAdminClient, topics: list[str]) -> Iterator[KafkaError]:
    described = admin.describe_topics(topics)
    if withheld := {topic["name"] for topic in described if _is_withheld(topic)}:
        yield TopicAuthorizationFailedError(withheld)


def _is_withheld(topic: Mapping[str, Any]) -> bool:
    if topic["error_code"] == TopicAuthorizationFailedError.errno:
        return True
    is_there = topic["error_code"] != UnknownTopicOrPartitionError.errno
    granted = topic["authorized_operations"]
    return granted is not None and not (_USED if is_there else _USED | {"CREATE"}) <= set(granted)


def _groups_withheld(admin: KafkaAdminClient, groups: Iterable[str]) -> Iterator[KafkaError]:
    for group in groups:
        try:
            granted = admin.describe_groups([group])[group]["authorized_operations"]
        except GroupAuthorizationFailedError:
            granted = ()
        except CoordinatorNotAvailableError:
            continue  # no group has been here yet; we may ask for this one
        if granted is not None and "READ" not in granted:
            yield GroupAuthorizationFailedError(group)
            return


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, str(_DEFAULT_PORT)
    return host.strip("[]"), int(port)
