"""What only PostgreSQL does: many writers, other zones and orders, keys too long, being away."""

import os
import random
import signal
import string
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import func, select, text

from deltawheel.contracts.errors import (
    STORE,
    ConfigError,
    DeltawheelError,
    InvalidRecordError,
    RetryLaterError,
)
from deltawheel.infra.store.columns import METADATA, KeyText
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.store import SqlStore
from deltawheel.infra.store.tables import PROMPTS
from tests.infra.store.stored import add_judged
from tests.postgres import PostgresServer, postgres_server
from tests.records import WHEEL, a_judgement, a_pair, a_paired_end, a_prompt, a_trace

pytestmark = pytest.mark.integration


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


def test_texts_are_ordered_by_code_point_whatever_the_database_speaks(
    store: SqlStore, url: str
) -> None:
    texts = [
        (table.name, column.name)
        for table in METADATA.sorted_tables
        for column in table.columns
        if isinstance(column.type, KeyText)
    ]
    database = Database(url)
    with database.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT table_name, column_name, collation_name "
            "FROM information_schema.columns WHERE table_schema = 'public'"
        ).all()
    database.close()
    collations = {(table, column): collation for table, column, collation in rows}
    assert {collations[place] for place in texts} == {"C"}


def test_reader_sees_one_moment_whatever_is_written_meanwhile(store: SqlStore, url: str) -> None:
    reader = Database(url)
    count = select(func.count()).select_from(PROMPTS)
    with reader.reading() as connection:
        assert connection.scalar(count) == 0
        store.add_prompts([a_prompt()])
        assert connection.scalar(count) == 0
    with reader.reading() as connection:
        assert connection.scalar(count) == 1
    reader.close()


def test_times_are_read_in_utc_whatever_zone_the_database_has(
    name: str, postgres: PostgresServer, opened: Callable[..., SqlStore]
) -> None:
    postgres.execute(f"ALTER DATABASE {name} SET timezone TO 'Pacific/Kiritimati'")
    prompt = a_prompt(
        accepted_at=a_prompt().accepted_at.replace(year=9999, month=12, day=31, hour=20)
    )
    store = opened()
    store.add_prompts([prompt])
    (row,) = store.evidence()
    assert row.opened_at == prompt.accepted_at
    assert row.opened_at.utcoffset() == prompt.accepted_at.utcoffset()


def test_key_that_no_index_can_hold_is_the_fault_of_the_record(store: SqlStore) -> None:
    letters = random.Random(0)
    long = "".join(letters.choices(string.ascii_letters, k=20_000))
    with pytest.raises(InvalidRecordError, match="cannot hold this record"):
        store.add_judgements([a_judgement(judge_revision=long)])
    assert store.add_judgements([a_judgement()])[0] == a_judgement()


@pytest.fixture
def name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def test_read_only_database_is_read_but_not_written(
    name: str, postgres: PostgresServer, opened: Callable[..., SqlStore]
) -> None:
    opened().close()
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only TO on")
    store = opened()
    assert store.progress().is_drained
    with pytest.raises(DeltawheelError, match=r"is read-only: set store\.url to the server that"):
        store.add_traces([a_trace()])


def test_user_without_rights_is_told_what_to_grant(
    url: str, name: str, postgres: PostgresServer, opened: Callable[..., SqlStore]
) -> None:
    opened().close()
    postgres.execute(f"CREATE ROLE stranger_{name} LOGIN")
    with pytest.raises(DeltawheelError, match="may not be accessed: grant this user the right"):
        SqlStore(url.replace("postgres@", f"stranger_{name}@"), wheel=WHEEL)
    postgres.execute(f"DROP ROLE stranger_{name}")


def test_driver_that_is_not_installed_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"needs a driver that is not there \(.*pg8000"):
        SqlStore(url.replace("postgresql:", "postgresql+pg8000:"), wheel=WHEEL)


def test_password_is_in_no_message(url: str) -> None:
    secret = url.replace("postgres@", "postgres:s3cret@").replace("wheel_", "nowhere_")
    with pytest.raises(RetryLaterError, match="does not exist") as caught:
        SqlStore(secret, wheel=WHEEL)
    assert "s3cret" not in str(caught.value)


def test_database_that_does_not_exist_is_named(url: str) -> None:
    with pytest.raises(RetryLaterError, match='database "nowhere" does not exist'):
        SqlStore(f"postgresql://postgres@/nowhere?{url.partition('?')[2]}", wheel=WHEEL)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop the process behind a connection: its kernel goes on answering for it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


BACKEND = text("SELECT pg_backend_pid()")


def test_server_that_falls_silent_is_an_outage_and_another_connection_is_made(url: str) -> None:
    with closing(Database(url, max_silence_s=0.5)) as database:
        with database.writing() as connection:
            pid = connection.scalar(BACKEND)
            assert isinstance(pid, int)
        with stopped(pid), database.writing() as connection:
            assert connection.scalar(BACKEND) != pid
        with (
            pytest.raises(
                RetryLaterError, match=r"does not answer: .*nothing for 0\.5 s"
            ) as caught,
            database.writing() as connection,
            stopped(connection.scalar(BACKEND)),
        ):
            connection.execute(text("SELECT 1"))
        assert caught.value.dependency == STORE


def test_statement_that_may_take_long_is_waited_for(url: str) -> None:
    slow = text("SELECT pg_sleep(0.6)")
    with closing(Database(url, max_silence_s=0.2)) as database:
        with database.reading(may_take_long=True) as connection:
            connection.execute(slow)
        with pytest.raises(RetryLaterError, match="nothing for"), database.reading() as connection:
            connection.execute(slow)


@pytest.mark.parametrize(("said", "idle"), [("", "10"), ("&keepalives_idle=77", "77")])
def test_host_that_is_gone_is_noticed_by_the_network_as_soon_as_the_url_says(
    url: str, said: str, idle: str
) -> None:
    with closing(Database(url + said)) as database, database.reading() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        options = raw.info.get_parameters()
    assert options["keepalives_idle"] == idle
    assert (options["keepalives_interval"], options["keepalives_count"]) == ("5", "3")
    assert options["tcp_user_timeout"] == "30000"


def test_server_that_restarts_loses_nothing_and_is_found_again() -> None:
    with postgres_server() as server, server.database() as url:
        store = SqlStore(url, wheel=WHEEL)
        pair = a_pair(add_judged(store))
        store.close_groups([a_paired_end(pair)])
        server.stop()
        with pytest.raises(RetryLaterError, match="does not answer") as caught:
            store.add_traces([a_trace()])
        assert caught.value.dependency == STORE
        with pytest.raises(RetryLaterError, match="does not answer"):
            SqlStore(url, wheel=WHEEL)
        server.start()
        assert store.pair(pair.pair_id) == pair
        assert store.add_traces([a_trace()])[0] == a_trace()
        store.close()
