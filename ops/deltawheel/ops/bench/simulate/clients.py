"""Clients of the gateway: they ask until they are answered, as good clients do."""

import asyncio

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.prompt import PromptKey, PromptSubmission
from deltawheel.ops.bench.simulate.wheel import GATEWAY, SimulatedWheel

__all__ = ["Client"]


class Client:
    """Submits one prompt and holds on until the gateway has answered 202."""

    def __init__(self, wheel: SimulatedWheel, text: str) -> None:
        self._wheel = wheel
        self._submission = PromptSubmission(text=text)
        self.accepted: PromptKey | None = None

    async def submit(self, after_s: float) -> None:
        """Submit after a while; sometimes twice, because the answer got lost on its way."""
        wheel = self._wheel
        await asyncio.sleep(after_s)
        while self.accepted is None:
            self.accepted = await self._try()
            await asyncio.sleep(0.1 + wheel.chance.random())
        if wheel.chance.random() < 0.2:
            await self._try()

    async def _try(self) -> PromptKey | None:
        life = self._wheel.seat(GATEWAY)
        if life is None or life.gateway is None:
            return None
        call = asyncio.to_thread(life.gateway.accept, [self._submission])
        task = life.process.spawn(call)
        await asyncio.wait([task])
        if task.cancelled():
            return None
        if error := task.exception():
            if not isinstance(error, RetryLaterError):
                self._wheel.failures.append(f"the gateway fails: {error!r}")
            return None
        return task.result()[0].key
