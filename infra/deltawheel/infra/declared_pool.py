"""From the settings' `generators:` to records with exact revisions."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.settings import (
    GeneratorSettings,
    ServerSettings,
    Settings,
)
from deltawheel.contracts.settings.models import ModelSettings
from deltawheel.contracts.settings.values import SANDBOX_PREFIX
from deltawheel.infra.adapter_loading import ADAPTER_FILE
from deltawheel.infra.settings_faults import section_faults
from deltawheel.infra.vllm_server import base_folder

__all__ = [
    "adapter_folder",
    "added_generator",
    "declared_generators",
    "is_unpinned",
    "read_member",
    "served_model",
    "settings_doubts",
    "unpinned_models",
]


def declared_generators(settings: Settings) -> list[Generator]:
    """Return the members that the settings declare.

    The revision of what our own servers serve is the digest of its weights, so a changed file is
    a new revision. A model behind somebody else's endpoint has the revision that the settings give
    it. Each base is read once however many members have it: it may be gigabytes.

    Raises:
        ConfigError: an adapter folder does not exist or holds no safetensors, or a base folder
            holds no model.
    """
    digest_of_base = cache(_weights_digest)
    return [_declared(one, settings, digest_of_base) for one in settings.generators]


def read_member(content: Mapping[str, object]) -> GeneratorSettings:
    """Read a member that is to be added, as `generators:` of the settings holds one.

    Raises:
        ConfigError: names every wrong key, one to a line, with what would be valid.
    """
    try:
        return GeneratorSettings.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(section_faults(error, GeneratorSettings))) from None


def added_generator(member: GeneratorSettings, settings: Settings) -> Generator:
    """Return a member that joins while the wheel runs, at its exact revision, worked out as above.

    It carries the name of the variable with its key, for the settings do not know it.

    Raises:
        ConfigError: its server is none of the settings', its family may not be judged, or as
            above.
    """
    servers = [server.name for server in settings.servers]
    if member.server not in {None, *servers}:
        raise ConfigError(
            f"generators.{member.name}.server: unknown server {member.server!r}; servers are "
            f"{servers}"
        )
    if settings.judge.refuses(member.family):
        raise ConfigError(
            f"generators.{member.name}.family: a judge is of {member.family!r} too; judge by "
            "another family, or set judge.same_family: record"
        )
    declared = _declared(member, settings, _weights_digest)
    return declared.model_copy(update={"api_key_env": member.api_key_env})


def is_unpinned(generator: Generator) -> bool:
    """Whether its weights could change without anybody noticing."""
    return generator.revision == _unpinned(generator.model)


def unpinned_models(settings: Settings) -> list[str]:
    """Return a sentence for each model whose weights could change without anybody noticing."""
    servers = {server.name: server for server in settings.servers}
    named: dict[str, ModelSettings] = {
        f"generators.{one.name}": one for one in settings.generators if one.adapter is None
    }
    named |= settings.judge.models
    return [
        f"{key}.revision: none is given, so a change of {one.model!r} at "
        f"{one.server or one.endpoint} would go unnoticed; give its exact revision"
        for key, one in named.items()
        if not (one.revision or _is_base(one, servers))
    ]


def settings_doubts(settings: Settings) -> list[str]:
    """Return a sentence for each thing that may be as wanted, but cannot be vouched for."""
    return [*unpinned_models(settings), *_unknown_families(settings)]


def _unknown_families(settings: Settings) -> Iterator[str]:
    judges = settings.judge.models
    named: dict[str, ModelSettings] = {f"generators.{it.name}": it for it in settings.generators}
    unknown = [key for key, model in {**named, **judges}.items() if model.family is None]
    if judges and unknown:
        yield (
            f"judge.same_family: no family is given of {', '.join(unknown)}, so whether a judge is "
            "of a generator's own family is not known; give each its 'family'"
        )


def adapter_folder(declared: str, *, name: str) -> Path:
    """Return the folder of a declared adapter; `sandbox:<name>` means one that ships.

    Raises:
        ConfigError: there is no adapter in it.
    """
    if declared.startswith(SANDBOX_PREFIX):
        from deltawheel.infra.sandbox.paths import generator_path

        try:
            folder = generator_path(declared.removeprefix(SANDBOX_PREFIX))
        except ValueError as error:
            raise ConfigError(f"generators.{name}.adapter: {error}") from error
    else:
        folder = Path(declared).expanduser().resolve()
    if not (folder / ADAPTER_FILE).is_file():
        raise ConfigError(
            f"generators.{name}.adapter: {declared!r} holds no {ADAPTER_FILE}; give the folder of "
            "a LoRA adapter saved as safetensors, or sandbox:strong, sandbox:mid or sandbox:weak"
        )
    return folder


def served_model(
    declared: ModelSettings,
    settings: Settings,
    *,
    digest_of_base: Callable[[Path], str] | None = None,
) -> tuple[str, str, str]:
    """Return endpoint, model name and revision of a declared model that is no adapter.

    Raises:
        ConfigError: the base's folder holds no model.
    """
    servers = {server.name: server for server in settings.servers}
    if declared.server is None:
        model = declared.model or ""
        return declared.endpoint or "", model, declared.revision or _unpinned(model)
    server = servers[declared.server]
    model = declared.model or server.served_name
    revision = declared.revision or _unpinned(model)
    if _is_base(declared, servers):
        revision = (digest_of_base or _weights_digest)(base_folder(server))
    return f"server:{server.name}", model, revision


def _unpinned(model: str) -> str:
    return f"unpinned:{model}"


def _declared(
    declared: GeneratorSettings, settings: Settings, digest_of_base: Callable[[Path], str]
) -> Generator:
    folder = None
    if declared.adapter is None:
        endpoint, model, revision = served_model(declared, settings, digest_of_base=digest_of_base)
    else:
        folder = adapter_folder(declared.adapter, name=declared.name)
        revision = digest_of((folder / ADAPTER_FILE).read_bytes())
        model = f"{declared.name}-{revision.removeprefix('sha256:')[:12]}"
        endpoint = f"server:{declared.server}" if declared.server else declared.endpoint or ""
    return Generator(
        name=declared.name,
        revision=revision,
        endpoint=endpoint,
        model=model,
        adapter_path=str(folder) if folder else None,
        capability=declared.capability,
        capability_stderr=declared.capability_stderr,
        weight=declared.weight,
        sampling=declared.sampling,
        replicas=declared.replicas,
        family=declared.family,
        size_b=declared.size_b,
        role=declared.role,
        prompt_price=declared.prompt_price,
        completion_price=declared.completion_price,
        domains=declared.domains,
        max_in_flight=declared.max_in_flight,
        max_tokens_per_day=declared.max_tokens_per_day,
    )


def _is_base(declared: ModelSettings, servers: Mapping[str, ServerSettings]) -> bool:
    """Whether a model that is no adapter is the base of one of our servers."""
    if declared.server is None:
        return False
    return declared.model in {None, servers[declared.server].served_name}


def _weights_digest(folder: Path) -> str:
    """Return the digest of all weights of a model, in the order of the files' names.

    Raises:
        ConfigError: there are none saved as safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"servers.*.base: {folder} holds no *.safetensors, the digest of which is the "
            "revision of a generator that is the base itself; give the folder of a model saved so"
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as weights:
            while block := weights.read(2**20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
