"""What a Kafka refuses, in sentences: the fact, and behind a semicolon the one thing to do.

Causes are told apart by the client's error classes, and TLS by OpenSSL's reason in the text, since
kafka-python keeps no more of it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from kafka import errors

from deltawheel.contracts.settings import BrokerSecurity
from deltawheel.infra.credentials import BROKER_PASSWORD_VARIABLE

__all__ = ["refusal_of"]

_LAST: Final = "nothing is lost meanwhile"


def refusal_of(error: BaseException, address: str, security: BrokerSecurity) -> str | None:
    """Return what the broker refuses and what to do about it, or None if it refuses nothing."""
    broker = f"the broker at {address}"
    for kind, tell in _TOLD.items():
        # Some errors of the producer only tell in their text what the broker has said.
        if isinstance(error, kind) or kind.__name__ in str(error):
            return tell(error, broker, security)
    return _tls_refusal(str(error), broker, security)


def _wrong_credentials(error: BaseException, broker: str, security: BrokerSecurity) -> str:
    said = str(error).rpartition("SaslAuthenticationFailedError: ")[2]
    return (
        f"{broker} refuses user {security.username!r} with {security.mechanism} ({said}), {_LAST}; "
        f"put the right password into {BROKER_PASSWORD_VARIABLE}, or the right name into "
        "broker.security.username, and start the wheel again"
    )


def _wrong_mechanism(_: BaseException, broker: str, security: BrokerSecurity) -> str:
    return (
        f"{broker} does not offer {security.mechanism}; set broker.security.mechanism to one that "
        "its listener has enabled"
    )


def _no_sasl(_: BaseException, broker: str, security: BrokerSecurity) -> str:
    return (
        f"{broker} asks for no user and password on this listener; set broker.security.protocol: "
        f"{'ssl' if security.protocol.has_tls else 'plaintext'}, or name another listener in "
        "broker.bootstrap"
    )


def _no_topic(error: BaseException, broker: str, security: BrokerSecurity) -> str:
    topics = sorted(_named_in(error))
    prefix = f"{topics[0].rpartition('.')[0]}." if topics else ""
    return (
        f"{broker} lets {_who(security)} not use {', '.join(topics) or 'a topic'}, {_LAST}; grant "
        f"READ, WRITE and DESCRIBE on topics with the prefix {prefix!r}, and CREATE unless they "
        "are there"
    )


def _no_group(error: BaseException, broker: str, security: BrokerSecurity) -> str:
    group = next(iter(_named_in(error)), "its group")
    return (
        f"{broker} lets {_who(security)} not join {group}, {_LAST}; grant READ on groups with the "
        f"prefix {group.rpartition('.')[0] + '.'!r}"
    )


def _no_cluster(_: BaseException, broker: str, security: BrokerSecurity) -> str:
    return (
        f"{broker} lets {_who(security)} write to no topic, {_LAST}; grant WRITE on the wheel's "
        "topics (and before Kafka 3.0 IDEMPOTENT_WRITE on the cluster)"
    )


def _other_protocol(_: BaseException, broker: str, security: BrokerSecurity) -> str:
    return (
        f"{broker} has members in the group that deal partitions otherwise, {_LAST}; end those of "
        "another version, or with another runtime.static_membership, before these start"
    )


_TOLD: Final[Mapping[type[BaseException], Callable[[BaseException, str, BrokerSecurity], str]]] = (
    MappingProxyType(
        {
            errors.SaslAuthenticationFailedError: _wrong_credentials,
            errors.UnsupportedSaslMechanismError: _wrong_mechanism,
            errors.IllegalSaslStateError: _no_sasl,
            errors.TopicAuthorizationFailedError: _no_topic,
            errors.GroupAuthorizationFailedError: _no_group,
            errors.ClusterAuthorizationFailedError: _no_cluster,
            errors.InconsistentGroupProtocolError: _other_protocol,
        }
    )
)


def _tls_refusal(said: str, broker: str, security: BrokerSecurity) -> str | None:
    if "SSL" not in said and "handshake failed: [Errno" not in said:
        return None
    if "mismatch" in said:
        return (
            f"the certificate of {broker} is for another name ({_reason(said)}); name the brokers "
            "in broker.bootstrap as their certificates do, or set "
            "broker.security.is_hostname_checked: false"
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        trusted = security.ca_file or "the system's authorities"
        return (
            f"the certificate of {broker} is not trusted by {trusted} ({_reason(said)}); let "
            "broker.security.ca_file name the authority that has signed it"
        )
    if "ALERT" in said:
        return (
            f"{broker} does not accept our certificate ({_reason(said)}), {_LAST}; let "
            "broker.security.certificate_file and key_file name one that it trusts"
        )
    in_the_open = "sasl-plaintext" if security.protocol.has_sasl else "plaintext"
    return (
        f"{broker} breaks off the TLS handshake ({_reason(said)}); if it is not just going down, "
        "its listener speaks no TLS: name another one in broker.bootstrap, or set "
        f"broker.security.protocol: {in_the_open}"
    )


def _reason(said: str) -> str:
    """Return OpenSSL's words, without its codes before them and its file and line behind."""
    words = said.rpartition("] ")[2].partition(" (_ssl.c")[0]
    return words.removeprefix("certificate verify failed: ").removesuffix(".")


def _named_in(error: BaseException) -> list[str]:
    """Return the topics or groups that an authorization error is about."""
    named: list[str] = []
    for argument in error.args:
        if isinstance(argument, str):
            named.append(argument)
        elif isinstance(argument, set | frozenset | list | tuple):
            named += map(str, argument)
    return named


def _who(security: BrokerSecurity) -> str:
    if security.username is not None:
        return f"user {security.username!r}"
    return "our certificate's name" if security.certificate_file else "us"
