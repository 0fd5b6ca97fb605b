"""The pool over HTTP: who is in it, and changing it while the wheel runs.

Whoever may send prompts may change the pool: one token guards both. A member that is added makes
the wheel connect to its endpoint, and has a server read the folder that its adapter names; so the
token is to be kept like a login to the machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Body, FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.errors import ConfigError, InvalidRecordError
from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.membership import PoolChange, history_of
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.settings import GeneratorSettings, Settings
from deltawheel.contracts.store import Store
from deltawheel.infra.declared_pool import added_generator, read_member

__all__ = ["KEY_PREFIX", "Members", "add_generators"]

KEY_PREFIX: Final = "DELTAWHEEL_KEY_"
"""Of the variables that a client may name: it must not have other secrets sent to its endpoint."""


class Asking(BaseModel):
    """Who asks for a change of the pool, and why; kept in the log."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(default="a client of the gateway", min_length=1, max_length=200)
    reason: str = Field(default="no reason given", min_length=1, max_length=1_000)


class Ending(Asking):
    """Asks for the end of a member."""

    is_forced: bool = Field(default=False, description="Even if fewer than two then stand.")


class Joining(Asking):
    """Asks for a new member; `member` has the keys of one of the settings' `generators:`."""

    member: dict[str, Any]
    is_replacing: bool = Field(default=False, description="It takes the place of its namesake.")


class MemberState(BaseModel):
    """A generator, in the pool or gone, and all that the log says of it."""

    generator: Generator
    is_member: bool
    came_by: PoolEventKind | None
    absent: str | None
    log: list[PoolEvent]


class LogPage(BaseModel):
    """A page of the pool's log, oldest first; pass `next` as `after` for the page behind it."""

    events: list[PoolEvent]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Reads the pool's log and appends to it."""

    settings: Settings
    store: Store
    clock: Clock
    random: Random

    def change(
        self, asking: Asking, make: Callable[[PoolChange, Sequence[PoolEvent]], PoolEvent]
    ) -> PoolEvent:
        """Append what is asked for, if the pool as it stands has a place for it.

        Raises:
            ChangeRefusedError: it has none.
        """
        change = PoolChange(
            by=asking.by, why=asking.reason, asking=self.random.token(), at=self.clock.now()
        )
        event = make(change, self.store.pool_log())
        self.store.add_pool_events([event])
        return event

    def read(self, content: dict[str, Any]) -> Generator:
        """Return the member that a client describes, at its exact revision.

        Raises:
            InvalidRecordError: a key is wrong; server or adapter cannot be found; or its key's
                variable is one that no client may have sent anywhere.
        """
        try:
            member = read_member(content)
            self._guard_key(member)
            return added_generator(member, self.settings)
        except ConfigError as error:
            raise InvalidRecordError(str(error)) from None

    def _guard_key(self, member: GeneratorSettings) -> None:
        """Refuse a variable that might hold any other secret of the wheel's processes."""
        variable = member.api_key_env
        if variable is None or variable.startswith(KEY_PREFIX):
            return
        known = {
            base
            for one in self.settings.generators
            if one.api_key_env == variable
            for base in (one.endpoint, *one.replicas)
        }
        if not known.issuperset((member.endpoint, *member.replicas)):
            raise ConfigError(
                f"api_key_env: over HTTP it must begin with {KEY_PREFIX}, or be what the settings "
                "name for the same endpoint and replicas; others are added with `deltawheel "
                "generators add`"
            )

    def state(self, name: str) -> MemberState:
        """Return what is known of a name.

        Raises:
            NoMemberError: nothing is.
        """
        log = self.store.pool_log()
        history, pool = history_of(log, name), Pool.from_log(log)
        return MemberState(
            generator=pool.members.get(name, history[-1].generator),
            is_member=name in pool.members,
            came_by=pool.came_by.get(name),
            absent=pool.absent.get(name),
            log=history,
        )


def add_generators(app: FastAPI, members: Members) -> None:
    """Add the routes; a member that is named `log` is shown by the list alone."""
    _add_views(app, members)
    _add_changes(app, members)


def _add_views(app: FastAPI, members: Members) -> None:
    @app.get("/v1/generators")
    def generators() -> list[Generator]:
        """Return the pool's members, most capable first."""
        return Pool.from_log(members.store.pool_log()).ranked()

    @app.get("/v1/generators/log")
    def log(
        after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=1_000)] = 100
    ) -> LogPage:
        """Return who came, went and left for a while, when and why, a page at a time."""
        events = members.store.pool_log()
        end = after + limit
        return LogPage(events=events[after:end], next=end if end < len(events) else None)

    @app.get("/v1/generators/{name}")
    def generator(name: str) -> MemberState:
        """Return one generator with its log."""
        return members.state(name)


def _add_changes(app: FastAPI, members: Members) -> None:
    @app.post("/v1/generators", status_code=HTTPStatus.CREATED)
    def join(asking: Joining) -> PoolEvent:
        """Take a model into the pool: on an endpoint, or an adapter of one of our servers.

        The wheel connects to the endpoint, and the server reads the adapter's folder.
        """
        generator = members.read(asking.member)
        return members.change(
            asking,
            lambda change, log: change.add(log, generator, is_replacing=asking.is_replacing),
        )

    @app.post("/v1/generators/{name}/drain")
    def drain(name: str, asking: Annotated[Ending | None, Body()] = None) -> PoolEvent:
        """Deal nothing more to a member; what was dealt to it goes on."""
        ending = asking or Ending()
        return members.change(
            ending, lambda change, log: change.drain(log, name, is_forced=ending.is_forced)
        )

    @app.post("/v1/generators/{name}/retire")
    def retire(name: str, asking: Annotated[Ending | None, Body()] = None) -> PoolEvent:
        """End a member: its adapter is unloaded once nothing that was dealt to it is open."""
        ending = asking or Ending()
        return members.change(
            ending, lambda change, log: change.retire(log, name, is_forced=ending.is_forced)
        )

    @app.post("/v1/generators/{name}/return")
    def bring_back(name: str, asking: Annotated[Asking | None, Body()] = None) -> PoolEvent:
        """Take a drained or retired member back, as it was."""
        return members.change(asking or Asking(), lambda change, log: change.bring_back(log, name))
