"""Secrets of the environment, as settings ask for them."""

from typing import Any

import pytest

from deltawheel.contracts.errors import ConfigError, RetryLaterError
from deltawheel.contracts.settings import BrokerSettings, GatewaySettings, Settings
from deltawheel.infra.credentials import (
    BROKER_PASSWORD_VARIABLE,
    TOKEN_VARIABLE,
    broker_password,
    endpoint_keys,
    gateway_token,
    member_key,
)
from tests.records import a_generator

HERE = {"endpoint": "http://host/v1", "model": "m"}


def settings_of(*generators: dict[str, Any]) -> Settings:
    return Settings(generators=generators)


def test_each_generator_has_the_key_of_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_TEST_ONE", "one")
    monkeypatch.setenv("KEY_OF_TEST_OTHER", " other\n")
    settings = settings_of(
        {"name": "a", **HERE, "api_key_env": "KEY_OF_TEST_ONE"},
        {"name": "b", **HERE, "api_key_env": "KEY_OF_TEST_OTHER"},
        {"name": "c", **HERE},
        {"name": "d", "server": "local"},
    )
    assert endpoint_keys(settings) == {
        ("a", "http://host/v1"): "one",
        ("b", "http://host/v1"): "other",
    }


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_variable_that_is_not_set_is_named_with_its_key(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    monkeypatch.setenv("KEY_OF_TEST_SET", "secret")
    if value is not None:
        monkeypatch.setenv("KEY_OF_TEST", value)
    settings = settings_of(
        {"name": "a", **HERE, "api_key_env": "KEY_OF_TEST"},
        {"name": "b", **HERE, "api_key_env": "KEY_OF_TEST_SET"},
        {"name": "c", **HERE, "api_key_env": "KEY_OF_TEST"},
    )
    with pytest.raises(ConfigError) as caught:
        endpoint_keys(settings)
    first, second = str(caught.value).splitlines()
    assert first.startswith(
        "generators.a.api_key_env: the environment variable KEY_OF_TEST is not set; set it to"
    )
    assert second.startswith("generators.c.api_key_env: ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "gateway.example"])
def test_gateway_that_others_can_reach_needs_a_token(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=rf"gateway\.host is {host}.*{TOKEN_VARIABLE}"):
        gateway_token(GatewaySettings(host=host))
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert gateway_token(GatewaySettings(host=host)) == "secret"


def a_broker(**security: str) -> BrokerSettings:
    broker = {"kind": "kafka", "bootstrap": "kafka-1:9092", "security": security}
    return BrokerSettings.model_validate(broker)


def test_broker_that_asks_for_no_password_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, "secret")
    assert broker_password(a_broker(protocol="ssl")) is None


@pytest.mark.parametrize("value", [None, ""])
def test_broker_that_asks_for_a_password_needs_one(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BROKER_PASSWORD_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, value)
    broker = a_broker(protocol="sasl-ssl", mechanism="PLAIN", username="me")
    said = f"{BROKER_PASSWORD_VARIABLE} is not set; set it to the password of user 'me'"
    with pytest.raises(ConfigError, match=said):
        broker_password(broker)
    monkeypatch.setenv(BROKER_PASSWORD_VARIABLE, " kept as it is ")
    assert broker_password(broker) == " kept as it is "


def test_added_member_has_the_key_of_the_variable_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY_OF_TEST", " sesame\n")
    assert member_key(a_generator(api_key_env="KEY_OF_TEST")) == "sesame"
    assert member_key(a_generator()) is None


@pytest.mark.parametrize("value", [None, " ", "two\nlines", "schlüssel"])
def test_key_that_cannot_be_sent_is_waited_for(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_OF_TEST", raising=False)
    if value is not None:
        monkeypatch.setenv("KEY_OF_TEST", value)
    with pytest.raises(RetryLaterError, match="variable KEY_OF_TEST holds no key") as caught:
        member_key(a_generator(api_key_env="KEY_OF_TEST"))
    assert "lines" not in str(caught.value)
