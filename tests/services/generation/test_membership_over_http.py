"""Members on a real server that goes and comes back: their share goes to those that stand."""

from contextlib import closing
from pathlib import Path

from deltawheel.contracts.pool import Pool
from deltawheel.contracts.settings import GenerationSettings, RuntimeSettings
from deltawheel.infra.chat_model import OpenAIChatModel
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.stub_model_server import FAULTS, StubAnswer, StubModelServer
from deltawheel.infra.telemetry import PrometheusTelemetry
from deltawheel.services.generation.membership import Membership
from deltawheel.services.runtime.dependencies import Dependencies
from deltawheel.services.runtime.guards import GuardedChatModel
from tests.records import WHEEL, a_generator, a_pool_event
from tests.services.fakes import FakeClock


async def test_members_of_a_server_leave_with_it_and_return_when_it_answers(
    tmp_path: Path,
) -> None:
    steady, guest = a_generator("steady"), a_generator("guest")
    clock, telemetry = FakeClock(), PrometheusTelemetry()
    sound = StubModelServer({steady.model: lambda _: "2"})
    shaky = StubModelServer({guest.model: lambda _: "2"})
    dependencies = Dependencies(
        clock=clock, random=SystemRandom(0), telemetry=telemetry, settings=RuntimeSettings()
    )
    async with sound.running() as here, shaky.running() as there:
        pool = [
            steady.model_copy(update={"endpoint": here}),
            guest.model_copy(update={"endpoint": there}),
        ]
        models = OpenAIChatModel(servers={}, api_keys={}, request_timeout_s=5, telemetry=telemetry)
        with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
            store.add_pool_events([a_pool_event(member) for member in pool])
            membership = Membership(
                settings=GenerationSettings(health_interval_s=3, health_failures=2),
                store=store,
                models=GuardedChatModel(models, dependencies),
                clock=clock,
                random=SystemRandom(),
            )

            async def standing_after(num_looks: int) -> list[str]:
                for _ in range(num_looks):
                    await membership.look()
                    clock.move(1)
                return [each.name for each in Pool.from_log(store.pool_log()).standing()]

            assert await standing_after(4) == ["guest", "steady"]
            shaky.fault = FAULTS["busy"]
            assert await standing_after(5) == ["steady"]
            shaky.fault = None
            assert await standing_after(1) == ["guest", "steady"]
            shaky.models[guest.model] = lambda _: StubAnswer(content="2", served_model="other")
            assert await standing_after(4) == ["steady"]
            await models.aclose()
    asked = [request.body["max_tokens"] for request in sound.asked("completions")]
    assert set(asked) == {1}
    assert len(asked) == 4
