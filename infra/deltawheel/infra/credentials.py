"""Secrets, which come from the environment only; no setting and no error text holds one."""

import os
from collections.abc import Mapping
from typing import Final

from deltawheel.contracts.addresses import is_loopback
from deltawheel.contracts.errors import ConfigError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.settings import (
    BrokerSettings,
    GatewaySettings,
    Settings,
)
from deltawheel.contracts.settings.models import ModelSettings

__all__ = [
    "BROKER_KEY_PASSWORD_VARIABLE",
    "BROKER_PASSWORD_VARIABLE",
    "TOKEN_VARIABLE",
    "broker_key_password",
    "broker_password",
    "endpoint_key",
    "endpoint_keys",
    "gateway_token",
    "member_key",
    "require_judge_keys",
]

TOKEN_VARIABLE: Final = "DELTAWHEEL_GATEWAY_TOKEN"
BROKER_PASSWORD_VARIABLE: Final = "DELTAWHEEL_BROKER_PASSWORD"
BROKER_KEY_PASSWORD_VARIABLE: Final = "DELTAWHEEL_BROKER_KEY_PASSWORD"


def gateway_token(settings: GatewaySettings) -> str | None:
    """Return the token, which is required as soon as others than this machine can connect.

    Raises:
        ConfigError: the address is not loopback and no token is set.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(settings.host):
        raise ConfigError(
            f"gateway.host is {settings.host}, which others can reach: set {TOKEN_VARIABLE}, "
            "or gateway.host: 127.0.0.1"
        )
    return token


def broker_password(settings: BrokerSettings) -> str | None:
    """Return the password of `broker.security.username`; None where the broker asks for none.

    Raises:
        ConfigError: it asks for one and none is set.
    """
    security = settings.security
    if not security.protocol.has_sasl:
        return None
    password = os.environ.get(BROKER_PASSWORD_VARIABLE) or None
    if password is None:
        raise ConfigError(
            f"broker.security.protocol is {security.protocol}, but the environment variable "
            f"{BROKER_PASSWORD_VARIABLE} is not set; set it to the password of user "
            f"{security.username!r}"
        )
    return password


def broker_key_password() -> str | None:
    """Return what decrypts the key of our certificate for the broker, if it is encrypted."""
    return os.environ.get(BROKER_KEY_PASSWORD_VARIABLE) or None


def endpoint_key(model: ModelSettings, *, owner: str) -> str | None:
    """Return the key of a model's endpoint; None where the settings name no variable with one.

    Raises:
        ConfigError: the variable is not set; the message names it and the `owner`'s setting.
    """
    if model.endpoint is None or model.api_key_env is None:
        return None
    key = os.environ.get(model.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"{owner}.api_key_env: the environment variable {model.api_key_env} is not set; set it "
            "to the key of the endpoint, or remove api_key_env"
        )
    return key


def endpoint_keys(settings: Settings) -> Mapping[tuple[str, str], str]:
    """Return the keys of generators by name and base URL, for those that name a variable.

    Raises:
        ConfigError: variables are not set; one line for each names it and the generator's key.
    """
    declared = {f"generators.{generator.name}": generator for generator in settings.generators}
    keys = _keys_of(declared)
    return {
        (declared[owner].name, base): key
        for owner, key in keys.items()
        for base in (declared[owner].endpoint or "", *declared[owner].replicas)
    }


def _keys_of(models: Mapping[str, ModelSettings]) -> dict[str, str]:
    """Return the keys of models by where the settings name them; all faults in one error."""
    keys: dict[str, str] = {}
    faults: list[str] = []
    for owner, model in models.items():
        try:
            key = endpoint_key(model, owner=owner)
        except ConfigError as error:
            faults.append(str(error))
        else:
            if key is not None:
                keys[owner] = key
    if faults:
        raise ConfigError("\n".join(faults))
    return keys


def member_key(generator: Generator) -> str | None:
    """Return the key of a member that was added while the wheel ran, if it names a variable.

    Raises:
        RetryLaterError: in this process it holds none that can be sent, which costs no prompt.
    """
    if generator.api_key_env is None:
        return None
    key = os.environ.get(generator.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise RetryLaterError(
            f"{generator.name}: the environment variable {generator.api_key_env} holds no key that "
            "can be sent; set it to one line of printable ASCII and start the wheel again"
        )
    return key


def require_judge_keys(settings: Settings) -> None:
    """Make sure that there is a key for every judge that needs one.

    Raises:
        ConfigError: variables are not set; one line for each, as `endpoint_keys` has them.
    """
    _keys_of(settings.judge.models)
