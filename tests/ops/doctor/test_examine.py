"""How checks are run: at the same time, to a deadline, each for itself."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.ops.doctor.examine import CHECKS, examine
from deltawheel.ops.doctor.findings import Finding, Level, Site, failure, from_sentence, ok
from tests.ops.doctor.sites import KAFKA_IMPORTED, a_site

pytestmark = KAFKA_IMPORTED


def fine(site: Site) -> Iterator[Finding]:
    yield ok("fine")


def test_checks_run_at_the_same_time_and_are_shown_in_their_order(tmp_path: Path) -> None:
    met = threading.Barrier(2, timeout=10)

    def meeting(site: Site) -> Iterator[Finding]:
        met.wait()
        yield ok("met")

    found = examine(a_site(tmp_path), {"a": meeting, "b": meeting, "c": fine})
    assert [(one.check, one.finding.found) for one in found] == [
        ("a", "met"),
        ("b", "met"),
        ("c", "fine"),
    ]


def test_check_that_does_not_end_is_a_failure_and_holds_up_no_other(tmp_path: Path) -> None:
    ended = threading.Event()

    def waiting(site: Site) -> Iterator[Finding]:
        ended.wait(60)
        yield ok("at last")

    try:
        found = examine(a_site(tmp_path), {"slow": waiting, "quick": fine}, deadline_s=0.2)
    finally:
        ended.set()
    assert [one.finding.level for one in found] == [Level.FAILURE, Level.OK]
    assert found[0].finding.found == "no result within 0.2 s"


def test_check_that_fails_itself_is_told_beside_the_others(tmp_path: Path) -> None:
    def broken(site: Site) -> Iterator[Finding]:
        raise ZeroDivisionError("by zero")
        yield ok("never")

    broke, rest = examine(a_site(tmp_path), {"broken": broken, "quick": fine})
    assert broke.finding.found == "the check itself failed: ZeroDivisionError: by zero"
    assert rest.finding == ok("fine")


def test_error_of_ours_is_told_with_its_own_remedy(tmp_path: Path) -> None:
    def refused(site: Site) -> Iterator[Finding]:
        raise ConfigError("servers: vLLM is missing; run `make setup`")
        yield ok("never")

    [one] = examine(a_site(tmp_path), {"servers": refused})
    assert one.finding == failure("servers: vLLM is missing", "run `make setup`")


@pytest.mark.parametrize(
    ("sentence", "fact", "fix"),
    [
        ("a.b: it is gone; give another", "a.b: it is gone", "give another"),
        ("a is b, which others reach: set c: d", "a is b, which others reach", "set c: d"),
        ("a.b: the file is damaged: move it", "a.b: the file is damaged", "move it"),
        ("it is so", "it is so", "put this right, then look again"),
    ],
)
def test_sentences_are_taken_apart_into_fact_and_fix(sentence: str, fact: str, fix: str) -> None:
    assert from_sentence(sentence) == failure(fact, fix)


def test_known_fix_is_taken_where_a_sentence_holds_none() -> None:
    found = from_sentence("a: line 1 is wrong (x: y)", otherwise="correct it")
    assert found == failure("a: line 1 is wrong (x: y)", "correct it")


@pytest.mark.parametrize("level", [Level.WARNING, Level.FAILURE])
def test_finding_that_is_not_ok_says_what_to_do(level: Level) -> None:
    with pytest.raises(ValueError, match="only ok needs nothing done"):
        Finding(level=level, found="it is gone")


def test_finding_that_is_ok_asks_for_nothing() -> None:
    with pytest.raises(ValueError, match="only ok needs nothing done"):
        Finding(level=Level.OK, found="it is there", todo="nothing")


def test_every_check_says_something_of_an_empty_home_and_leaves_it_empty(tmp_path: Path) -> None:
    found = examine(a_site(tmp_path / "home"), deadline_s=60)
    assert {one.check for one in found} == set(CHECKS)
    assert not (tmp_path / "home").exists()
