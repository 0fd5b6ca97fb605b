"""A real Kafka that asks who is there: TLS, SCRAM and ACLs, with certificates made for the day."""

import ipaddress
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deltawheel.infra.listening import find_free_ports, port_in_use
from tests.waiting import wait_for

USER = "wheel-user"
PASSWORD = "not-to-be-seen"
KEY_PASSWORD = "not-to-be-seen-either"
REAUTHENTICATES_AFTER_MS = 3_000
"""How long a connection stays before the password is asked for again."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{mutual},INTERNAL://127.0.0.1:{internal},\
CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{mutual},\
INTERNAL://127.0.0.1:{internal}
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="plain-secret";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
connections.max.reauth.ms={reauthenticates_after_ms}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


@dataclass(frozen=True, kw_only=True)
class SecuredKafka:
    """Where it listens, and what it takes to be let in."""

    folder: Path
    sasl: str
    """Address of the listener that asks for TLS and a password."""
    mutual: str
    """Address of the listener that asks for a client's certificate."""
    internal: str
    """Address of the listener for its own administrator, who may do everything."""

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def grant(self, principal: str, *, wheel: str, without: str | None = None) -> None:
        """Allow a principal what a wheel needs, less one operation."""
        from kafka.admin import (
            ACL,
            ACLOperation,
            ACLPermissionType,
            ACLResourcePatternType,
            ResourcePattern,
            ResourceType,
        )

        prefix = f"{wheel}."
        needed = {
            ResourceType.TOPIC: ("READ", "WRITE", "CREATE", "DESCRIBE"),
            ResourceType.GROUP: ("READ",),
        }
        acls = [
            ACL(
                principal=f"User:{principal}",
                host="*",
                operation=ACLOperation[operation],
                permission_type=ACLPermissionType.ALLOW,
                resource_pattern=ResourcePattern(kind, prefix, ACLResourcePatternType.PREFIXED),
            )
            for kind, operations in needed.items()
            for operation in operations
            if operation != without
        ]
        with self.administrator() as admin:
            admin.create_acls(acls)
            # They take force in order, and a moment later.
            wait_for(lambda: admin.describe_acls(acls[-1])[0], what="the grants take force")

    def settings(self, **security: Any) -> dict[str, Any]:
        """Return the section `broker` of a wheel that is let in, with some of it otherwise."""
        listener = {
            "protocol": "sasl-ssl",
            "mechanism": "SCRAM-SHA-512",
            "username": USER,
            "ca_file": str(self.ca_file),
        }
        return {"kind": "kafka", "bootstrap": self.sasl, "security": listener | security}

    def set_password(self, password: str) -> None:
        """Give the user another password."""
        from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

        change = UserScramCredentialUpsertion(
            user=USER, mechanism=ScramMechanism.SCRAM_SHA_512, password=password
        )
        with self.administrator() as admin:
            admin.alter_user_scram_credentials([change])

    @contextmanager
    def administrator(self) -> Iterator[Any]:
        from kafka.admin import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.internal)
        try:
            yield admin
        finally:
            admin.close()


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """Run a broker in the folder, with one user and nobody allowed anything."""
    home = Path(os.environ["KAFKA_HOME"])
    sasl, mutual, internal, controller = find_free_ports(4)
    make_certificates(folder)
    properties = folder / "server.properties"
    properties.write_text(
        PROPERTIES.format(
            sasl=sasl,
            mutual=mutual,
            internal=internal,
            controller=controller,
            folder=folder,
            user=USER,
            reauthenticates_after_ms=REAUTHENTICATES_AFTER_MS,
        )
    )
    storage = [str(home / "bin" / "kafka-storage.sh"), "format", "--standalone"]
    scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    cluster = ["-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties)]
    subprocess.run([*storage, *cluster, "--add-scram", scram], check=True, capture_output=True)
    start = [str(home / "bin" / "kafka-server-start.sh"), str(properties)]
    with (folder / "kafka.log").open("wb") as log:
        process = subprocess.Popen(start, stdout=log, stderr=log)
        try:
            wait_for(lambda: port_in_use("127.0.0.1", sasl), what=f"Kafka, see {log.name}")
            yield SecuredKafka(
                folder=folder,
                sasl=f"127.0.0.1:{sasl}",
                mutual=f"127.0.0.1:{mutual}",
                internal=f"127.0.0.1:{internal}",
            )
        finally:
            process.terminate()
            process.wait(60)


def make_certificates(folder: Path) -> None:
    """Write an authority, a broker for 127.0.0.1 only, a client, and an authority of others."""
    authority = new_authority("deltawheel tests")
    write_certificate(folder / "ca.pem", authority)
    write_certificate(folder / "other-ca.pem", new_authority("somebody else"))
    broker = issued_by(authority, "broker", address="127.0.0.1")
    write_certificate(folder / "broker.pem", broker, with_key=True)
    client = issued_by(authority, USER)
    write_certificate(folder / "client.pem", client)
    write_key(folder / "client.key", client, password=KEY_PASSWORD)


Issued = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def unsigned(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> Any:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def new_authority(name: str) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    basic = x509.BasicConstraints(ca=True, path_length=None)
    builder = unsigned(name, named(name), key).add_extension(basic, critical=True)
    return builder.sign(key, hashes.SHA256()), key


def issued_by(authority: Issued, name: str, *, address: str | None = None) -> Issued:
    certificate, signing_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    builder = unsigned(name, certificate.subject, key)
    if address is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signing_key, hashes.SHA256()), key


def write_certificate(path: Path, issued: Issued, *, with_key: bool = False) -> None:
    certificate, _ = issued
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    if with_key:
        key = path.with_suffix(".key")
        write_key(key, issued)
        path.write_bytes(key.read_bytes() + path.read_bytes())


def write_key(path: Path, issued: Issued, *, password: str | None = None) -> None:
    _, key = issued
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    pem, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, format_, encryption))
