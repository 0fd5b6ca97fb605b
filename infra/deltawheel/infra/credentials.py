"""Secrets, which come from the environment only; no setting and no error text holds one."""

import os
from collections.abc import Mapping
from typing import Final

from deltawheel.contracts.addresses import is_loopback
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import GatewaySettings, Settings

__all__ = ["TOKEN_VARIABLE", "endpoint_keys", "gateway_token"]

TOKEN_VARIABLE: Final = "DELTAWHEEL_GATEWAY_TOKEN"


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


def endpoint_keys(settings: Settings) -> Mapping[tuple[str, str], str]:
    """Return the keys of generators by name and endpoint, for those that name a variable.

    Raises:
        ConfigError: a variable is not set; the message names it and the generator's key.
    """
    asked = {
        (generator.name, generator.endpoint): generator.api_key_env
        for generator in settings.generators
        if generator.endpoint and generator.api_key_env
    }
    keys = {owner: os.environ.get(variable, "").strip() for owner, variable in asked.items()}
    if missing := [owner for owner, key in keys.items() if not key]:
        raise ConfigError(
            "\n".join(
                f"generators.{name}.api_key_env: the environment variable {asked[name, endpoint]} "
                "is not set; set it to the key of the endpoint, or remove api_key_env"
                for name, endpoint in missing
            )
        )
    return keys
