"""Settings: names that must agree, the environment above the file, and a meaning for every key."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from deltawheel.contracts.rubric import PAPER_DIMENSIONS, Rubric
from deltawheel.contracts.settings import (
    BrokerSettings,
    GatewaySettings,
    GeneratorSettings,
    JudgeSettings,
    SameFamily,
    ServerSettings,
    Settings,
)
from deltawheel.contracts.settings.template import settings_template

TWO: tuple[dict[str, Any], ...] = (
    {"name": "a", "server": "local"},
    {"name": "b", "endpoint": "http://host/v1", "model": "m"},
)
JUDGED = {"kind": "llm", "model": {"name": "grader", "server": "local"}}
JUROR = {"name": "juror", "endpoint": "http://host/v1", "model": "m"}
SUITE = {"name": "x", "role": "out-of-domain", "items": "x.jsonl"}


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for section in Settings.model_fields:
        monkeypatch.delenv(f"DELTAWHEEL_{section.upper()}", raising=False)


def refusal_of(**content: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(**content)
    [fault] = caught.value.errors()
    said = fault["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, fault['loc']))}: {said}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"rotation": {"pairs": [["strong", "nobody"]]}},
            "rotation.pairs: unknown generator 'nobody'; generators are ['strong', 'mid', 'weak']",
        ),
        (
            {"rotation": {"pairs": [["strong", "strong"]]}},
            "rotation.pairs: 'strong' cannot be paired with itself",
        ),
        (
            {"generators": [TWO[0], TWO[0]]},
            "generators: names must differ, but they are ['a', 'a']",
        ),
        ({"generators": [TWO[0]]}, "generators: a pair needs two, so name at least two"),
        ({"generators": []}, "generators: a pair needs two, so name at least two"),
        (
            {"generators": [{**TWO[0], "server": "nowhere"}, TWO[1]]},
            "generators.a.server: unknown server 'nowhere'; servers are ['local']",
        ),
        (
            {"servers": [{}, {}]},
            "servers: names must differ, but they are ['local', 'local']",
        ),
        (
            {"evaluation": {"suites": [SUITE, SUITE]}},
            "evaluation.suites: names must differ, but they are ['x', 'x']",
        ),
        (
            {"training": {"server": "nowhere"}},
            "training.server: unknown server 'nowhere'; servers are ['local'] "
            "(or set training.is_enabled: false)",
        ),
        (
            {"training": {"dimension": "charm"}},
            "training.dimension: unknown 'charm'; it may be order_by or one of",
        ),
        (
            {"judge": {"kind": "exact-match"}, "training": {"dimension": "step_coherence"}},
            "training.dimension: unknown 'step_coherence'; it may be order_by or one of "
            "['factuality']",
        ),
        (
            {"training": {"base": "/models/one"}, "servers": [{"base": "/models/other"}]},
            "training.base: it is '/models/one', but servers.local.base is '/models/other'",
        ),
        (
            {"rubric": {"order_by": {"charm": 1}}},
            "rubric.order_by: unknown ['charm']; give weights over ['computational_precision', ",
        ),
        (
            {"rubric": {"dimensions": {"factuality": "Right?"}}},
            "rubric.order_by: unset, it weighs ['computational_precision', 'step_coherence']; "
            "give weights over ['factuality']",
        ),
        (
            {"rubric": {"dimensions": {"charm": "?"}, "order_by": {"charm": 1}}},
            "rubric.dimensions: judge.kind sandbox cannot score ['charm']; it scores "
            "['computational_precision', ",
        ),
        (
            {
                "judge": {"kind": "exact-match"},
                "rubric": {"dimensions": {"factuality": "?", "step_coherence": "?"}},
            },
            "rubric.dimensions: judge.kind exact-match cannot score ['step_coherence']; it scores "
            "['factuality']",
        ),
        ({"rubric": {"order_by": {}}}, "rubric.order_by: Dictionary should have at least 1 item"),
        (
            {"rubric": {"order_by": {"factuality": 0}}},
            "rubric.order_by.factuality: Input should be greater than 0",
        ),
        (
            {"judge": {"self_preference": 0.5}},
            "judge.favourite: judge.self_preference is 0.5, so name the generator to prefer",
        ),
        (
            {"judge": {"favourite": "nobody"}},
            "judge.favourite: unknown generator 'nobody'; generators are ['strong', 'mid', 'weak']",
        ),
        (
            {"judge": {**JUDGED, "jury": {"members": [JUROR, JUROR]}}},
            "judge.model and judge.jury.members: names must differ, but they are ['grader', "
            "'juror', 'juror']",
        ),
        (
            {"judge": {**JUDGED, "jury": {"members": [{**JUROR, "name": "grader"}]}}},
            "judge.model and judge.jury.members: names must differ, but they are ['grader', "
            "'grader']",
        ),
        (
            {"judge": {**JUDGED, "jury": {"members": [{"name": "juror", "server": "nowhere"}]}}},
            "judge.jury.members.juror.server: unknown server 'nowhere'; servers are ['local']",
        ),
        (
            {"judge": {"jury": {"members": [JUROR]}}},
            "judge.jury.members: judge.kind is sandbox; only models (llm) form a jury",
        ),
        (
            {"judge": {**JUDGED, "jury": {"share": 0.5, "combine": "mean"}}},
            "judge.jury.combine: it is mean, but judge.jury.share is 0.5: means over several "
            "judges and scores of one cannot be compared; set share: 1, or combine: first",
        ),
        (
            {"judge": {**JUDGED, "jury": {"members": [JUROR], "patience_s": 86400}}},
            "judge.jury.patience_s: it is 86400, but a trace is given up after "
            "runtime.defer_deadline_s, 86400; give less than that",
        ),
        (
            {
                "judge": {
                    "same_family": "refuse",
                    **JUDGED,
                    "jury": {"members": [{**JUROR, "family": "llama"}]},
                },
                "generators": [{**TWO[0], "family": "llama"}, TWO[1]],
            },
            "generators.a.family: judge.jury.members.juror is of 'llama' too; judge by another "
            "family, or set judge.same_family: record",
        ),
        (
            {"evaluation": {"suites": [{**SUITE, "role": "guard"}]}},
            "evaluation.suites: at least one suite must have the role out-of-domain",
        ),
        ({"broker": {"kind": "kafka"}}, "kind kafka needs 'bootstrap'"),
        ({"generators": [{"name": "a"}, TWO[1]]}, "give either 'server' or 'endpoint'"),
        (
            {"generators": [{**TWO[0], "endpoint": "http://host/v1"}, TWO[1]]},
            "give either 'server' or 'endpoint'",
        ),
        (
            {"generators": [{"name": "a", "endpoint": "http://host/v1"}, TWO[1]]},
            "an endpoint needs 'model'",
        ),
        ({"wheel": "My Wheel"}, "wheel: String should match pattern"),
        ({"gateway": {"port": 65_536}}, "gateway.port: Input should be less than or equal"),
        ({"gateway": {"prot": 1}}, "gateway.prot: Extra inputs are not permitted"),
        ({"gatway": {}}, "gatway: Extra inputs are not permitted"),
        ({"gate": {"min_gain": float("nan")}}, "gate.min_gain: Input should be"),
    ],
)
def test_settings_that_do_not_fit_are_refused_naming_what_would_be_valid(
    content: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal_of(**content)


def test_wheel_without_training_needs_no_server() -> None:
    settings = Settings(
        servers=(),
        generators=tuple(
            GeneratorSettings(name=name, endpoint="http://host/v1", model=name) for name in "ab"
        ),
        training={"is_enabled": False},
    )
    assert settings.servers == ()


def test_pairs_of_declared_generators_are_accepted() -> None:
    settings = Settings(rotation={"pairs": [["strong", "weak"]]})
    assert settings.rotation.pairs == (("strong", "weak"),)


# The environment


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("GATEWAY__PORT", "8601", lambda settings: settings.gateway.port == 8601),
        ("WHEEL", "mine", lambda settings: settings.wheel == "mine"),
        ("HOME", "/srv/wheel", lambda settings: settings.home == Path("/srv/wheel")),
        (
            "RUBRIC__TIE_WIDTH",
            "0.25",
            lambda settings: settings.make_rubric().tie_width == Decimal("0.25"),
        ),
        (
            "ROTATION__PAIRS",
            '[["strong", "weak"]]',
            lambda settings: settings.rotation.pairs == (("strong", "weak"),),
        ),
        ("SERVERS", '[{"name": "local", "port": 7}]', lambda s: s.servers[0].port == 7),
    ],
)
def test_environment_overrides_what_is_given(
    name: str, value: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not read(Settings())
    monkeypatch.setenv(f"DELTAWHEEL_{name}", value)
    assert read(Settings(gateway={"port": 1, "max_batch": 7}))
    assert Settings(gateway={"port": 1, "max_batch": 7}).gateway.max_batch == 7


@pytest.mark.parametrize("name", ["GATEWAY_TOKEN", "CONFIG", "REQUIRE", "FAILPOINTS"])
def test_secrets_and_switches_are_no_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings()
    monkeypatch.setenv(f"DELTAWHEEL_{name}", "x")
    assert Settings() == before
    assert "token" not in Settings().gateway.model_dump()


def test_wrong_value_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAWHEEL_GATEWAY__PORT", "none of your business")
    assert "gateway.port: Input should be a valid integer" in refusal_of()


# What follows from them


def test_names_and_places_follow_from_wheel_and_home() -> None:
    settings = Settings(wheel="mine", home=Path("/srv/wheel"))
    assert settings.registered_model == "deltawheel-mine"
    assert settings.store_url == "sqlite:////srv/wheel/state/store.db"
    assert settings.registry_uri == "sqlite:////srv/wheel/registry/mlflow.db"
    assert settings.state.parent == settings.registry_folder.parent == settings.home


def test_own_postgres_listens_on_loopback() -> None:
    settings = Settings.model_validate({"store": {"kind": "local-postgres", "port": 5999}})
    assert settings.store_url == "postgresql://deltawheel@127.0.0.1:5999/postgres"


def test_names_and_places_that_are_given_stand() -> None:
    settings = Settings(
        registry={"uri": "http://mlflow", "model_name": "other"},
        store={"url": "postgresql://u@h/d"},
    )
    assert settings.registered_model == "other"
    assert settings.registry_uri == "http://mlflow"
    assert settings.store_url == "postgresql://u@h/d"


def test_sandbox_judges_by_the_papers_five_dimensions() -> None:
    assert Settings().make_rubric() == Rubric()
    assert Settings().make_rubric().dimensions == PAPER_DIMENSIONS


def test_exact_match_judges_and_orders_by_factuality_alone() -> None:
    rubric = Settings(judge={"kind": "exact-match"}).make_rubric()
    assert set(rubric.dimensions) == {"factuality"}
    assert rubric.order_by == {"factuality": 1}


def test_own_rubric_is_the_one_that_judges() -> None:
    own = {"dimensions": {"factuality": "So?"}, "order_by": {"factuality": 2}, "tie_width": "0.5"}
    rubric = Settings(rubric=own).make_rubric()
    assert rubric.dimensions == {"factuality": "So?"}
    assert rubric.order_by == {"factuality": Decimal(2)}
    assert rubric.tie_width == Decimal("0.5")


def test_address_of_a_server_is_the_base_of_its_api() -> None:
    assert ServerSettings(host="127.0.0.2", port=8000).url == "http://127.0.0.2:8000/v1"


def test_address_with_colons_stands_in_brackets() -> None:
    assert ServerSettings(host="::1", port=8000).url == "http://[::1]:8000/v1"
    assert GatewaySettings(host="::", port=8600).url == "http://[::]:8600"


def test_remote_broker_with_an_address_is_accepted() -> None:
    settings = BrokerSettings.model_validate({"kind": "kafka", "bootstrap": "kafka-1:9092"})
    assert settings.bootstrap == "kafka-1:9092"


def test_training_on_the_base_that_its_server_has_is_accepted(tmp_path: Path) -> None:
    base, same = tmp_path / "base", tmp_path / "x" / ".." / "base"
    settings = Settings(training={"base": str(base)}, servers=({"base": str(same)},))
    assert settings.training.base == str(base)
    apart = {"base": "/models/one", "is_enabled": False}
    assert Settings(training=apart).servers[0].base == "sandbox"


# Who can connect


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "gpu-1.example"])
def test_what_asks_nobody_for_a_key_listens_for_this_machine_only(host: str) -> None:
    server = refusal_of(servers=[{"host": host}])
    assert server.startswith("servers.0.host: others can reach it")
    assert "give its generators 'endpoint'" in server
    broker = refusal_of(broker={"host": host})
    assert broker.startswith("broker.host: others can reach it")
    assert "broker.kind: kafka" in broker


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_for_this_machine(host: str) -> None:
    settings = Settings(servers=({"host": host},), broker={"host": host})
    assert settings.servers[0].host == settings.broker.host == host


def test_host_of_a_broker_that_runs_elsewhere_means_nothing() -> None:
    broker = {"kind": "kafka", "bootstrap": "kafka-1:9092", "host": "0.0.0.0"}
    assert Settings(broker=broker).broker.bootstrap == "kafka-1:9092"


# Texts with rules of their own


def generators_at(url: str) -> dict[str, Any]:
    return {"generators": [{"name": "a", "endpoint": url, "model": "m"}, TWO[1]]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"judge": {"answer_pattern": "A:("}}, "judge.answer_pattern: no regular expression"),
        ({"judge": {"answer_pattern": "A:7"}}, "judge.answer_pattern: it has no group; put parent"),
        ({"judge": {"answer_pattern": "(a{9999999999})"}}, "judge.answer_pattern: no regular"),
        ({"evaluation": {"answer_pattern": "("}}, "evaluation.answer_pattern: no regular"),
        ({"evaluation": {"answer_pattern": "A:"}}, "evaluation.answer_pattern: it has no group"),
        ({"training": {"cron": "0 3 * *"}}, "training.cron: a crontab line has five fields"),
        ({"training": {"cron": "60 3 * * *"}}, "training.cron: '60' is no minute: valid are 0 to"),
        ({"store": {"url": "store.db"}}, "store.url: no database URL; write sqlite:////"),
        ({"store": {"url": "mysql://h/d"}}, "store.url: the store does not run on 'mysql'; it ru"),
        ({"store": {"url": "sqlite://"}}, "store.url: it must name a file"),
        (
            {"store": {"kind": "local-postgres", "url": "postgresql://h/d"}},
            "store.url: kind local-postgres is a database already; remove the url",
        ),
        ({"store": {"url": "sqlite:///:memory:?x=1"}}, "store.url: it must name a file"),
        (generators_at("host:8000/v1"), "generators.0.endpoint: no http or https URL with a host"),
        (generators_at("ftp://host/v1"), "generators.0.endpoint: no http or https URL with a host"),
        (generators_at("http:///v1"), "generators.0.endpoint: no http or https URL with a host"),
        (generators_at("http://h:x/v1"), "generators.0.endpoint: no http or https URL with a host"),
        (generators_at("http://h:0/v1"), "generators.0.endpoint: no http or https URL with a host"),
        (generators_at("http://[::1/v1"), "generators.0.endpoint: no http or https URL with a ho"),
        (generators_at("http://a b/v1"), "generators.0.endpoint: no http or https URL with a host"),
        (generators_at("http://u:p@host/v1"), "name it in api_key_env"),
        (generators_at("http://u@host/v1"), "name it in api_key_env"),
        (
            {"generators": [{**TWO[0], "adapter": "sandbox:stong"}, TWO[1]]},
            "generators.0.adapter: unknown sandbox generator 'stong'; use one of strong, mid, weak",
        ),
        (
            {"evaluation": {"suites": [{**SUITE, "items": "sandbox:indomain"}]}},
            "evaluation.suites.0.items: unknown suite 'indomain'; use one of in_domain, out_of_do",
        ),
        (
            {"evaluation": {"suites": [{**SUITE, "items": "guard"}]}},
            "evaluation.suites.0.items: neither sandbox:<suite> nor the path of a file that ends",
        ),
    ],
)
def test_text_against_its_rules_is_refused_naming_what_would_be_valid(
    content: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal_of(**content)


@pytest.mark.parametrize(
    "content",
    [
        {"judge": {"answer_pattern": r"Answer: (.*)"}},
        {"training": {"cron": None}},
        {"store": {"url": "sqlite:////srv/store.db"}},
        {"store": {"url": "sqlite:///store.db"}},
        {"store": {"url": "postgresql+psycopg://u:p@[::1]:5432/d"}},
        generators_at("https://api.example/v1"),
        generators_at("http://[::1]:8000/v1"),
        {"generators": [{**TWO[0], "adapter": "models/stong"}, TWO[1]]},
        {"evaluation": {"suites": [{**SUITE, "items": "~/items/x.jsonl"}]}},
    ],
)
def test_text_within_its_rules_is_accepted(content: dict[str, Any]) -> None:
    assert Settings(**content) != Settings()


def test_error_of_wrong_settings_shows_no_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(store={"url": "mysql://u:secret@h/d"})
    assert "secret" not in str(caught.value)


def test_all_that_disagrees_is_said_at_once() -> None:
    refusal = refusal_of(
        generators=[TWO[0], TWO[0], {"name": "c", "server": "nowhere"}],
        rotation={"pairs": [["a", "zz"], ["a", "a"]]},
        judge={"favourite": "nobody"},
        rubric={"order_by": {"charm": 1}},
        training={"server": "gone", "dimension": "charm"},
    )
    keys = [line.lstrip(": ").split(":")[0] for line in refusal.splitlines()]
    assert keys == [
        "generators",
        "generators.c.server",
        "rotation.pairs",
        "rotation.pairs",
        "judge.favourite",
        "rubric.order_by",
        "training.server",
        "training.dimension",
    ]


# The broker's security


def secured(**security: Any) -> dict[str, Any]:
    return {"broker": {"kind": "kafka", "bootstrap": "kafka-1:9092", "security": security}}


SASL = {"protocol": "sasl-ssl", "mechanism": "SCRAM-SHA-512", "username": "me"}


@pytest.mark.parametrize(
    "security",
    [
        {"protocol": "ssl"},
        {"protocol": "ssl", "certificate_file": "/c.pem", "key_file": "/c.key"},
        {"protocol": "ssl", "certificate_file": "/both.pem", "is_hostname_checked": False},
        {**SASL, "ca_file": "/ca.pem"},
        {**SASL, "protocol": "sasl-plaintext", "mechanism": "PLAIN"},
    ],
)
def test_security_that_fits_its_protocol_is_accepted_and_survives_a_dump(
    security: dict[str, Any],
) -> None:
    settings = Settings(**secured(**security))
    assert Settings(**settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"protocol": "sasl-ssl", "username": "me"}, "mechanism: protocol sasl-ssl needs a mech"),
        ({"protocol": "sasl-ssl", "mechanism": "PLAIN"}, "username: protocol sasl-ssl needs a use"),
        ({**SASL, "mechanism": "GSSAPI"}, "mechanism: Input should be 'PLAIN', 'SCRAM-SHA-256'"),
        (
            {"protocol": "ssl", "mechanism": "PLAIN"},
            "mechanism: protocol ssl shows no user to the broker; set broker.security.protocol: sa",
        ),
        ({"username": "me"}, "username: protocol plaintext shows no user to the broker; set bro"),
        ({"ca_file": "/ca.pem"}, "ca_file: protocol plaintext uses no certificates; set broker."),
        (
            {**SASL, "protocol": "sasl-plaintext", "certificate_file": "/c.pem"},
            "certificate_file: protocol sasl-plaintext uses no certificates; set broker.security.",
        ),
        ({"protocol": "ssl", "key_file": "/c.key"}, "key_file: a key alone proves nothing; set"),
        ({"is_hostname_checked": False}, "is_hostname_checked: protocol plaintext has no certif"),
        ({"protocol": "tls"}, "protocol: Input should be 'plaintext', 'ssl', 'sasl-plaintext' or"),
        ({**SASL, "password": "hunter2"}, "password: Extra inputs are not permitted"),
    ],
)
def test_security_that_does_not_fit_is_refused(security: dict[str, Any], said: str) -> None:
    refusal = refusal_of(**secured(**security))
    key, _, sentence = said.partition(": ")
    assert f"broker.security.{key}" in refusal
    assert sentence in refusal
    assert "hunter2" not in refusal


@pytest.mark.parametrize("kind", ["embedded", "local-kafka"])
def test_broker_of_the_wheels_own_takes_no_security(kind: str) -> None:
    refusal = refusal_of(broker={"kind": kind, "security": {"protocol": "ssl"}})
    assert "broker.security.protocol: it is ssl, but the broker that `up` starts for" in refusal
    assert "set broker.kind: kafka with broker.bootstrap" in refusal


def test_static_membership_needs_a_broker_that_lets_members_go() -> None:
    refusal = refusal_of(runtime={"static_membership": True})
    assert "runtime.static_membership: the embedded broker never lets go" in refusal
    kafka = Settings(runtime={"static_membership": True}, broker={"kind": "local-kafka"})
    assert kafka.runtime.static_membership


# Every key is explained


def keys_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, str | None]]:
    """Yield every key on every level: its path, its own name, and what is said of it."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}", name, field.description
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys_of(part, f"{path}{name}.")


