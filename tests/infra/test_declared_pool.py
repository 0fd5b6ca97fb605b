import os
import re
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.generator import Generator, Sampling
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.settings import (
    SCORED_BY,
    GeneratorSettings,
    JudgeKind,
    ServerSettings,
    Settings,
)
from deltawheel.contracts.settings.values import SANDBOX_GENERATORS, SANDBOX_SUITES
from deltawheel.infra.declared_pool import (
    adapter_folder,
    added_generator,
    declared_generators,
    read_member,
    settings_doubts,
    unpinned_models,
)
from deltawheel.infra.sandbox.grammar import SUITES
from deltawheel.infra.sandbox.paths import GENERATORS, base_path, generator_path
from deltawheel.infra.sandbox.verifier import DIMENSIONS

ADAPTER = "adapter_model.safetensors"


def an_adapter(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER).write_bytes(weights)
    return folder


def declared(**generator: object) -> Generator:
    """Declare one generator, beside another without which there is no pool."""
    one = GeneratorSettings.model_validate({"name": "one", "server": "local", **generator})
    other = GeneratorSettings(name="other", server="local")
    servers = (ServerSettings(), ServerSettings(name="big", served_name="big-base"))
    settings = Settings(servers=servers, generators=(one, other))
    return declared_generators(settings)[0]


def test_the_sandboxs_pool_is_its_three_adapters_by_their_digests() -> None:
    members = declared_generators(Settings())
    assert [member.name for member in members] == list(GENERATORS)
    for member in members:
        weights = (generator_path(member.name) / ADAPTER).read_bytes()
        assert member.revision == digest_of(weights)
        assert member.adapter_path == str(generator_path(member.name))
        assert member.endpoint == "server:local"
    assert len({member.model for member in members}) == 3


def test_a_changed_adapter_is_another_revision_under_another_model_name(tmp_path: Path) -> None:
    adapter = str(an_adapter(tmp_path / "a"))
    before = declared(adapter=adapter)
    assert declared(adapter=adapter) == before
    an_adapter(tmp_path / "a", b"other weights")
    after = declared(adapter=adapter)
    assert after.revision == digest_of(b"other weights") != before.revision
    assert after.model == f"one-{after.revision.removeprefix('sha256:')[:12]}" != before.model
    assert after.adapter_path == before.adapter_path == adapter


def test_one_adapter_under_two_names_has_two_model_names(tmp_path: Path) -> None:
    adapter = str(an_adapter(tmp_path / "a"))
    one, same = declared(adapter=adapter), declared(adapter=adapter, name="same")
    assert one.revision == same.revision
    assert one.model != same.model


def test_a_declared_revision_of_an_adapter_does_not_hide_its_weights(tmp_path: Path) -> None:
    member = declared(adapter=str(an_adapter(tmp_path / "a")), revision="mine")
    assert member.revision == digest_of(b"weights")


def test_a_servers_base_is_a_member_under_the_name_it_is_served_by() -> None:
    member = declared(server="big")
    assert (member.endpoint, member.model) == ("server:big", "big-base")
    assert member.adapter_path is None
    assert declared(server="big", model="alias").model == "alias"


