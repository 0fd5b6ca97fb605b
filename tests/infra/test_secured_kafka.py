"""A real Kafka with TLS, SCRAM and ACLs: what clients do there, and how they are refused."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.settings import BrokerSettings, RuntimeSettings
from deltawheel.contracts.topics import Topic
from deltawheel.infra.credentials import BROKER_KEY_PASSWORD_VARIABLE, BROKER_PASSWORD_VARIABLE
from tests.infra.test_bus_contract import (
    ends_of,
    find_kafka,
    take,
    values_of,
    wait_for_shares,
)
from tests.secured_kafka import KEY_PASSWORD, PASSWORD, USER, SecuredKafka, secured_kafka
from tests.waiting import wait_for

if TYPE_CHECKING:
    from deltawheel.infra.kafka_bus import KafkaBusConsumer, KafkaBusProducer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # kafka-python reads its schemas that way as it is imported, inside tests here.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with pytest.MonkeyPatch.context() as patch:
        find_kafka(patch)
        with secured_kafka(tmp_path_factory.mktemp("kafka")) as kafka:
            yield kafka


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.setenv(BROKER_KEY_PASSWORD_VARIABLE, KEY_PASSWORD)


@pytest.fixture
def wheel(kafka: SecuredKafka) -> str:
    """A wheel of this test's, to which the user is granted everything that it needs."""
    name = a_wheel()
    kafka.grant(USER, wheel=name)
    return name


def a_wheel() -> str:
    return f"wheel-{uuid.uuid4().hex[:8]}"


def broker(kafka: SecuredKafka, **security: Any) -> BrokerSettings:
    return BrokerSettings.model_validate(kafka.settings(**security))


def over_mutual_tls(kafka: SecuredKafka, **files: str) -> BrokerSettings:
    security = {"protocol": "ssl", "ca_file": str(kafka.ca_file), **files}
    settings = {"kind": "kafka", "bootstrap": kafka.mutual, "security": security}
    return BrokerSettings.model_validate(settings)


def make_topics(settings: BrokerSettings, wheel: str) -> None:
    from deltawheel.infra import kafka_bus

    kafka_bus.make_topics(settings.bootstrap or "", wheel=wheel, broker=settings)


def join(
    settings: BrokerSettings, wheel: str, *, instance_id: str | None = None
) -> "KafkaBusConsumer":
    from deltawheel.infra.kafka_bus import KafkaBusConsumer

    return KafkaBusConsumer(
        settings.bootstrap or "",
        group=f"{wheel}.judging",
        topics=[Topic.TRACES.of(wheel)],
        broker=settings,
        runtime=RuntimeSettings(),
        instance_id=instance_id,
    )


def connect(settings: BrokerSettings) -> "KafkaBusProducer":
    from deltawheel.infra.kafka_bus import KafkaBusProducer

    return KafkaBusProducer(settings.bootstrap or "", broker=settings, timeout_s=5)


def traces(wheel: str, *values: str) -> list[OutboundMessage]:
    topic = Topic.TRACES.of(wheel)
    return [
        OutboundMessage(topic=topic, key=value.encode(), value=value.encode()) for value in values
    ]


def refusal_of(call: Callable[[], object]) -> str:
    """Return what a call is refused with, by a broker that answers."""
    from deltawheel.infra.kafka_access import BrokerRefusalError

    with pytest.raises(BrokerRefusalError) as caught:
        call()
    assert caught.value.dependency == "broker"
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def list_topics(settings: BrokerSettings) -> frozenset[str]:
    from deltawheel.infra import kafka_bus

    return kafka_bus.list_topics(settings.bootstrap or "", broker=settings, timeout_s=2)


# What a wheel does


def assert_carries_everything(settings: BrokerSettings, wheel: str) -> None:
    for _ in range(2):
        make_topics(settings, wheel)
    with closing(connect(settings)) as producer:
        producer.publish(traces(wheel, "a", "b", "c"))
        with closing(join(settings, wheel)) as first:
            got = take(first, 3)
            assert values_of(got) == ["a", "b", "c"]
            first.commit(ends_of(got))
            assert first.has_joined()
            producer.publish(traces(wheel, "d"))
            assert values_of(take(first, 1)) == ["d"]
        with closing(join(settings, wheel)) as second:
            assert values_of(take(second, 1)) == ["d"]


def test_user_with_a_password_produces_consumes_and_commits(
    kafka: SecuredKafka, wheel: str
) -> None:
    assert_carries_everything(broker(kafka), wheel)