KEYS = list(keys_of(Settings))
_WIRE = ("generators.sampling.", "training.sampling.")
"""Sampling is a record of the wire: its keys are explained by the record."""


def test_keys_of_all_levels_are_looked_at() -> None:
    paths = {path for path, _, _ in KEYS}
    assert {"wheel", "gateway.port", "servers.max_loras", "evaluation.suites.role"} <= paths
    assert len(paths) == len(KEYS) > 100


@pytest.mark.parametrize(
    ("path", "description"),
    [(path, said) for path, _, said in KEYS if not path.startswith(_WIRE)],
)
def test_key_says_what_it_does(path: str, description: str | None) -> None:
    assert description, f"{path} has no description"
    assert len(description) > 8
    assert description.endswith((".", ".)"))


def test_template_loads_as_the_defaults() -> None:
    assert Settings(**yaml.safe_load(settings_template())) == Settings()


def test_template_shows_every_key_that_has_a_place_in_it() -> None:
    lines = settings_template().splitlines()
    shown = [line.lstrip("# -").split(":")[0] for line in lines]
    assert {name for _, name, _ in KEYS} <= set(shown)


def test_template_says_of_each_key_what_it_does_right_above_it() -> None:
    text = " ".join(line.lstrip("# ") for line in settings_template().splitlines())
    for path, name, description in KEYS:
        if not path.startswith(_WIRE):
            said = " ".join((description or "").split())
            assert f"{said} {name}:" in text, f"{path} is not explained in the template"


