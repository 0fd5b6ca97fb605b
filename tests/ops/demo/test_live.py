"""What the demo shows as it runs: at a terminal one line rewritten, in a log some lines."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from deltawheel.contracts.cycle import Cycle, StepName, StepState
from deltawheel.contracts.outcome import Outcome
from deltawheel.contracts.store import Progress
from deltawheel.ops.demo.live import Live
from tests.ops.terminals import CONTROL
from tests.records import T0, a_cycle, seconds

CLEAR = "\r\x1b[2K"


@dataclass
class HandClock:
    """The Clock port, moved by the test."""

    past_s: float = 1_000.0
    began_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.began_s = self.past_s

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.past_s - self.began_s)

    def monotonic(self) -> float:
        return self.past_s

    def wait(self, duration_s: float) -> None:
        self.past_s += duration_s

    async def sleep(self, duration_s: float) -> None:
        self.past_s += duration_s


@dataclass
class Screen:
    """What a live view has written since it was last looked at."""

    capsys: pytest.CaptureFixture[str]
    clock: HandClock

    @property
    def written(self) -> str:
        out, err = self.capsys.readouterr()
        assert out == "", "standard output belongs to the result"
        return err


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str], clock: HandClock) -> Screen:
    return Screen(capsys, clock)


def some_progress(closed: int = 3, *, tokens: int = 0) -> Progress:
    return Progress(
        prompts=10,
        assigned=10,
        traces=15,
        judgements=12,
        slot_failures=0,
        pairs=2,
        dead_letters=0,
        completion_tokens=tokens,
        outcomes={Outcome.PAIRED: 2, Outcome.UNPAIRED: closed - 2},
    )


def a_cycle_in(name: StepName) -> Cycle:
    cycle = a_cycle()
    running = {"state": StepState.RUNNING, "started_at": seconds(0)}
    steps = tuple(
        step.model_copy(update=running) if step.name is name else step for step in cycle.steps
    )
    return cycle.model_copy(update={"steps": steps})


def test_phase_is_told_with_the_seconds_since_the_beginning(
    clock: HandClock, screen: Screen
) -> None:
    live = Live(clock=clock, is_terminal=False)
    clock.wait(61.7)
    live.phase("one training cycle")
    assert screen.written == "[   62 s] one training cycle\n"
    assert live.elapsed_s == pytest.approx(61.7)


def test_log_gets_a_line_of_progress_every_ten_seconds(clock: HandClock, screen: Screen) -> None:
    live = Live(clock=clock, is_terminal=False)
    for _ in range(41):
        live.stream(some_progress())
        clock.wait(0.5)
    lines = screen.written.splitlines()
    assert [line[:9] for line in lines] == ["[    0 s]", "[   10 s]", "[   20 s]"]
    assert "10 prompts → 15 traces → 12 judgements → 2 pairs   3/10 closed   0 tokens/s" in lines[0]


def test_new_phase_is_followed_by_progress_at_once(clock: HandClock, screen: Screen) -> None:
    live = Live(clock=clock, is_terminal=False)
    live.stream(some_progress())
    live.phase("drain")
    live.stream(some_progress())
    assert len(screen.written.splitlines()) == 3


def test_log_holds_no_control_characters(clock: HandClock, screen: Screen) -> None:
    live = Live(clock=clock, is_terminal=False)
    live.phase("control \x1b[2J")
    live.stream(some_progress())
    live.cycle(a_cycle_in(StepName.TRAIN))
    written = screen.written
    assert CONTROL.search(written) is None
    assert r"control \x1b[2J" in written


def test_rate_is_of_the_last_two_seconds_and_not_of_the_whole_run(
    clock: HandClock, screen: Screen
) -> None:
    live = Live(clock=clock, is_terminal=False)
    for at_s, tokens in ((0, 0), (1, 999), (2, 2_000), (3, 2_500), (4, 2_500)):
        clock.past_s = clock.began_s + at_s
        live.phase("look")
        live.stream(some_progress(tokens=tokens))
    rates = [
        line.rsplit("closed", 1)[1].strip()
        for line in screen.written.splitlines()
        if "closed" in line
    ]
    assert rates == ["0 tokens/s", "0 tokens/s", "1000 tokens/s", "1000 tokens/s", "250 tokens/s"]


def test_terminal_has_one_line_that_is_rewritten(
    clock: HandClock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        "deltawheel.ops.demo.live.click.echo",
        lambda text, nl=True, err=False: said.append((text, nl)),
    )
    live = Live(clock=clock, is_terminal=True)
    live.stream(some_progress(3))
    live.stream(some_progress(4))
    live.phase("next")
    clears, lines = said[0::2], said[1::2]
    assert clears == [(CLEAR, False)] * 3
    assert [nl for _, nl in lines] == [False, False, True]
    assert "3/10 closed" in lines[0][0]
    assert "4/10 closed" in lines[1][0]
    assert lines[2][0] == "[    0 s] next"


def test_cycle_shows_the_step_that_runs_and_its_seconds(clock: HandClock, screen: Screen) -> None:
    live = Live(clock=clock, is_terminal=False)
    clock.wait(42)
    live.cycle(a_cycle_in(StepName.EVALUATE))
    assert screen.written == "[   42 s] cycle: evaluate 42 s\n"


def test_cycle_in_which_nothing_runs_shows_nothing(clock: HandClock, screen: Screen) -> None:
    Live(clock=clock, is_terminal=False).cycle(a_cycle())
    assert screen.written == ""
