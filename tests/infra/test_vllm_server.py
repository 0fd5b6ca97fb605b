"""How vLLM would be started; that it then answers is tested with the wheel."""

import asyncio
import sys
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import ServerSettings
from deltawheel.infra.sandbox.paths import base_path
from deltawheel.infra.stub_model_server import StubModelServer
from deltawheel.infra.vllm_server import (
    MODULE,
    base_folder,
    is_healthy,
    make_command,
    require_vllm,
)

FLAGS = ["--enable-lora", "--enforce-eager", "--disable-uvicorn-access-log"]


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name, for machines that lack the real one."""
    (tmp_path / "packages" / "vllm").mkdir(parents=True)
    (tmp_path / "packages" / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "packages")


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


def a_base(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def options(argv: tuple[str, ...]) -> dict[str, str]:
    """The options with values, which stand before the flags."""
    paired = argv[4 : argv.index(FLAGS[0])]
    return dict(zip(paired[::2], paired[1::2], strict=True))


@pytest.mark.usefixtures("vllm")
def test_every_setting_of_a_server_is_on_its_command_line(tmp_path: Path) -> None:
    server = ServerSettings(
        name="big",
        base=str(a_base(tmp_path / "base")),
        served_name="big-base",
        host="127.0.0.2",
        port=8123,
        dtype="bfloat16",
        max_model_len=4096,
        max_num_seqs=64,
        max_lora_rank=32,
        max_loras=3,
        extra_args=("--gpu-memory-utilization", "0.8", "--seed", "1"),
    )
    argv = make_command(server, environment={}).argv
    assert argv[:4] == (sys.executable, "-P", "-m", MODULE)
    assert options(argv) == {
        "--model": str(tmp_path / "base"),
        "--served-model-name": "big-base",
        "--host": "127.0.0.2",
        "--port": "8123",
        "--dtype": "bfloat16",
        "--max-model-len": "4096",
        "--max-num-seqs": "64",
        "--max-lora-rank": "32",
        "--max-loras": "3",
    }
    assert [*argv[argv.index(FLAGS[0]) :]] == [*FLAGS, *server.extra_args]


@pytest.mark.usefixtures("vllm")
def test_arguments_of_the_operator_come_last_and_so_win() -> None:
    server = ServerSettings(port=8123, extra_args=("--max-model-len", "64"))
    assert make_command(server, environment={}).argv[-2:] == ("--max-model-len", "64")


@pytest.mark.usefixtures("vllm")
def test_the_environment_says_what_the_command_line_cannot() -> None:
    environment = make_command(
        ServerSettings(port=8123, kv_cache_gb=3), environment={"PATH": "/bin"}
    ).env
    assert environment["PATH"] == "/bin"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"


@pytest.mark.usefixtures("vllm")
def test_what_a_server_needs_stands_above_what_it_inherits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ServerSettings(port=8123)
    inherited = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "False", "VLLM_CPU_KVCACHE_SPACE": "99"}
    given = make_command(server, environment=inherited).env
    for name, value in inherited.items():
        assert given[name] != value
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OF_THIS_TEST", "inherited")
    own = make_command(server).env
    assert own["OF_THIS_TEST"] == "inherited"
    assert {name: own[name] for name in inherited} == {name: given[name] for name in inherited}
    assert "OF_THIS_TEST" not in given


@pytest.mark.usefixtures("vllm")
def test_a_port_that_was_not_chosen_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"servers\.local\.port: 0 has to be resolved"):
        make_command(ServerSettings())


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("content", [None, "model.safetensors"])
def test_a_base_without_config_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "base"
    if content is not None:
        folder.mkdir()
        (folder / content).touch()
    server = ServerSettings(name="big", base=str(folder), port=8123)
    with pytest.raises(ConfigError, match=r"servers\.big\.base: no model in .*config\.json"):
        make_command(server)


def test_the_sandboxs_base_is_the_one_that_ships() -> None:
    assert base_folder(ServerSettings()) == base_path().resolve()


def test_a_base_may_be_declared_from_home_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_base(tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("models/base", "~/models/base"):
        assert base_folder(ServerSettings(base=path)) == tmp_path / "models" / "base"


@pytest.mark.usefixtures("no_vllm")
def test_a_machine_without_vllm_is_told_what_to_do() -> None:
    for start in (require_vllm, lambda: make_command(ServerSettings(port=8123))):
        with pytest.raises(ConfigError, match=r"vLLM is not installed.*make setup.*servers: "):
            start()


@pytest.mark.usefixtures("vllm")
def test_vllm_is_looked_for_without_being_imported() -> None:
    before = "vllm" in sys.modules
    require_vllm()
    assert ("vllm" in sys.modules) is before


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_server_is_healthy_while_it_answers(host: str) -> None:
    async with StubModelServer({}).running(host=host) as url:
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        server = ServerSettings(host=host, port=port)
        assert server.url == url
        assert await asyncio.to_thread(is_healthy, server)
    assert not is_healthy(server)
