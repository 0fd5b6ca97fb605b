"""The HTTP API, version 1."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query
from pydantic import BaseModel

from deltawheel.contracts.clock import Clock, Random
from deltawheel.contracts.cycle import Cycle
from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.events import encode, most_wire_bytes
from deltawheel.contracts.failpoints import Failpoint
from deltawheel.contracts.pair import PreferencePair
from deltawheel.contracts.ports import Failpoints, Producer
from deltawheel.contracts.prompt import Prompt, PromptSubmission
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.store import Store
from deltawheel.services.gateway.door import Doorkeeper
from deltawheel.services.gateway.members import Members, add_generators
from deltawheel.services.gateway.problems import BatchRefusedError, install
from deltawheel.services.runtime.offload import offload

__all__ = ["Gateway", "make_app"]

log = logging.getLogger("deltawheel.gateway")

_HEALTH = frozenset({"/healthz", "/readyz"})
_LEAST_BODY_BYTES = 4_000_000
_CHAR_BYTES = 12
"""What JSON takes at most for one character: two escapes of six bytes."""


class Accepted(BaseModel):
    """A prompt that the store now holds; the same submission always gives the same id."""

    prompt_id: str
    round: int
    accepted_at: str


class AcceptedBatch(BaseModel):
    """The prompts of one request, in its order."""

    accepted: list[Accepted]


class PairPage(BaseModel):
    """A page of pairs; pass `next` as `after` for the page behind it."""

    pairs: list[PreferencePair]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Takes prompts in: stored first, then published, then answered."""

    settings: Settings
    store: Store
    producer: Producer
    clock: Clock
    random: Random
    failpoints: Failpoints

    @property
    def max_body_bytes(self) -> int:
        """Longest body of a request: the longest prompt in any spelling, or a batch of plain text.

        A batch of long prompts in a wide script is refused though each would be accepted.
        """
        limits = self.settings.gateway
        longest = limits.max_prompt_chars * max(limits.max_batch, _CHAR_BYTES)
        return _LEAST_BODY_BYTES + longest

    def accept(self, submissions: Sequence[PromptSubmission]) -> list[Prompt]:
        """Store the prompts and publish what the store holds.

        A broker that does not answer is no reason to refuse: the prompts are stored, so their
        events are owed, and curation publishes owed events until they have had their effect.

        Raises:
            RetryLaterError: the store is busy or away; nothing was accepted.
            BatchRefusedError: names each prompt that is too large for the broker by its index.
        """
        now = self.clock.now()
        wheel = self.settings.wheel
        prompts = [submission.accept(wheel=wheel, accepted_at=now) for submission in submissions]
        self._refuse_too_large(prompts)
        stored = self.store.add_prompts(prompts)
        self.failpoints.reach_blocking(Failpoint.GATEWAY_STORED, stored[0].prompt_id)
        try:
            self.producer.publish([encode(p, wheel=wheel, service="gateway") for p in stored])
        except (InvalidRecordError, RetryLaterError) as error:
            log.warning("prompts are stored but not published yet: %s", error)
        return stored

    def _refuse_too_large(self, prompts: Sequence[Prompt]) -> None:
        """Refuse what would be stored and owed for ever, for the broker takes no event of it."""
        limit = self.settings.broker.max_message_bytes
        refused: dict[int, str] = {}
        for index, prompt in enumerate(prompts):
            if (size := most_wire_bytes(prompt)) > limit:
                refused[index] = (
                    f"the prompt has {size} bytes, but broker.max_message_bytes is {limit}"
                )
        if refused:
            raise BatchRefusedError(refused, len(prompts))

    def check(self, bodies: Sequence[object]) -> list[PromptSubmission]:
        """Validate submissions.

        Raises:
            BatchRefusedError: names each wrong one by its index.
        """
        limits = self.settings.gateway
        if not bodies:
            raise BatchRefusedError({0: "'prompts' is empty: send at least one"}, 0)
        if len(bodies) > limits.max_batch:
            raise BatchRefusedError(
                {limits.max_batch: f"send at most {limits.max_batch} prompts at once"}, len(bodies)
            )
        good: list[PromptSubmission] = []
        refused: dict[int, str] = {}
        for index, body in enumerate(bodies):
            try:
                good.append(PromptSubmission.parse(body, max_chars=limits.max_prompt_chars))
            except ValueError as error:
                refused[index] = str(error)
        if refused:
            raise BatchRefusedError(refused, len(bodies))
        return good


def make_app(gateway: Gateway, *, token: str | None) -> FastAPI:
    """Build the application; with a token, everything but the health routes asks for it.

    The pages that describe the API (/docs, /redoc, /openapi.json) cannot ask, so they are off then.
    """
    app = FastAPI(
        title="Deltawheel gateway",
        version=version("deltawheel"),
        openapi_url=None if token else "/openapi.json",
    )
    install(app)
    app.add_middleware(Doorkeeper, token=token, max_bytes=gateway.max_body_bytes, is_open=_HEALTH)
    _add_health(app, gateway)
    _add_prompts(app, gateway)
    _add_reading(app, gateway)
    add_generators(
        app,
        Members(
            settings=gateway.settings,
            store=gateway.store,
            clock=gateway.clock,
            random=gateway.random,
        ),
    )
    return app


def _add_health(app: FastAPI, gateway: Gateway) -> None:
    """Add what must answer even while every thread for requests waits for the broker."""

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """Tell that the process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        """Tell that prompts would be accepted: the store answers."""
        await offload(gateway.store.pool_log)
        return {"status": "ok"}


def _add_prompts(app: FastAPI, gateway: Gateway) -> None:
    @app.post("/v1/prompts", status_code=202)
    def submit(body: Annotated[dict[str, Any], Body()]) -> AcceptedBatch:
        """Accept one prompt, or a batch as `{"prompts": [...]}`; all of it or nothing."""
        batch = body.get("prompts")
        prompts = gateway.accept(gateway.check(batch if isinstance(batch, list) else [body]))
        return AcceptedBatch(
            accepted=[
                Accepted(
                    prompt_id=prompt.prompt_id,
                    round=prompt.round,
                    accepted_at=prompt.accepted_at.isoformat(),
                )
                for prompt in prompts
            ]
        )


def _add_reading(app: FastAPI, gateway: Gateway) -> None:
    store = gateway.store

    @app.get("/v1/pairs")
    def pairs(
        after: str | None = None, limit: Annotated[int, Query(ge=1, le=1_000)] = 100
    ) -> PairPage:
        """Return stored preference pairs, a page at a time, by id."""
        page = store.pairs(after=after, limit=limit)
        return PairPage(pairs=page, next=page[-1].pair_id if len(page) == limit else None)

    @app.get("/v1/cycles")
    def cycles(limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> list[Cycle]:
        """Return training cycles, newest first."""
        return store.cycles(limit)
