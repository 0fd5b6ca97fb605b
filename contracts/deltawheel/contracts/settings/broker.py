"""Settings of the broker: which one, how large its records may be, and how it is reached safely."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.addresses import is_loopback
from deltawheel.contracts.settings.section import Port, Section

__all__ = [
    "BrokerKind",
    "BrokerProtocol",
    "BrokerSecurity",
    "BrokerSettings",
    "SaslMechanism",
]


class BrokerKind(StrEnum):
    """Where the topics live."""

    EMBEDDED = "embedded"
    LOCAL_KAFKA = "local-kafka"
    KAFKA = "kafka"


class BrokerProtocol(StrEnum):
    """How a listener of the broker is spoken to: in the open or over TLS, with or without SASL."""

    PLAINTEXT = "plaintext"
    SSL = "ssl"
    SASL_PLAINTEXT = "sasl-plaintext"
    SASL_SSL = "sasl-ssl"

    @property
    def has_tls(self) -> bool:
        """Whether what travels is encrypted and the broker shows a certificate."""
        return self in (BrokerProtocol.SSL, BrokerProtocol.SASL_SSL)

    @property
    def has_sasl(self) -> bool:
        """Whether the broker asks for a user and a password."""
        return self in (BrokerProtocol.SASL_PLAINTEXT, BrokerProtocol.SASL_SSL)


class SaslMechanism(StrEnum):
    """How user and password are shown to the broker; SCRAM never sends the password itself."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


_TLS_ONLY = "set broker.security.protocol: sasl-ssl or ssl, or remove the key"
_SASL_ONLY = "set broker.security.protocol: sasl-ssl, or remove the key"


class BrokerSecurity(Section):
    """Who the broker is, and who we are to it; passwords come from the environment only."""

    protocol: BrokerProtocol = Field(
        default=BrokerProtocol.PLAINTEXT,
        description=(
            "What the listener speaks: plaintext, ssl, sasl-plaintext or sasl-ssl. With sasl, "
            "DELTAWHEEL_BROKER_PASSWORD must hold the password."
        ),
    )
    mechanism: SaslMechanism | None = Field(
        default=None, description="With sasl: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN."
    )
    username: str | None = Field(default=None, min_length=1, description="With sasl: the user.")
    ca_file: Path | None = Field(
        default=None,
        description=(
            "PEM file of the authorities whose certificates are trusted; unset means the system's. "
            "It and the next two are read at each connection, so renewed ones need no restart."
        ),
    )
    certificate_file: Path | None = Field(
        default=None,
        description="PEM file of our own certificate, where the broker asks for one (mTLS).",
    )
    key_file: Path | None = Field(
        default=None,
        description=(
            "Its key, if not in the same file; DELTAWHEEL_BROKER_KEY_PASSWORD decrypts it."
        ),
    )
    is_hostname_checked: bool = Field(
        default=True, description="Whether the certificate must be for the name connected to."
    )

    @field_validator("mechanism", "username")
    @classmethod
    def _goes_with_sasl(cls, value: str | None, info: ValidationInfo) -> str | None:
        protocol = info.data.get("protocol")
        if protocol is None:
            return value
        if protocol.has_sasl and value is None:
            valid = f": {', '.join(SaslMechanism)}" if info.field_name == "mechanism" else ""
            raise ValueError(f"protocol {protocol} needs a {info.field_name}{valid}")
        if not protocol.has_sasl and value is not None:
            raise ValueError(f"protocol {protocol} shows no user to the broker; {_SASL_ONLY}")
        return value

    @field_validator("ca_file", "certificate_file", "key_file")
    @classmethod
    def _goes_with_tls(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("protocol")
        if file is not None and protocol is not None and not protocol.has_tls:
            raise ValueError(f"protocol {protocol} uses no certificates; {_TLS_ONLY}")
        return file

    @field_validator("key_file")
    @classmethod
    def _belongs_to_a_certificate(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None and info.data.get("certificate_file", file) is None:
            raise ValueError("a key alone proves nothing; set certificate_file too, or remove it")
        return file

    @field_validator("is_hostname_checked")
    @classmethod
    def _is_off_only_with_tls(cls, is_checked: bool, info: ValidationInfo) -> bool:
        protocol = info.data.get("protocol")
        if not is_checked and protocol is not None and not protocol.has_tls:
            raise ValueError(f"protocol {protocol} has no certificate to check; {_TLS_ONLY}")
        return is_checked


class BrokerSettings(Section):
    """The Kafka-protocol broker."""

    kind: BrokerKind = Field(
        default=BrokerKind.EMBEDDED,
        description=(
            "embedded: a memory-only broker that `up` starts and refills from the store; "
            "local-kafka: an Apache Kafka that `up` starts from KAFKA_HOME (needs Java 17); "
            "kafka: one that runs elsewhere."
        ),
    )
    host: str = Field(
        default="127.0.0.1", description="Loopback address on which `up` starts its broker."
    )
    port: Port = Field(default=0, description="Its port; 0 takes a free one at each start.")
    bootstrap: str | None = Field(
        default=None, description="host:port,host:port of the brokers, for kind kafka."
    )
    security: BrokerSecurity = Field(
        default=BrokerSecurity(), description="TLS and SASL, for kind kafka."
    )
    partitions: int = Field(
        default=4,
        ge=1,
        description="Partitions of each topic: the most members that share its work.",
    )
    max_message_bytes: int = Field(
        default=4_000_000,
        ge=100_000,
        description="Longest record; must hold the longest trace twice.",
    )
    max_memory_mb: int = Field(
        default=500,
        ge=100,
        description="The embedded broker keeps every record in memory, and each fetch costs it the "
        "more the more it holds; past this it is started afresh and refilled from the store, MB.",
    )

    @field_validator("host")
    @classmethod
    def _own_broker_is_for_this_machine(cls, host: str, info: ValidationInfo) -> str:
        if info.data.get("kind", BrokerKind.KAFKA) is not BrokerKind.KAFKA and not is_loopback(
            host
        ):
            raise ValueError(
                "others can reach it, and the broker that `up` starts asks nobody for a password; "
                "keep 127.0.0.1, or run a broker elsewhere and give broker.kind: kafka with "
                "broker.bootstrap"
            )
        return host

    @field_validator("bootstrap")
    @classmethod
    def _remote_broker_has_an_address(
        cls, bootstrap: str | None, info: ValidationInfo
    ) -> str | None:
        if info.data.get("kind") is BrokerKind.KAFKA and not bootstrap:
            raise ValueError("kind kafka needs 'bootstrap', for example bootstrap: kafka-1:9092")
        return bootstrap

    @field_validator("security")
    @classmethod
    def _own_broker_speaks_plaintext(
        cls, security: BrokerSecurity, info: ValidationInfo
    ) -> BrokerSecurity:
        kind = info.data.get("kind", BrokerKind.KAFKA)
        is_plain = security.protocol is BrokerProtocol.PLAINTEXT
        if kind is not BrokerKind.KAFKA and not is_plain:
            raise ValueError(
                f"broker.security.protocol: it is {security.protocol}, but the broker that `up` "
                f"starts for broker.kind {kind} speaks plaintext, on loopback only; remove "
                "broker.security, or set broker.kind: kafka with broker.bootstrap"
            )
        return security