def test_template_fits_a_page() -> None:
    assert max(len(line) for line in settings_template().splitlines()) <= 100


@pytest.mark.parametrize(
    ("kind", "interval_s", "expected"),
    [
        ("sandbox", None, None),
        ("exact-match", 60, 60),
        ("llm", None, 21_600),
        ("llm", 0, None),
        ("llm", 60, 60),
    ],
)
def test_anchors_are_judged_again_where_a_model_judges_unless_told_otherwise(
    kind: str, interval_s: float | None, expected: float | None
) -> None:
    model = {"name": "grader", "endpoint": "http://127.0.0.1:1/v1", "model": "grader"}
    settings = Settings(judge={"kind": kind, "model": model}, anchors={"interval_s": interval_s})
    assert settings.anchor_interval_s == expected


@pytest.mark.parametrize(
    ("judges", "generator", "said"),
    [
        (("llama", "qwen"), "Llama", True),
        (("llama", None), "llama", True),
        (("llama", "qwen"), "gemma", False),
        (("llama", None), "gemma", None),
        (("llama",), None, None),
        ((), "llama", None),
    ],
)
def test_family_is_shared_where_that_can_be_known(
    judges: Sequence[str | None], generator: str | None, said: bool | None
) -> None:
    models = [{**JUROR, "name": f"m{n}", "family": family} for n, family in enumerate(judges)]
    chosen = {"kind": "llm", "model": models[0], "jury": {"members": models[1:]}} if models else {}
    recording, refusing = (
        JudgeSettings.model_validate({**chosen, "same_family": way}) for way in SameFamily
    )
    assert recording.shares_family(generator) is said
    assert refusing.refuses(generator) is bool(said)
    assert not recording.refuses(generator)