def test_client_with_a_certificate_produces_consumes_and_commits(kafka: SecuredKafka) -> None:
    wheel = a_wheel()
    kafka.grant(f"CN={USER}", wheel=wheel)
    files = {
        "certificate_file": str(kafka.folder / "client.pem"),
        "key_file": str(kafka.folder / "client.key"),
    }
    assert_carries_everything(over_mutual_tls(kafka, **files), wheel)


def test_topics_made_by_somebody_else_need_no_right_to_create(kafka: SecuredKafka) -> None:
    wheel = a_wheel()
    internal = BrokerSettings.model_validate({"kind": "kafka", "bootstrap": kafka.internal})
    make_topics(internal, wheel)
    kafka.grant(USER, wheel=wheel, without="CREATE")
    make_topics(broker(kafka), wheel)


# Who is let in


def test_wrong_password_is_told_with_user_and_variable(
    kafka: SecuredKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, "wrong-one")
    said = refusal_of(lambda: list_topics(broker(kafka)))
    assert f"the broker at {kafka.sasl} refuses user '{USER}' with SCRAM-SHA-512" in said
    assert f"; put the right password into {BROKER_PASSWORD_VARIABLE}" in said
    assert "wrong-one" not in said


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"mechanism": "SCRAM-SHA-256"}, "does not offer SCRAM-SHA-256; set broker.security.mech"),
        ({"ca_file": None}, "is not trusted by the system's authorities (unable to get local iss"),
        ({"ca_file": "other-ca.pem"}, "other-ca.pem (unable to get local issuer certificate); le"),
    ],
)
def test_refusal_names_what_to_change(
    security: dict[str, str | None], said: str, kafka: SecuredKafka
) -> None:
    if security.get("ca_file"):
        security = {"ca_file": str(kafka.folder / str(security["ca_file"]))}
    assert said in refusal_of(lambda: list_topics(broker(kafka, **security)))


def test_certificate_for_another_name_is_told_and_can_be_let_pass(kafka: SecuredKafka) -> None:
    elsewhere = {"bootstrap": kafka.sasl.replace("127.0.0.1", "localhost")}
    checked = broker(kafka).model_copy(update=elsewhere)
    said = refusal_of(lambda: list_topics(checked))
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in said
    assert "set broker.security.is_hostname_checked: false" in said
    list_topics(broker(kafka, is_hostname_checked=False).model_copy(update=elsewhere))


def test_client_without_the_certificate_asked_for_is_told(kafka: SecuredKafka) -> None:
    said = refusal_of(lambda: list_topics(over_mutual_tls(kafka)))
    assert "does not accept our certificate" in said
    assert "broker.security.certificate_file" in said


def test_listener_without_tls_or_sasl_is_told(kafka: SecuredKafka) -> None:
    internal = {"bootstrap": kafka.internal}
    said = refusal_of(lambda: list_topics(broker(kafka).model_copy(update=internal)))
    assert "its listener speaks no TLS" in said
    in_the_open = broker(kafka, protocol="sasl-plaintext", ca_file=None).model_copy(update=internal)
    said = refusal_of(lambda: list_topics(in_the_open))
    assert "asks for no user and password on this listener" in said


# Who may do what


def test_each_missing_right_is_told_and_each_client_goes_on_once_it_is_granted(
    kafka: SecuredKafka,
) -> None:
    wheel, settings = a_wheel(), broker(kafka)
    assert f"not use {wheel}.dead-letters, " in refusal_of(lambda: make_topics(settings, wheel))
    make_topics(
        BrokerSettings.model_validate({"kind": "kafka", "bootstrap": kafka.internal}), wheel
    )
    with closing(connect(settings)) as producer, closing(join(settings, wheel)) as consumer:
        said = refusal_of(lambda: producer.publish(traces(wheel, "a")))
        assert f"lets user '{USER}' not use {wheel}.traces" in said
        assert f"; grant READ, WRITE and DESCRIBE on topics with the prefix '{wheel}.'" in said
        said = refusal_of(lambda: [consumer.poll(1) for _ in range(3)])
        assert f"not join {wheel}.judging" in said
        kafka.grant(USER, wheel=wheel, without="READ")
        wait_for(lambda: is_done(lambda: producer.publish(traces(wheel, "b"))), what="published")
        kafka.grant(USER, wheel=wheel)
        wait_for(lambda: is_done(lambda: consumer.poll(0.1)), what="let into the group")
        assert "b" in values_of(take(consumer, 1))


