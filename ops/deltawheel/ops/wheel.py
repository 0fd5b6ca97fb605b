"""One wheel on this machine: its state claimed, its ports fixed, its processes supervised."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from deltawheel.contracts.clock import Clock
from deltawheel.contracts.errors import ExitCode, RetryLaterError
from deltawheel.contracts.pool import declaration_events
from deltawheel.contracts.settings import BrokerKind, Settings
from deltawheel.contracts.store import Store
from deltawheel.infra import wiring
from deltawheel.infra.declared_pool import declared_generators, settings_doubts
from deltawheel.ops.preflight import require_secrets
from deltawheel.ops.supervisor.database import StateBoard, own_database
from deltawheel.ops.supervisor.plan import (
    ProcessPlan,
    log_folder,
    make_plans,
    plan_broker,
    run_folder,
)
from deltawheel.ops.supervisor.ports import resolve_ports, write_settings
from deltawheel.ops.supervisor.runfile import RunFile
from deltawheel.ops.supervisor.signals import stop_on_signals
from deltawheel.ops.supervisor.supervisor import Supervisor
from deltawheel.services.curation.owed import republish_all

__all__ = ["Cast", "RunningWheel", "run_until_stopped", "running_wheel"]

READY_TIMEOUT_S: Final = 600.0
STORE_TIMEOUT_S: Final = 20.0
_STORE_RETRY_S: Final = 0.5

T = TypeVar("T")

Say = Callable[[str], None]
Cast = Callable[[Sequence[ProcessPlan]], Sequence[ProcessPlan]]
"""Says which processes a wheel runs in place of the usual ones."""


def _whole_cast(plans: Sequence[ProcessPlan]) -> Sequence[ProcessPlan]:
    return plans


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWheel:
    """What commands that start a wheel work with."""

    settings: Settings
    store: Store
    supervisor: Supervisor
    clock: Clock
    stop: threading.Event

    @property
    def gateway_url(self) -> str:
        """Where prompts go in."""
        return self.settings.gateway.url


@contextmanager
def running_wheel(
    settings: Settings, *, say: Say, cast: Cast = _whole_cast
) -> Iterator[RunningWheel]:
    """Start a wheel's supervisor; whatever happens inside, every process has ended afterwards.

    What an earlier run left is reaped first, and the pool is compared with the settings. The
    processes begin when the caller begins to tick the supervisor; benches `cast` others than usual.

    Raises:
        ConfigError: another wheel runs on this home, a port is in use, a setting is wrong, or a
            secret that one asks for is not in the environment.
    """
    require_secrets(settings)
    for sentence in settings_doubts(settings):
        say(f"warning: {sentence}")
    clock = wiring.system_clock()
    with ExitStack() as stack:
        run_file = RunFile(settings, clock)
        for sentence in run_file.claim():
            say(sentence)
        stack.callback(run_file.release)
        settings = resolve_ports(settings)
        settings_file = run_folder(settings) / "settings.yaml"
        write_settings(settings, settings_file)
        run_file.begin(settings)
        board = StateBoard(run_file.publish)
        stack.enter_context(own_database(settings, clock, publish=board.part("database"), say=say))
        store = _patiently(lambda: wiring.open_store(settings), clock)
        stack.callback(store.close)
        _patiently(lambda: declare_pool(settings, store, clock), clock)
        supervisor = Supervisor(
            cast(make_plans(settings, settings_file, broker=_broker_plan(settings))),
            settings=settings.supervisor,
            clock=clock,
            random=wiring.system_random(),
            prepare_broker=lambda: prepare_broker(settings, store, clock, say),
            publish=board.part("wheel"),
        )
        stop = stack.enter_context(stop_on_signals(supervisor.hurry))
        stack.enter_context(supervisor)
        yield RunningWheel(
            settings=settings, store=store, supervisor=supervisor, clock=clock, stop=stop
        )


def _patiently(ask_store: Callable[[], T], clock: Clock) -> T:
    """Ask the store, and again for a while: one of our own that has died is started again.

    Raises:
        RetryLaterError: it is away still.
    """
    deadline_s = clock.monotonic() + STORE_TIMEOUT_S
    while True:
        try:
            return ask_store()
        except RetryLaterError:
            if clock.monotonic() >= deadline_s:
                raise
        clock.wait(_STORE_RETRY_S)


def declare_pool(settings: Settings, store: Store, clock: Clock) -> None:
    """Append to the pool's log what the settings declare differently than the last time.

    Raises:
        ConfigError: an adapter that the settings name does not exist.
    """
    declared = declared_generators(settings)
    store.add_pool_events(declaration_events(store.pool_log(), declared, at=clock.now()))


def prepare_broker(settings: Settings, store: Store, clock: Clock, say: Say) -> None:
    """Make the topics and publish everything that is owed, while no service runs.

    Only a broker that forgets needs the latter; on one that keeps its log, curation's own
    republishing does the same a little later.
    """
    wiring.make_topics(settings)
    if settings.broker.kind is not BrokerKind.EMBEDDED:
        return
    producer = wiring.open_producer(settings)
    try:
        count = republish_all(store, producer, clock, wheel=settings.wheel)
    finally:
        producer.close()
    if count:
        say(f"published {count} owed events again, from the store")


def _broker_plan(settings: Settings) -> ProcessPlan | None:
    if settings.broker.kind is BrokerKind.KAFKA:
        return None
    return plan_broker(
        settings,
        make_command=lambda: wiring.broker_command(settings),
        is_ready=lambda: wiring.broker_is_ready(settings),
    )


def run_until_stopped(settings: Settings, *, say: Say) -> int:
    """Run a wheel in the foreground until SIGINT or SIGTERM; return the exit code."""
    with running_wheel(settings, say=say) as wheel:
        say(f"starting; logs in {log_folder(wheel.settings)}")
        supervisor = wheel.supervisor
        if supervisor.wait_ready(READY_TIMEOUT_S, should_stop=wheel.stop.is_set):
            say(f"ready: prompts go to {wheel.gateway_url}/v1/prompts; Ctrl-C stops the wheel")
            supervisor.run_until(wheel.stop.is_set)
        say("stopping in order")
    say("stopped")
    return ExitCode.DONE
