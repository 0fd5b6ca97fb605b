"""Ports behind a circuit breaker: a server that is down is not asked, and whoever would waits."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from deltawheel.contracts.errors import ForeignModelError, InvalidRecordError, RetryLaterError
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.ports import Assessment, Completion, Judge, UnloadingChatModel
from deltawheel.contracts.prompt import Message, Prompt
from deltawheel.contracts.rubric import Rubric
from deltawheel.contracts.trace import Trace
from deltawheel.services.runtime.dependencies import SHARED, Dependencies
from deltawheel.services.runtime.turns import Turns

__all__ = ["GuardedChatModel", "GuardedJudge"]


class GuardedChatModel:
    """A `ChatModel` with a breaker for each server; see there.

    While some servers are down, records that need them wait and the others go on; while all are,
    nothing more is fetched.

    A server becomes known when `expect` names a generator of it, or when it is asked for the first
    time. No generator is asked more at the same time than its `max_in_flight`.
    """

    def __init__(self, inner: UnloadingChatModel, dependencies: Dependencies) -> None:
        self._inner = inner
        self._dependencies = dependencies
        self._turns = Turns()

    async def complete(
        self, generator: Generator, messages: Sequence[Message], *, seed: int
    ) -> Completion:
        """Ask once, in turn.

        Raises:
            RetryLaterError: as the port says, or at once while the server is down.
            InvalidRecordError: as the port says.
        """
        self._know(generator.server)
        async with (
            self._turns.of(generator),
            _asking(generator.server, self._dependencies, has_many_models=True),
        ):
            return await self._inner.complete(generator, messages, seed=seed)

    def expect(self, generators: Iterable[Generator]) -> None:
        """Take these as what prompts are dealt to from now on: the servers of others are retired.

        One that is retired counts again while it is asked, for what was dealt to it before.
        """
        self._dependencies.breakers.pool = {generator.server for generator in generators}

    async def load(self, generator: Generator) -> None:
        """Make sure that the generator answers; errors as above."""
        self._know(generator.server)
        async with _asking(generator.server, self._dependencies, has_many_models=True):
            await self._inner.load(generator)

    async def compare(self, generator: Generator) -> None:
        """Compare the weights that its server names with the earlier; errors as the port's."""
        await self._inner.compare(generator)

    async def unload(self, generator: Generator) -> None:
        """Have its server forget an adapter; no record waits for that, so no breaker hears of it.

        Raises:
            RetryLaterError: as the port says.
        """
        await self._inner.unload(generator)

    async def probe(self, generator: Generator) -> None:
        """Have the generator write one token, whatever its breaker says; errors as the port's.

        An answer closes a breaker that is open, and wakes whoever waits for it. A failure is not
        told to it: those who carry records find the same, and it is to count once.
        """
        await self._inner.load(generator)
        if self._dependencies.is_down(generator.server):
            self._dependencies.succeeded(generator.server)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def _know(self, server: str) -> None:
        self._dependencies.breakers.pool.add(server)


class GuardedJudge:
    """A `Judge` with a breaker; see there. Every record of judging needs one that is vital."""

    def __init__(self, inner: Judge, dependencies: Dependencies, *, is_vital: bool = True) -> None:
        self._inner = inner
        self._dependencies = dependencies
        self._dependency = f"judge:{inner.name}"
        if is_vital:
            dependencies.breakers.vital.add(self._dependency)

    @property
    def name(self) -> str:
        """What metrics and tables call it."""
        return self._inner.name

    @property
    def revision(self) -> str:
        """Changes whenever the same trace could get another score."""
        return self._inner.revision

    async def assess(self, prompt: Prompt, trace: Trace, rubric: Rubric) -> Assessment:
        """Score the trace.

        Raises:
            RetryLaterError: as the port says, or at once while the judge is down.
            InvalidRecordError: as the port says.
        """
        async with _asking(self._dependency, self._dependencies):
            return await self._inner.assess(prompt, trace, rubric)


@asynccontextmanager
async def _asking(
    dependency: str, dependencies: Dependencies, *, has_many_models: bool = False
) -> AsyncIterator[None]:
    """Ask if that is allowed, and tell how it went: a refusal is an answer too.

    Another model's answer says nothing of a server that has many: the others of it go on, and
    whoever keeps the pool sees to the member. Of a judge it is a failure like any other.
    """
    if not dependencies.admits(dependency):
        raise RetryLaterError(
            f"{dependency} is down: its circuit breaker is open",
            retry_after_s=dependencies.wait_s(dependency),
            dependency=dependency,
        )
    try:
        yield
    except InvalidRecordError:
        dependencies.succeeded(dependency)
        raise
    except RetryLaterError as error:
        if error.dependency in SHARED:
            dependencies.leave((dependency,))
            raise
        if has_many_models and isinstance(error, ForeignModelError):
            dependencies.leave((dependency,))
            raise
        error.dependency = dependency
        dependencies.failed(dependency, error)
        raise
    except TimeoutError as error:
        late = RetryLaterError(f"{dependency} did not answer in time", dependency=dependency)
        dependencies.failed(dependency, late)
        raise late from error
    except BaseException:
        dependencies.leave((dependency,))
        raise
    dependencies.succeeded(dependency)