def a_base(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name, weights in files.items():
        (folder / f"{name}.safetensors").write_bytes(weights)
    return folder


def members_on(base: Path, *generators: dict[str, object]) -> list[Generator]:
    """Declare members on a server with that base."""
    settings = Settings(
        servers=({"base": str(base)},),
        training={"is_enabled": False},
        generators=[{"server": "local", **generator} for generator in generators],
    )
    return declared_generators(settings)


def test_the_revision_of_a_servers_base_is_the_digest_of_its_weights(tmp_path: Path) -> None:
    base = a_base(tmp_path / "base", model=b"weights")
    one, other = members_on(base, {"name": "one", "revision": "mine"}, {"name": "other"})
    assert one.revision == other.revision == digest_of(b"weights")
    assert declared(server="big").revision == digest_of(
        (base_path() / "model.safetensors").read_bytes()
    )


def test_weights_in_several_files_count_in_the_order_of_their_names(tmp_path: Path) -> None:
    base = a_base(tmp_path / "base", **{"model-2": b"second", "model-1": b"first"})
    one, _ = members_on(base, {"name": "one"}, {"name": "other"})
    assert one.revision == digest_of(b"firstsecond")


def test_a_base_that_several_members_have_is_read_once(tmp_path: Path) -> None:
    base = a_base(tmp_path / "base")
    pipe = base / "model.safetensors"
    os.mkfifo(pipe)
    # A pipe gives its content to the first reader; a second one would wait for ever.
    writer = threading.Thread(target=pipe.write_bytes, args=(b"weights",))
    writer.start()
    names: tuple[dict[str, object], ...] = ({"name": "a"}, {"name": "b"}, {"name": "c"})
    assert {member.revision for member in members_on(base, *names)} == {digest_of(b"weights")}
    writer.join()


def test_another_model_of_a_server_is_not_its_base(tmp_path: Path) -> None:
    base = a_base(tmp_path / "base", model=b"weights")
    merged = {"name": "merged", "model": "merged"}
    named, unnamed = members_on(base, {**merged, "revision": "r7"}, {**merged, "name": "other"})
    assert (named.revision, unnamed.revision) == ("r7", "unpinned:merged")


def test_a_base_without_safetensors_is_refused(tmp_path: Path) -> None:
    base = a_base(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"base: .*/base holds no \*\.safetensors"):
        members_on(base, {"name": "one"}, {"name": "other"})


def test_members_whose_weights_could_change_unnoticed_are_told(tmp_path: Path) -> None:
    where = {"endpoint": "http://host:8000/v1", "model": "m"}
    settings = Settings(
        generators=[
            {"name": "a", **where},
            {"name": "b", **where, "revision": "2026-05"},
            {"name": "c", "server": "local"},
            {"name": "d", "server": "local", "adapter": "sandbox:weak"},
            {"name": "e", "server": "local", "model": "merged"},
        ]
    )
    told = unpinned_models(settings)
    assert [sentence.split(":")[0] for sentence in told] == [
        "generators.a.revision",
        "generators.e.revision",
    ]
    assert "a change of 'm' at http://host:8000/v1 would go unnoticed" in told[0]
    assert unpinned_models(Settings()) == []


def test_families_that_nobody_has_given_are_told_where_a_model_judges() -> None:
    where = {"endpoint": "http://host:8000/v1", "model": "m", "revision": "1"}
    pool = [{"name": "a", **where, "family": "qwen"}, {"name": "b", **where}]
    judge = {"kind": "llm", "model": {"name": "grader", **where}}
    [told] = settings_doubts(Settings(generators=pool, judge=judge))
    assert told.startswith("judge.same_family: no family is given of generators.b, judge.model, so")
    assert settings_doubts(Settings(generators=pool)) == []


def test_member_of_a_judges_own_family_is_not_added_where_that_is_refused() -> None:
    where = {"endpoint": "http://host:8000/v1", "model": "m", "revision": "1", "family": "qwen"}
    judge = {"kind": "llm", "model": {"name": "grader", **where}, "same_family": "refuse"}
    member = read_member({"name": "a", **where})
    with pytest.raises(ConfigError, match=r"generators\.a\.family: a judge is of 'qwen' too"):
        added_generator(member, Settings(judge=judge))
    assert added_generator(member, Settings(judge={**judge, "same_family": "record"})).name == "a"


def test_a_model_of_an_endpoint_has_the_revision_that_the_settings_give_it() -> None:
    where = {"server": None, "endpoint": "http://host:8000/v1", "model": "m"}
    member = declared(**where, revision="2026-01")
    assert (member.endpoint, member.model) == ("http://host:8000/v1", "m")
    assert member.revision == "2026-01"
    assert declared(**where).revision == "unpinned:m"


def test_the_prior_and_the_sampling_are_the_declared_ones() -> None:
    sampling = Sampling(temperature=Decimal("0.3"), max_tokens=7)
    member = declared(capability=1.5, capability_stderr=0.25, sampling=sampling)
    assert (member.capability, member.capability_stderr) == (1.5, 0.25)
    assert member.sampling == sampling
    assert member.lineage_depth == 0


def test_an_adapter_path_is_absolute_wherever_it_was_declared_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_adapter(tmp_path / "models" / "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("models/a", "~/models/a", "models/../models/a"):
        assert adapter_folder(path, name="one") == tmp_path / "models" / "a"


@pytest.mark.parametrize("content", [None, "adapter_model.bin", f"deeper/{ADAPTER}"])
def test_a_folder_without_safetensors_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "a"
    if content is not None:
        an_adapter((folder / content).parent)
        ((folder / content).parent / ADAPTER).rename(folder / content)
    expected = f"generators.one.adapter: {str(folder)!r} holds no {ADAPTER}"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        declared(adapter=str(folder))


@pytest.mark.parametrize("name", ["stong", "", "../base", "base"])
def test_an_adapter_that_does_not_ship_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(ConfigError, match=r"generators\.one\.adapter: .*strong, .*mid.* .*weak"):
        adapter_folder(f"sandbox:{name}", name="one")


def test_what_settings_accept_of_the_sandbox_is_what_ships() -> None:
    assert SANDBOX_GENERATORS == GENERATORS
    assert set(SANDBOX_SUITES) == set(SUITES)
    assert SCORED_BY[JudgeKind.SANDBOX].keys() == DIMENSIONS.keys()
