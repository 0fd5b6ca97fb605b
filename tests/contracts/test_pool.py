from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.generator import Generator, PoolEvent, PoolEventKind
from deltawheel.contracts.pool import Pool, declaration_events, generator_delta

AT = datetime(2026, 1, 1, tzinfo=UTC)


def a_generator(name: str = "strong", revision: str = "1", capability: float = 0.0) -> Generator:
    return Generator(
        name=name, revision=revision, endpoint="server:local", model=name, capability=capability
    )


def an_event(kind: PoolEventKind, name: str, cause: str, revision: str = "1") -> PoolEvent:
    return PoolEvent(
        kind=kind, generator=a_generator(name, revision), reason="test", at=AT, cause=cause
    )


def settle(log: list[PoolEvent], declared: list[Generator]) -> list[PoolEvent]:
    return log + declaration_events(log, declared, at=AT)


def test_newly_declared_generator_is_added() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak")])
    assert set(Pool.from_log(log).members) == {"strong", "weak"}


def test_generator_that_is_declared_no_longer_is_drained() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak")])
    assert set(Pool.from_log(settle(log, [a_generator("strong")])).members) == {"strong"}


def test_same_declaration_again_changes_nothing() -> None:
    log = settle([], [a_generator("strong")])
    assert declaration_events(log, [a_generator("strong")], at=AT) == []


def test_new_revision_replaces_the_old_one() -> None:
    log = settle(settle([], [a_generator("strong", "1")]), [a_generator("strong", "2")])
    assert Pool.from_log(log).members["strong"].revision == "2"


def test_restart_does_not_drain_a_promoted_member() -> None:
    log = settle([], [a_generator("strong")])
    log.append(an_event(PoolEventKind.PROMOTED, "model-v1", "promotion_1"))
    log = settle(log, [a_generator("strong")])
    assert set(Pool.from_log(log).members) == {"strong", "model-v1"}


def test_operators_drain_stands_after_a_restart() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak")])
    log.append(an_event(PoolEventKind.DRAINED, "weak", "operator 1"))
    log = settle(log, [a_generator("strong"), a_generator("weak")])
    assert set(Pool.from_log(log).members) == {"strong"}


def test_generator_declared_again_after_it_was_gone_comes_back() -> None:
    log = settle(settle([], [a_generator("strong")]), [])
    assert set(Pool.from_log(settle(log, [a_generator("strong")])).members) == {"strong"}


def test_member_that_has_left_is_a_member_still_and_is_dealt_nothing_until_it_returns() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak")])
    log.append(an_event(PoolEventKind.LEFT, "weak", "health 1"))
    gone = Pool.from_log(log)
    assert [it.name for it in gone.standing()] == ["strong"]
    assert (set(gone.members), gone.absent) == ({"strong", "weak"}, {"weak": "test"})
    log.append(an_event(PoolEventKind.RETURNED, "weak", "health 1"))
    assert [it.name for it in Pool.from_log(log).standing()] == ["strong", "weak"]


def test_absence_of_an_earlier_revision_says_nothing_of_the_new_one() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak", "1")])
    log.append(an_event(PoolEventKind.LEFT, "weak", "health 1", revision="1"))
    log = settle(log, [a_generator("strong"), a_generator("weak", "2")])
    log.append(an_event(PoolEventKind.LEFT, "weak", "health 2", revision="1"))
    assert Pool.from_log(log).absent == {}


def test_retired_member_is_gone_and_an_added_one_is_left_alone_by_declarations() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak")])
    log.append(an_event(PoolEventKind.ADDED, "guest", "api 1"))
    log.append(an_event(PoolEventKind.RETIRED, "weak", "api 2"))
    log = settle(log, [a_generator("strong"), a_generator("weak")])
    assert set(Pool.from_log(log).members) == {"strong", "guest"}


@given(st.lists(st.sets(st.sampled_from(["a", "b", "c"])), max_size=6))
def test_pool_is_what_was_declared_last(declarations: list[set[str]]) -> None:
    log: list[PoolEvent] = []
    for names in declarations:
        log = settle(log, [a_generator(name) for name in sorted(names)])
        assert set(Pool.from_log(log).members) == names
        assert len({event.event_id for event in log}) == len(log)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["declare", "add", "drain"]),
            st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
        ),
        max_size=8,
    )
)
def test_settings_touch_no_member_that_was_added_whatever_was_done_before(
    steps: list[tuple[str, dict[str, str]]],
) -> None:
    log: list[PoolEvent] = []
    added: dict[str, str] = {}
    declared: dict[str, str] = {}
    for number, (what, members) in enumerate(steps):
        match what:
            case "declare":
                declared = members
                log = settle(log, [a_generator(*each) for each in sorted(members.items())])
            case "add":
                added |= members
                log += [
                    an_event(PoolEventKind.ADDED, n, f"api {number}", r) for n, r in members.items()
                ]
            case _:
                log += [an_event(PoolEventKind.DRAINED, n, f"api {number}") for n in members]
                added = {n: r for n, r in added.items() if n not in members}
        standing = {n: it.revision for n, it in Pool.from_log(log).members.items()}
        assert added.items() <= standing.items()
        assert standing.keys() <= added.keys() | declared.keys()


def test_replaced_declaration_stands_until_it_is_drained_whatever_the_settings_say() -> None:
    log = settle([], [a_generator("strong", "1")])
    log.append(an_event(PoolEventKind.ADDED, "strong", "api 1", "2"))
    for declared in ([], [a_generator("strong", "3")]):
        assert declaration_events(log, declared, at=AT) == []
    log.append(an_event(PoolEventKind.DRAINED, "strong", "api 2", "2"))
    log = settle(log, [a_generator("strong", "3")])
    assert Pool.from_log(log).members["strong"].revision == "3"


def test_member_that_returns_leaves_the_pools_revision_as_it_was() -> None:
    log = settle([], [a_generator("strong"), a_generator("weak")])
    before = Pool.from_log(log).revision
    log.append(an_event(PoolEventKind.DRAINED, "strong", "api 1"))
    assert Pool.from_log(log).revision != before
    log.append(an_event(PoolEventKind.DECLARED, "strong", "api 2"))
    assert Pool.from_log(log).revision == before


def test_revision_of_the_pool_names_the_ladder_as_it_stands() -> None:
    strong = a_generator("strong")
    ladders = [
        [strong],
        [strong, a_generator("weak")],
        [a_generator("strong", "2")],
        [a_generator("strong", capability=1.0)],
        [strong.model_copy(update={"capability_stderr": 1.0})],
        [a_generator("weak")],
    ]
    revisions = [Pool.from_log(settle([], ladder)).revision for ladder in ladders]
    assert len(set(revisions)) == len(ladders)
    moved = strong.model_copy(update={"endpoint": "http://elsewhere/v1"})
    assert Pool.from_log(settle([], [moved])).revision == revisions[0]


def test_generator_delta_adds_errors_in_quadrature() -> None:
    strong, weak = a_generator("strong", capability=2), a_generator("weak", capability=0.5)
    delta = generator_delta(strong, weak, pool=Pool.from_log([]))
    assert delta.estimate == 1.5
    assert delta.stderr == (0.5**2 + 0.5**2) ** 0.5
