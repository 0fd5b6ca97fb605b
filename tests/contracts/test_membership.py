"""Changing the pool: what the log then says, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawheel.contracts.generator import PoolEvent, PoolEventKind
from deltawheel.contracts.membership import (
    ChangeRefusedError,
    NoMemberError,
    PoolChange,
    history_of,
)
from deltawheel.contracts.pool import Pool, declaration_events
from tests.records import T0, a_generator, a_pool_event


def a_change(asking: str = "1") -> PoolChange:
    return PoolChange(by="ann", why="it is slow", asking=asking, at=T0)


def a_log(*names: str) -> list[PoolEvent]:
    return [a_pool_event(a_generator(name)) for name in names or ("strong", "mid", "weak")]


def members(log: list[PoolEvent]) -> set[str]:
    return set(Pool.from_log(log).members)


def test_event_says_who_and_why_and_is_named_after_the_asking() -> None:
    event = a_change("7").drain(a_log(), "weak")
    assert (event.kind, event.reason) == (PoolEventKind.DRAINED, "by ann: it is slow")
    assert (event.cause, event.at) == ("operator 7", T0)
    assert event.event_id != a_change("8").drain(a_log(), "weak").event_id


def test_added_member_stands_whatever_the_settings_declare() -> None:
    log = a_log("strong", "weak")
    log.append(a_change().add(log, a_generator("guest")))
    declared = [a_generator(name) for name in ("strong", "weak")]
    log += declaration_events(log, declared, at=T0)
    assert members(log) == {"strong", "weak", "guest"}
    assert Pool.from_log(log).came_by["guest"] is PoolEventKind.ADDED


def test_name_that_stands_is_replaced_only_on_purpose() -> None:
    log = a_log()
    newer = a_generator("weak", revision="r2")
    with pytest.raises(ChangeRefusedError, match=r"weak@r1 is in the pool already.*--replace"):
        a_change().add(log, newer)
    log.append(a_change().add(log, newer, is_replacing=True))
    assert Pool.from_log(log).members["weak"] == newer


def test_unknown_name_is_refused_with_those_that_are_known() -> None:
    for ask in (a_change().drain, a_change().retire, a_change().bring_back):
        with pytest.raises(NoMemberError, match=r"'wek'.*'mid', 'strong', 'weak'"):
            ask(a_log(), "wek")


def test_last_two_that_stand_are_kept_unless_somebody_insists() -> None:
    log = a_log("strong", "weak")
    for ask in (a_change().drain, a_change().retire):
        with pytest.raises(ChangeRefusedError, match=r"without weak only \['strong'\] would stand"):
            ask(log, "weak")
        assert ask(log, "weak", is_forced=True).generator.name == "weak"


def test_member_that_has_left_counts_for_nobody_and_may_be_drained() -> None:
    log = a_log()
    log.append(a_pool_event(a_generator("mid"), kind=PoolEventKind.LEFT, cause="health 1"))
    with pytest.raises(ChangeRefusedError, match="would stand"):
        a_change().drain(log, "weak")
    assert a_change().drain(log, "mid").kind is PoolEventKind.DRAINED


def test_what_has_gone_cannot_go_again_but_the_drained_can_be_retired() -> None:
    log = a_log()
    log.append(a_change("1").drain(log, "weak"))
    with pytest.raises(ChangeRefusedError, match=r"weak is drained already, since 2026.*by ann"):
        a_change("2").drain(log, "weak")
    log.append(a_change("2").retire(log, "weak"))
    with pytest.raises(ChangeRefusedError, match="weak is retired already"):
        a_change("3").retire(log, "weak")
    assert members(log) == {"strong", "mid"}


@pytest.mark.parametrize("kind", [PoolEventKind.DECLARED, PoolEventKind.ADDED])
def test_returned_member_came_as_it_came_before(kind: PoolEventKind) -> None:
    log = [*a_log("strong", "weak"), a_pool_event(a_generator("mid"), kind=kind)]
    before = Pool.from_log(log)
    log.append(a_change("1").drain(log, "mid"))
    log.append(a_change("2").bring_back(log, "mid"))
    assert Pool.from_log(log) == before


def test_promoted_member_that_returns_is_a_promoted_one() -> None:
    log = [*a_log(), a_pool_event(a_generator("v1"), kind=PoolEventKind.PROMOTED, cause="p1")]
    log.append(a_change("1").retire(log, "v1"))
    log.append(a_change("2").bring_back(log, "v1"))
    assert Pool.from_log(log).promoted == {"v1"}


def test_member_that_the_settings_gave_up_returns_as_an_added_one_and_stays() -> None:
    declared = [a_generator(name) for name in ("strong", "mid")]
    log = a_log()
    log += declaration_events(log, declared, at=T0)
    log.append(a_change().bring_back(log, "weak"))
    assert Pool.from_log(log).came_by["weak"] is PoolEventKind.ADDED
    assert declaration_events(log, declared, at=T0) == []


def test_member_that_only_left_for_a_while_returns_by_itself() -> None:
    log = a_log()
    log.append(a_pool_event(a_generator("mid"), kind=PoolEventKind.LEFT, cause="health 1"))
    with pytest.raises(ChangeRefusedError, match="returns by itself: a test said so"):
        a_change().bring_back(log, "mid")


def test_history_is_all_that_the_log_says_of_a_name() -> None:
    log = a_log()
    log.append(a_change().drain(log, "weak"))
    assert history_of(log, "weak") == [log[2], log[3]]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("drbf")), max_size=25))
def test_whatever_is_asked_two_stand_unless_forced_and_the_log_stays_readable(
    askings: list[tuple[str, str]],
) -> None:
    log = a_log("a", "b", "c", "d")
    is_forced = False
    for number, (name, what) in enumerate(askings):
        change = a_change(str(number))
        before = members(log)
        try:
            match what:
                case "d":
                    log.append(change.drain(log, name))
                case "r":
                    log.append(change.retire(log, name))
                case "b":
                    log.append(change.bring_back(log, name))
                case _:
                    log.append(change.drain(log, name, is_forced=True))
                    is_forced = True
        except ChangeRefusedError:
            assert members(log) == before
        else:
            assert (name in members(log)) == (what == "b")
        assert is_forced or len(members(log)) >= 2
