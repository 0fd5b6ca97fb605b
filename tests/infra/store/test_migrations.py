"""The schema: what the revisions make is what the tables say, in both directions."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text

from deltawheel.contracts.dead_letter import Burial
from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.prompt import PromptKey
from deltawheel.infra.store import cycle_tables, judge_tables, loop_tables, migrations
from deltawheel.infra.store.columns import METADATA
from deltawheel.infra.store.engine import Database
from deltawheel.infra.store.schema import REVISIONS, VERSION_TABLE, needs_upgrade
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import TOO_LONG_ID, add_judged
from tests.records import WHEEL, a_dead_letter, a_pair, a_paired_end

assert cycle_tables.CYCLES.name in METADATA.tables, "all tables are declared"
assert judge_tables.CALIBRATIONS.name in METADATA.tables, "all tables are declared"
assert loop_tables.HALTS.name in METADATA.tables, "all tables are declared"

SQLITE = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
POSTGRES = (
    "SELECT 'column', table_name || '.' || column_name, data_type || is_nullable ||"
    " coalesce(column_default, '') || coalesce(collation_name, '') "
    "FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
)


def schema_of(connection: Connection) -> dict[tuple[str, str], str]:
    """Return everything that the database says of its tables, the revision's row left out."""
    if connection.dialect.name == "sqlite":
        rows = [(kind, name, sql) for kind, name, _, sql in connection.execute(text(SQLITE))]
    else:
        rows = [tuple(row) for query in POSTGRES for row in connection.execute(text(query))]
    said = {
        (kind, name): " ".join((sql or "").replace(chr(34), "").split()) for kind, name, sql in rows
    }
    return {key: sql for key, sql in said.items() if VERSION_TABLE not in key[1]}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def set_revision(url: str, revision: str) -> None:
    with connected(url) as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def test_revisions_make_exactly_what_the_tables_say(database: Database) -> None:
    with database.reading() as connection:
        migrated = schema_of(connection)
    database.downgrade("base")
    with database.writing() as connection:
        assert schema_of(connection) == {}
        METADATA.create_all(connection)
        assert schema_of(connection) == migrated
    assert len(migrated) > len(METADATA.tables)


def test_down_to_every_revision_and_up_again_is_the_same_schema(database: Database) -> None:
    with database.reading() as connection:
        newest = schema_of(connection)
    for revision in ("base", *REVISIONS):
        database.downgrade(revision)
        assert database.find_revision() == (None if revision == "base" else revision)
        database.upgrade()
        assert database.find_revision() == REVISIONS[-1]
        with database.reading() as connection:
            assert schema_of(connection) == newest


def test_upgrade_of_what_is_up_to_date_keeps_everything(store: SqlStore, url: str) -> None:
    pair = a_pair(add_judged(store))
    store.close_groups([a_paired_end(pair)])
    database = Database(url)
    database.upgrade()
    database.close()
    assert store.pair(pair.pair_id) == pair


def test_store_from_before_there_were_migrations_is_taken_over_as_it_is(url: str) -> None:
    store = SqlStore(url, wheel=WHEEL)
    prompt = add_judged(store)
    store.close()
    database = Database(url)
    database.downgrade(REVISIONS[0])
    database.close()
    with connected(url) as connection:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        connection.execute(text("CREATE TABLE schema_version (id INTEGER, version INTEGER)"))
        connection.execute(text("INSERT INTO schema_version VALUES (1, 1)"))
    again = SqlStore(url, wheel=WHEEL)
    group = again.group(prompt.key)
    again.close()
    assert group is not None
    assert group.has_ended
    SqlStore.open_existing(url, wheel=WHEEL).close()


def test_upgrade_names_the_prompts_of_letters_that_were_stored_before(url: str) -> None:
    store = SqlStore(url, wheel=WHEEL)
    prompt = add_judged(store)
    no_ids = [PromptKey("no\0id", 0), PromptKey(TOO_LONG_ID, 0)]
    keys = [prompt.key, None, *no_ids, PromptKey("prompt_unknown", 7)]
    for number, key in enumerate(keys):
        store.bury([Burial(a_dead_letter(b"%d" % number, prompt_key=key))])
    before = {entry.entry_id: entry for entry in store.letter_entries()}
    store.close()
    database = Database(url)
    database.downgrade("0003")
    database.upgrade()
    database.close()
    again = SqlStore(url, wheel=WHEEL)
    assert {entry.entry_id: entry for entry in again.letter_entries()} == before
    again.close()
    assert {entry.held_key for entry in before.values()} == {prompt.key, None}
    columns = "SELECT prompt_id, round FROM dead_letters WHERE prompt_id IS NOT NULL"
    with connected(url) as connection:
        named = {PromptKey(*row) for row in connection.execute(text(columns))}
    assert named == {prompt.key, PromptKey("prompt_unknown", 7)}


@pytest.mark.parametrize("must_exist", [True, False])
def test_newer_schema_is_refused(
    url: str, opened: Callable[..., SqlStore], must_exist: bool
) -> None:
    opened().close()
    set_revision(url, "9999")
    newest = REVISIONS[-1]
    with pytest.raises(ConfigError, match=f"schema 9999, but this deltawheel knows {newest}: inst"):
        opened(must_exist=must_exist)


def test_older_and_missing_schemas_need_an_upgrade_and_the_newest_none() -> None:
    known = ("0001", "0002")
    assert needs_upgrade(None, name="s", known=known)
    assert needs_upgrade("0001", name="s", known=known)
    assert not needs_upgrade("0002", name="s", known=known)
    with pytest.raises(ConfigError, match="has schema 0003, but this deltawheel knows 0002"):
        needs_upgrade("0003", name="s", known=known)


def test_known_revisions_are_those_that_lie_in_the_folder() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    files = sorted(file.name for file in folder.glob("r*.py"))
    assert tuple(name[1:5] for name in files) == REVISIONS


def test_opening_a_store_that_is_up_to_date_imports_no_alembic(url: str) -> None:
    SqlStore(url, wheel=WHEEL).close()
    program = (
        "import sys\n"
        "from deltawheel.infra.store.store import SqlStore\n"
        f"SqlStore({url!r}, wheel='test').close()\n"
        "print([name for name in ('alembic', 'mako') if name in sys.modules])\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert said.stdout.strip() == b"[]"
