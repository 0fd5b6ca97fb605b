"""`deltawheel judge score`: a file is judged line by line, and gone on with after a kill."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from deltawheel.contracts.rubric import PAPER_DIMENSIONS
from tests.judged import judged_by
from tests.ops.terminals import Shell
from tests.servers import stub_in_thread

GRADES = json.dumps(dict.fromkeys(PAPER_DIMENSIONS, 4))
TWO_VOTES: dict[str, Any] = {"mode": "votes", "min_votes": 2, "max_votes": 2}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(patch=monkeypatch)


def exact(shell: Shell, tmp_path: Path, *, ways: str = "") -> Shell:
    config = tmp_path / "deltawheel.yaml"
    config.write_text(f"judge: {{kind: exact-match{ways}}}\ntraining: {{is_enabled: false}}\n")
    return shell.on(config)


def a_file(tmp_path: Path, *lines: object) -> str:
    path = tmp_path / "traces.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts) + "\n")
    return str(path)


def a_line(number: int, *, answer: int | None = None) -> dict[str, str]:
    said = number + 1 if answer is None else answer
    return {"text": f"{number}+1=", "answer": str(said), "reference_answer": str(number + 1)}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_gets_its_scores_and_one_that_is_none_gets_a_reason(
    shell: Shell, tmp_path: Path
) -> None:
    named = a_file(tmp_path, a_line(1), "", "{", a_line(2, answer=7), {"text": "no answer"})
    out = tmp_path / "scores.jsonl"
    done = exact(shell, tmp_path).run("judge", "score", named, "--out", str(out), "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert (told["lines"], told["looked_at"], told["looked_at_before"]) == (4, 4, 0)
    assert [fault["line"] for fault in told["not_judged"]] == [3, 5]
    found = {row["line"]: row for row in rows(out)}
    assert found[1]["scores"]["factuality"]["mean"] == 5
    assert found[4]["scores"]["factuality"]["mean"] == 1
    assert found[1]["judge_revision"]
    assert "no 'answer'" in found[5]["fault"]


def test_killed_run_goes_on_where_it_was_and_cuts_half_a_line_off(
    shell: Shell, tmp_path: Path
) -> None:
    named, out = a_file(tmp_path, *map(a_line, range(8))), tmp_path / "scores.jsonl"
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = lambda _: GRADES
        shell = shell.on(judged_by(url, tmp_path, **TWO_VOTES))
        assert shell.run("judge", "score", named, "--out", str(out)).code == 0
        whole = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(b"".join(whole[:5]) + whole[5][:20])
        num_asked = len(stub.asked("/chat/completions"))
        again = shell.run("judge", "score", named, "--out", str(out), "--json")
        assert len(stub.asked("/chat/completions")) == num_asked + 3
    assert again.code == 0, again.err
    told = json.loads(again.out)
    assert (told["looked_at"], told["looked_at_before"]) == (3, 5)
    assert sorted(row["line"] for row in rows(out)) == list(range(1, 9))


@pytest.mark.parametrize(("options", "code"), [(("--once",), 1), ((), 0)])
def test_answer_of_no_use_is_asked_for_again_unless_once_was_said(
    shell: Shell, tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    named, out = a_file(tmp_path, a_line(1)), tmp_path / "scores.jsonl"
    answers = iter(["five stars"])
    with stub_in_thread("echo") as (stub, url):
        stub.models["grader"] = lambda _: next(answers, GRADES)
        shell = shell.on(judged_by(url, tmp_path, **TWO_VOTES))
        done = shell.run("judge", "score", named, "--out", str(out), *options)
    assert done.code == code
    [row] = rows(out)
    assert ("fault" in row) == (code == 1)
    if code:
        assert "no JSON object" in row["fault"]
        assert "line 1: grader:" in done.err


def test_lines_that_the_file_no_longer_has_count_for_nothing(shell: Shell, tmp_path: Path) -> None:
    out = str(tmp_path / "scores.jsonl")
    shell = exact(shell, tmp_path)
    named = a_file(tmp_path, a_line(1), a_line(2), {"text": "no answer"})
    assert shell.run("judge", "score", named, "--out", out, "--json").code == 1
    shorter = shell.run("judge", "score", a_file(tmp_path, a_line(1)), "--out", out, "--json")
    told = json.loads(shorter.out)
    assert (told["lines"], told["looked_at"], told["looked_at_before"]) == (1, 0, 1)
    assert (told["not_judged"], shorter.code) == ([], 0)


def test_scores_of_another_file_or_judge_are_not_mixed(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"

    def refusal(number: int, into: str = str(out)) -> str:
        done = shell.run("judge", "score", a_file(tmp_path, a_line(number)), "--out", into)
        assert done.code == 1
        return done.err

    shell = exact(shell, tmp_path)
    shell.run("judge", "score", a_file(tmp_path, a_line(1)), "--out", str(out))
    assert "begun with another file, whose line 1 is not this one's" in refusal(2)
    named = str(tmp_path / "traces.jsonl")
    assert "holds something else than scores" in refusal(1, into=named)
    assert rows(Path(named)) == [a_line(1)]
    shell = exact(shell, tmp_path, ways=", inverted: true")
    assert "it was begun with judge_revision" in refusal(1)


def test_file_that_cannot_be_written_is_named(shell: Shell, tmp_path: Path) -> None:
    named = a_file(tmp_path, a_line(1))
    shell = exact(shell, tmp_path)
    nowhere = tmp_path / "nowhere" / "scores.jsonl"
    done = shell.run("judge", "score", named, "--out", str(nowhere))
    assert (done.code, "cannot be written: No such file" in done.err) == (1, True)
    taken = tmp_path / "taken.jsonl"
    with taken.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = shell.run("judge", "score", named, "--out", str(taken))
    assert (done.code, "another process writes it" in done.err) == (1, True)
