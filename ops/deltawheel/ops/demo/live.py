"""What the demo shows while it runs: one line that is rewritten, or lines in a log."""

import sys
from dataclasses import dataclass, field

import click

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.cycle import Cycle, StepState
from deltawheel.contracts.store import Progress
from deltawheel.ops.console import plain

__all__ = ["Live"]

_LOG_EVERY_S = 10.0


@dataclass(slots=True, kw_only=True)
class Live:
    """Shows progress on a terminal as one line, elsewhere as a line now and then."""

    clock: Clock
    is_terminal: bool = field(default_factory=sys.stderr.isatty)
    _started_s: float = field(init=False)
    _logged_s: float = field(default=float("-inf"), init=False)
    _last: tuple[float, int] | None = field(default=None, init=False)
    _rate: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._started_s = self.clock.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return self.clock.monotonic() - self._started_s

    def phase(self, text: str) -> None:
        """Say that something begins."""
        self._clear()
        click.echo(f"[{self.elapsed_s:5.0f} s] {plain(text)}", err=True)
        self._logged_s = float("-inf")

    def stream(self, progress: Progress) -> None:
        """Show how far the prompts are, and how fast generators write."""
        now_s = self.clock.monotonic()
        if self._last is None or now_s - self._last[0] >= 2.0:
            if self._last is not None:
                past_s, tokens = self._last
                self._rate = (progress.completion_tokens - tokens) / (now_s - past_s)
            self._last = (now_s, progress.completion_tokens)
        self._show(
            f"{progress.prompts} prompts → {progress.traces} traces → "
            f"{progress.judgements} judgements → {progress.pairs} pairs   "
            f"{progress.closed}/{progress.prompts} closed   {self._rate:.0f} tokens/s"
        )

    def cycle(self, cycle: Cycle) -> None:
        """Show the step that runs and its seconds."""
        now = self.clock.now()
        for step in cycle.steps:
            if step.state is StepState.RUNNING and step.started_at:
                seconds = (now - step.started_at).total_seconds()
                self._show(f"cycle: {step.name.value} {seconds:.0f} s")

    def _show(self, text: str) -> None:
        if self.is_terminal:
            self._clear()
            click.echo(f"[{self.elapsed_s:5.0f} s] {text}", nl=False, err=True)
        elif self.clock.monotonic() - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = self.clock.monotonic()
            click.echo(f"[{self.elapsed_s:5.0f} s] {text}", err=True)

    def _clear(self) -> None:
        if self.is_terminal:
            click.echo("\r\x1b[2K", nl=False, err=True)
