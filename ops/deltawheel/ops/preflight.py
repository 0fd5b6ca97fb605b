"""What can be known to be wrong before a process starts: secrets, and files that settings name."""

from collections.abc import Callable, Iterator
from functools import partial

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import JudgeKind, Settings
from deltawheel.contracts.settings.values import SANDBOX_PREFIX
from deltawheel.infra import wiring
from deltawheel.infra.credentials import (
    broker_password,
    endpoint_keys,
    gateway_token,
    require_judge_keys,
)
from deltawheel.infra.declared_pool import adapter_folder
from deltawheel.infra.verifiers import open_verifier
from deltawheel.infra.vllm_server import base_folder
from deltawheel.pipelines.items import load_suites

__all__ = ["file_faults", "require_secrets"]

Check = Callable[[], object]


def require_secrets(settings: Settings) -> None:
    """Make sure that the environment holds every secret that the settings ask for.

    Raises:
        ConfigError: the gateway's token, the broker's password or an endpoint's key is missing;
            one line for each.
    """
    checks = (
        partial(gateway_token, settings.gateway),
        partial(broker_password, settings.broker),
        partial(endpoint_keys, settings),
        partial(require_judge_keys, settings),
    )
    if faults := [fault for check in checks for fault in _fault_of(check)]:
        raise ConfigError("\n".join(faults))


def file_faults(settings: Settings) -> list[str]:
    """Return a sentence for each folder or file that the settings name and that cannot be used."""
    return [fault for check in _file_checks(settings) for fault in _fault_of(check)]


def _file_checks(settings: Settings) -> Iterator[Check]:
    if settings.broker.security.protocol.has_tls:
        yield partial(wiring.check_certificates, settings)
    for server in settings.servers:
        yield partial(base_folder, server)
    for generator in settings.generators:
        if generator.adapter is not None:
            yield partial(adapter_folder, generator.adapter, name=generator.name)
    if settings.judge.kind is JudgeKind.LLM:
        yield partial(open_verifier, settings.judge)
    for suite in settings.evaluation.suites:
        if not suite.items.startswith(SANDBOX_PREFIX):
            alone = settings.evaluation.model_copy(update={"suites": (suite,)})
            yield partial(load_suites, alone, seed=0, random=wiring.system_random())


def _fault_of(check: Check) -> list[str]:
    try:
        check()
    except ConfigError as error:
        return [str(error)]
    return []
