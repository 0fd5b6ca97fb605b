"""A rebalance storm: further members of the consumer groups come, and are killed, again and again.

They are the services as anybody would run more of them: with settings that name broker and store
by their addresses, and a home of their own for the files that they write.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.local_postgres import store_url
from deltawheel.infra.processes import GuardedProcess, spawn_guarded
from deltawheel.infra.settings_file import save_settings
from deltawheel.ops.supervisor.plan import service_environment

__all__ = ["MemberStorm"]

_SERVICES: Final = ("generation", "judging", "curation", "monitoring")
_AT_ONCE: Final = 2
_SHORTEST_LIFE_S: Final = 1.0
_LONGEST_LIFE_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class _Member:
    process: GuardedProcess
    dies_at_s: float


class MemberStorm:
    """Keeps two short-lived members running until so many have lived.

    Args:
        settings: The wheel's, with the ports of the run that is on.
        num_members: How many come and go.
        clock: Time.
        random: Which service, and how long each lives.
    """

    def __init__(
        self, settings: Settings, *, num_members: int, clock: Clock, random: Random
    ) -> None:
        self._home = settings.home / "extra"
        self._settings_file = self._home / "settings.yaml"
        self._log_file = settings.home / "members.log"
        self._num_left = num_members
        self._clock = clock
        self._random = random
        self._members: list[_Member] = []
        save_settings(_for_members(settings, self._home), self._settings_file)

    @property
    def is_over(self) -> bool:
        """Whether all of them have come and gone."""
        return not self._num_left and not self._members

    def tick(self) -> None:
        """Kill whose time has come, start others."""
        now_s = self._clock.monotonic()
        for member in [one for one in self._members if one.dies_at_s <= now_s]:
            member.process.kill()
            self._members.remove(member)
        while self._num_left and len(self._members) < _AT_ONCE:
            self._num_left -= 1
            self._members.append(self._start(now_s))

    def stop(self) -> None:
        """Kill those that run."""
        self._num_left = 0
        for member in self._members:
            member.process.kill()
        self._members.clear()

    def _start(self, now_s: float) -> _Member:
        module = f"deltawheel.services.{self._random.choice(_SERVICES)}"
        argv = [sys.executable, "-P", "-m", module, "--settings", str(self._settings_file)]
        life_s = _SHORTEST_LIFE_S + (_LONGEST_LIFE_S - _SHORTEST_LIFE_S) * self._random.random()
        process = spawn_guarded(argv, env=service_environment(), log_file=self._log_file)
        return _Member(process, now_s + life_s)


def _for_members(settings: Settings, home: Path) -> Settings:
    broker = {"kind": "kafka", "bootstrap": wiring.bootstrap_address(settings)}
    content = settings.model_dump(mode="json")
    content["broker"] |= broker
    content["store"] = {"url": store_url(settings)}
    return Settings(**{**content, "home": home})
