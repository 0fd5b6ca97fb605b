"""Filling a store and auditing it, with a clock beside."""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from deltawheel.contracts.errors import DeltawheelError
from deltawheel.infra import wiring
from deltawheel.ops.bench.audit.filling import fill

__all__ = ["measure"]

_WHEEL: Final = "bench"
_REPORTED_EVERY_S: Final = 10.0


def measure(
    home: Path, *, url: str | None, num_prompts: int, repeat: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Return seconds and the audit's peak memory, in MB.

    Raises:
        DeltawheelError: the store holds prompts already, or the audit does not run.
    """
    clock = wiring.system_clock()
    config = home / "deltawheel.yaml"
    home.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"wheel": _WHEEL, "home": str(home)}
    config.write_text(yaml.safe_dump(content | ({"store": {"url": url}} if url else {})))
    began_s = clock.monotonic()
    _fill(config, num_prompts, progress)
    fill_s = clock.monotonic() - began_s
    seconds: list[float] = []
    audit: dict[str, Any] = {}
    for _ in range(repeat):
        began_s = clock.monotonic()
        audit = _audit(config)
        seconds.append(round(clock.monotonic() - began_s, 2))
        progress(f"audited {audit['prompts']} prompts in {seconds[-1]:.1f} s")
    return {
        "prompts": audit["prompts"],
        "fill_s": round(fill_s, 1),
        "audit_s": seconds,
        "audit_median_s": statistics.median(seconds),
        "audit_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "is_clean": audit["is_clean"],
    }


def _fill(config: Path, num_prompts: int, progress: Callable[[str], None]) -> None:
    clock = wiring.system_clock()
    began_s = said_s = clock.monotonic()
    settings = wiring.load_settings(config)
    store = wiring.open_store(settings)
    held = store.progress().prompts
    store.close()
    if held:
        raise DeltawheelError(
            f"{settings.store_url} holds {held} prompts of the wheel {_WHEEL}: name an empty one"
        )

    def say(written: int) -> None:
        nonlocal said_s
        now_s = clock.monotonic()
        if now_s - said_s >= _REPORTED_EVERY_S:
            said_s = now_s
            progress(f"[{now_s - began_s:6.0f} s] {written} of {num_prompts} prompts written")

    with wiring.changing_schema(settings, must_exist=True) as database:
        fill(database, wheel=_WHEEL, num_prompts=num_prompts, progress=say)


def _audit(config: Path) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).with_name("deltawheel"), "--config", config, "audit", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        audit: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise DeltawheelError(f"deltawheel audit ended with {done.returncode}") from error
    return audit