def is_done(call: Callable[[], object]) -> bool:
    """Whether a call is no longer put off."""
    try:
        call()
    except RetryLaterError:
        return False
    return True


def test_probe_asks_for_every_right_and_changes_nothing(kafka: SecuredKafka) -> None:
    from deltawheel.infra.kafka_probe import missing_rights

    wheel, settings = a_wheel(), broker(kafka)

    def missing() -> list[str]:
        return missing_rights(
            kafka.sasl,
            broker=settings,
            topics=[f"{wheel}.traces", f"{wheel}.pairs"],
            groups=[f"{wheel}.judging"],
            timeout_s=5,
        )

    topics, group = missing()
    assert f"not use {wheel}.pairs, {wheel}.traces" in topics
    assert f"not join {wheel}.judging" in group
    kafka.grant(USER, wheel=wheel, without="WRITE")
    [topics] = missing()
    assert f"not use {wheel}.pairs, {wheel}.traces" in topics
    kafka.grant(USER, wheel=wheel)
    assert missing() == []
    with kafka.administrator() as admin:
        assert not [topic for topic in admin.list_topics() if topic.startswith(wheel)]


def test_password_changed_under_a_running_member_costs_nothing(
    kafka: SecuredKafka, wheel: str
) -> None:
    settings = broker(kafka)
    make_topics(settings, wheel)
    with closing(connect(settings)) as producer, closing(join(settings, wheel)) as consumer:
        producer.publish(traces(wheel, "a"))
        got = take(consumer, 1)
        kafka.set_password("another")
        try:
            wait_for(lambda: not is_done(lambda: consumer.poll(0.1)), what="thrown out")
            said = refusal_of(lambda: consumer.commit(ends_of(got)))
            assert "refuses user" in said
            assert "refuses user" in refusal_of(lambda: producer.publish(traces(wheel, "b")))
        finally:
            kafka.set_password(PASSWORD)
        wait_for(lambda: is_done(lambda: producer.publish(traces(wheel, "c"))), what="published")
        again: list[str] = []

        def has_all() -> bool:
            try:
                again.extend(values_of(consumer.poll(0.1)))
                consumer.commit(ends_of(got))
            except DeltawheelError:
                return False
            return "c" in again

        wait_for(has_all, what="the group takes it in again")


def test_static_member_takes_its_partitions_back_while_its_predecessor_still_holds_them(
    kafka: SecuredKafka, wheel: str
) -> None:
    settings = broker(kafka)
    make_topics(settings, wheel)
    with (
        closing(join(settings, wheel, instance_id="a")) as first,
        closing(join(settings, wheel, instance_id="b")) as other,
    ):
        wait_for_shares([first, other], lambda shares: sorted(map(len, shares)) == [2, 2])
        held, others = first.assigned(), other.assigned()
        with closing(join(settings, wheel, instance_id="a")) as again:
            wait_for_shares([again, other], lambda shares: shares == [held, others])
            assert first.assigned() == held, "static membership fences nobody at once"
            with pytest.raises(DeltawheelError, match="another process has joined") as caught:
                first.commit({partition: 0 for partition in held})
            assert not isinstance(caught.value, RetryLaterError)


def test_renewed_certificates_count_at_the_next_connection(
    kafka: SecuredKafka, wheel: str, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(kafka.ca_file.read_bytes())
    settings = broker(kafka, ca_file=str(file))
    make_topics(settings, wheel)
    with closing(connect(settings)) as producer:
        producer.publish(traces(wheel, "before"))
        file.write_bytes((kafka.folder / "other-ca.pem").read_bytes())
        hang_up(producer)
        said = refusal_of(lambda: producer.publish(traces(wheel, "a")))
        assert "is not trusted by" in said
        file.write_bytes(kafka.ca_file.read_bytes())
        wait_for(lambda: is_done(lambda: producer.publish(traces(wheel, "b"))), what="let in")


def hang_up(producer: "KafkaBusProducer") -> None:
    """Close a producer's connections, as a broker does that goes down."""
    assert producer._producer is not None, "it has published"
    manager = producer._producer._sender._client._manager

    async def close_all() -> None:
        for connection in list(manager._conns.values()):
            connection.close()

    closed = manager.call_soon(close_all)
    wait_for(lambda: closed.is_done, what="the connections are closed")
