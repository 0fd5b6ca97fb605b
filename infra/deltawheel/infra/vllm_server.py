"""How one vLLM server is started, and when it is ready.

The same arguments serve the CPU build and the ordinary one; what only the CPU build reads is in the
environment. Source: `vllm serve --help` and vllm/envs.py of 0.32.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import ServerSettings
from deltawheel.infra.listening import answers_200
from deltawheel.infra.processes import Command
from deltawheel.infra.sandbox import paths

__all__ = ["base_folder", "is_healthy", "make_command", "require_vllm"]

MODULE: Final = "vllm.entrypoints.openai.api_server"
ENVIRONMENT: Final[Mapping[str, str]] = {
    # A hot-loaded adapter is how a promoted model starts to answer.
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Weights come from a folder; a missing file is an error and never a download.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


def require_vllm() -> None:
    """Make sure that vLLM is installed, without importing it (which takes seconds).

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "servers: vLLM is not installed in this environment; run `make setup`, or set "
            "`servers: []` and give every generator an `endpoint`"
        )


def base_folder(server: ServerSettings) -> Path:
    """Return the folder of a server's base model.

    Raises:
        ConfigError: there is no model in it.
    """
    return paths.model_folder(server.base, key=f"servers.{server.name}.base")


def make_command(
    server: ServerSettings, *, environment: Mapping[str, str] | None = None
) -> Command:
    """Return the command of one server; `environment` is what it inherits, ours if unset.

    Raises:
        ConfigError: vLLM or the base model is missing, or the port has not been chosen yet.
    """
    require_vllm()
    if server.port == 0:
        raise ConfigError(f"servers.{server.name}.port: 0 has to be resolved to a free port first")
    options: dict[str, object] = {
        "--model": base_folder(server),
        "--served-model-name": server.served_name,
        "--host": server.host,
        "--port": server.port,
        "--dtype": server.dtype,
        "--max-model-len": server.max_model_len,
        "--max-num-seqs": server.max_num_seqs,
        "--max-lora-rank": server.max_lora_rank,
        "--max-loras": server.max_loras,
    }
    # Compilation takes longer than a small model saves by it; access logs are a line per request.
    flags = ("--enable-lora", "--enforce-eager", "--disable-uvicorn-access-log")
    values = (text for pair in options.items() for text in map(str, pair))
    inherited = os.environ if environment is None else environment
    return Command(
        argv=(sys.executable, "-P", "-m", MODULE, *values, *flags, *server.extra_args),
        env={
            **inherited,
            **ENVIRONMENT,
            "VLLM_CPU_KVCACHE_SPACE": str(server.kv_cache_gb),
        },
    )


def is_healthy(server: ServerSettings) -> bool:
    """Whether the server has loaded its base and its engine lives (GET /health)."""
    return answers_200(f"{server.origin}/health")
