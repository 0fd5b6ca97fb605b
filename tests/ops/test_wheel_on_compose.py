"""The wheel of `infra/compose/deltawheel.yaml`, on that folder's services without containers."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from deltawheel.contracts.addresses import host_port
from tests.components import require
from tests.composed import FOLDER, SECRETS, a_broker, an_mlflow, some_databases
from tests.servers import stub_server
from tests.wheels import Wheel, running_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[Wheel]:
    require("kafka")
    require("postgres")
    settings = yaml.safe_load((FOLDER / "deltawheel.yaml").read_text())
    del settings["home"]
    with ExitStack() as stack:
        databases = stack.enter_context(some_databases())
        for name in ("kafka", "mlflow"):
            (tmp_path / name).mkdir()
        port = stack.enter_context(a_broker(tmp_path / "kafka"))
        settings["broker"]["bootstrap"] = host_port("127.0.0.1", port)
        url = settings["store"]["url"].replace("127.0.0.1:5432", "")
        settings["store"]["url"] = f"{url}?host={databases.folder}"
        uri, _ = stack.enter_context(an_mlflow(tmp_path / "mlflow", databases))
        settings["registry"]["uri"] = uri
        settings |= {
            "servers": [],
            "training": {"is_enabled": False},
            "judge": {"kind": "exact-match"},
            "generators": [
                {
                    "name": model,
                    "endpoint": stack.enter_context(stub_server(model)),
                    "model": model,
                    "capability": capability,
                }
                for model, capability in (("doubles", 1), ("guesses", 0))
            ],
        }
        env = {"PGPASSWORD": SECRETS["WHEEL_DB_PASSWORD"]}
        yield stack.enter_context(running_up(tmp_path / "home", settings, env=env))


def test_prompts_become_pairs_on_broker_database_and_registry_of_the_file(wheel: Wheel) -> None:
    wheel.submit(
        [{"text": f"How much is {n} + {n}?", "reference_answer": str(2 * n)} for n in range(20)]
    )
    wheel.drained()
    audit = wheel.cli("audit")
    assert (audit["is_clean"], audit["outcomes"]) == (True, {"paired": 20})
    assert wheel.cli("versions") == []
    found = {row["check"]: row["level"] for row in wheel.cli("doctor")["findings"]}
    assert {found[name] for name in ("broker", "store", "registry")} == {"ok"}
