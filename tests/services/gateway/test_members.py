"""The pool over HTTP: who is in it, and what may be changed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deltawheel.contracts.generator import PoolEventKind
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.pool import Pool
from deltawheel.contracts.settings import Settings
from deltawheel.infra.clock import SystemRandom
from deltawheel.infra.sandbox.paths import generator_path
from deltawheel.infra.store.store import SqlStore
from deltawheel.services.gateway.members import Members, add_generators
from deltawheel.services.gateway.problems import install
from tests.records import WHEEL, a_generator, a_pool_event
from tests.services.fakes import FakeClock

ELSEWHERE = {"endpoint": "http://host:8000/v1", "model": "m"}
GUEST = {"name": "guest", **ELSEWHERE, "revision": "2026-05"}


class Stage:
    """The routes over a store whose pool has three members."""

    def __init__(self, store: SqlStore, settings: Settings) -> None:
        self.store = store
        store.add_pool_events([a_pool_event(a_generator(it)) for it in ("strong", "mid", "weak")])
        app = FastAPI()
        install(app)
        members = Members(settings=settings, store=store, clock=FakeClock(), random=SystemRandom())
        add_generators(app, members)
        self.client = TestClient(app, raise_server_exceptions=False)

    @property
    def pool(self) -> Pool:
        return Pool.from_log(self.store.pool_log())

    def join(self, member: dict[str, Any], **asking: object) -> Any:
        return self.client.post("/v1/generators", json={"member": member, **asking})

    def ask(self, name: str, what: str, **asking: object) -> Any:
        return self.client.post(f"/v1/generators/{name}/{what}", json=asking)

    def refused(self, response: Any, status: int) -> str:
        """Return why, after making sure that nothing has changed."""
        assert response.status_code == status
        assert response.headers["Content-Type"] == "application/problem+json"
        assert len(self.store.pool_log()) == 3
        detail: str = response.json()["detail"]
        return detail


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    other = {"name": "other", **ELSEWHERE}
    keyed = {"name": "keyed", **ELSEWHERE, "api_key_env": "KEY_OF_HOST"}
    with closing(SqlStore(f"sqlite:///{tmp_path / 'store.db'}", wheel=WHEEL)) as store:
        yield Stage(store, Settings(wheel=WHEEL, generators=(keyed, other)))


def test_model_of_an_endpoint_joins_with_who_and_why(stage: Stage) -> None:
    joined = stage.join(GUEST | {"family": "llama", "prompt_price": "0.3"}, by="ann", reason="new")
    assert joined.status_code == 201
    assert (joined.json()["kind"], joined.json()["reason"]) == ("added", "by ann: new")
    guest = stage.pool.members["guest"]
    assert (guest.endpoint, guest.revision, guest.family) == (
        "http://host:8000/v1",
        "2026-05",
        "llama",
    )
    assert stage.pool.came_by["guest"] is PoolEventKind.ADDED


def test_adapter_joins_at_the_digest_of_its_weights(stage: Stage) -> None:
    stage.join({"name": "guest", "server": "local", "adapter": "sandbox:weak"})
    weights = (generator_path("weak") / "adapter_model.safetensors").read_bytes()
    assert stage.pool.members["guest"].revision == digest_of(weights)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"endpoint": "http://me:secret@host/v1"}, "may hold no user or password"),
        ({"endpoint": None, "server": "lokal"}, "unknown server 'lokal'; servers are ['local']"),
        ({"endpoint": None, "server": "local", "adapter": "/nowhere"}, "holds no adapter_model"),
        ({"modle": "m"}, "modle: unknown key; did you mean 'model'"),
        ({"name": "No Name"}, "name: "),
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, "must begin with DELTAWHEEL_KEY_"),
        (
            {"endpoint": "http://elsewhere/v1", "api_key_env": "KEY_OF_HOST"},
            "must begin with DELTAWHEEL_KEY_",
        ),
        (
            {"replicas": ["http://elsewhere/v1"], "api_key_env": "KEY_OF_HOST"},
            "must begin with DELTAWHEEL_KEY_",
        ),
    ],
    ids=str,
)
def test_member_that_cannot_be_is_refused_with_its_key(
    stage: Stage, wrong: dict[str, Any], said: str
) -> None:
    detail = stage.refused(stage.join(GUEST | wrong), 422)
    assert said in detail
    assert "secret" not in detail


@pytest.mark.parametrize("variable", ["DELTAWHEEL_KEY_GUEST", "KEY_OF_HOST"])
def test_variable_of_a_key_is_kept_and_never_its_value(
    stage: Stage, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "sesame")
    joined = stage.join(GUEST | {"api_key_env": variable})
    assert joined.status_code == 201
    assert stage.pool.members["guest"].api_key_env == variable
    assert "sesame" not in joined.text


def test_name_that_stands_is_a_conflict_unless_it_is_to_be_replaced(stage: Stage) -> None:
    assert "in the pool already" in stage.refused(stage.join(GUEST | {"name": "weak"}), 409)
    assert stage.join(GUEST | {"name": "weak"}, is_replacing=True).status_code == 201
    assert stage.pool.members["weak"].revision == "2026-05"


def test_member_is_drained_returned_and_retired(stage: Stage) -> None:
    assert stage.ask("weak", "drain", by="ann", reason="slow").json()["kind"] == "drained"
    assert "weak" not in stage.pool.members
    assert stage.ask("weak", "return").json()["reason"].startswith("by a client of the gateway: ")
    assert stage.pool.came_by["weak"] is PoolEventKind.DECLARED
    assert stage.client.post("/v1/generators/weak/retire").json()["kind"] == "retired"
    assert "weak" not in stage.pool.members


def test_unknown_member_is_not_found(stage: Stage) -> None:
    for what in ("drain", "retire", "return"):
        assert "'strong'" in stage.refused(stage.ask("nobody", what), 404)
    assert stage.client.get("/v1/generators/nobody").status_code == 404


def test_last_two_are_kept_unless_forced(stage: Stage) -> None:
    stage.ask("weak", "drain")
    kept = stage.ask("mid", "drain")
    assert (kept.status_code, "a pair needs two" in kept.json()["detail"]) == (409, True)
    assert stage.ask("mid", "drain", is_forced=True).status_code == 200


def test_key_that_no_asking_has_is_refused(stage: Stage) -> None:
    stage.refused(stage.ask("weak", "drain", force=True), 422)


def test_generator_is_shown_with_its_log(stage: Stage) -> None:
    stage.ask("weak", "drain")
    shown = stage.client.get("/v1/generators/weak").json()
    assert (shown["is_member"], shown["came_by"], shown["absent"]) == (False, None, None)
    assert [event["kind"] for event in shown["log"]] == ["declared", "drained"]
    there = stage.client.get("/v1/generators/mid").json()
    assert (there["is_member"], there["came_by"]) == (True, "declared")


def test_log_comes_in_pages(stage: Stage) -> None:
    stage.ask("weak", "drain")
    first = stage.client.get("/v1/generators/log", params={"limit": 3}).json()
    assert ([event["kind"] for event in first["events"]], first["next"]) == (["declared"] * 3, 3)
    rest = stage.client.get("/v1/generators/log", params={"after": 3, "limit": 3}).json()
    assert ([event["kind"] for event in rest["events"]], rest["next"]) == (["drained"], None)
