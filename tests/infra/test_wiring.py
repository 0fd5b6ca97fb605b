"""What is decided where adapters are built."""

import re
from pathlib import Path

import pytest

from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring


def instance_id(home: Path, group: str = "judging") -> str:
    return wiring._instance_id(Settings(home=home), group)


def test_static_member_is_the_same_at_every_start_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = instance_id(tmp_path / "a")
    assert name == instance_id(tmp_path / "b" / ".." / "a")
    assert len({name, instance_id(tmp_path / "b"), instance_id(tmp_path / "a", "curation")}) == 3
    monkeypatch.setattr("socket.gethostname", lambda: "another host, ünd " + "x" * 300)
    elsewhere = instance_id(tmp_path / "a")
    assert elsewhere != name
    assert re.fullmatch(r"judging\.another-host---nd-x+\.[0-9a-f]{8}", elsewhere)
    assert len(elsewhere) < 249
