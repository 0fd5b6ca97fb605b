"""What all tables are made of: one set of names, one kind of time, two kinds of text."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, TypeAlias, cast

from sqlalchemy import DateTime, Dialect, LargeBinary, MetaData, String, Table, Text, TypeDecorator
from sqlmodel import AutoString, Field, SQLModel

from deltawheel.contracts.errors import InvalidRecordError

__all__ = [
    "METADATA",
    "KeyText",
    "LongText",
    "Moment",
    "OptionalBytes",
    "OptionalLongText",
    "OptionalMoment",
    "Row",
    "UtcDateTime",
    "is_key",
    "table_of",
]

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every constraint has a name from the first day, or no migration could drop it."""


_NUL: Final = "\0"
_MAX_KEY_BYTES: Final = 512
"""Ids take fewer than a hundred; a row of PostgreSQL's indexes ends at 2,704."""


def is_key(text: str) -> bool:
    """Whether both databases can hold and index this text as it is, so that it may be an id.

    Ids that others write into records may be anything: what finds rows by them, or stores them in
    a column, asks first.
    """
    return _is_text(text) and len(text.encode()) <= _MAX_KEY_BYTES


def _is_text(text: str) -> bool:
    if _NUL in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC in the database, which on SQLite keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn into UTC, whatever zone the caller's value had."""
        if value is None:
            return None
        at = value.astimezone(UTC)
        return at.replace(tzinfo=None) if dialect.name == "sqlite" else at

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class KeyText(TypeDecorator[str]):
    """A text that rows are found or ordered by: the same on both databases, character by character.

    PostgreSQL would order by the language that its database was made with, and holds no NUL.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:  # noqa: ANN401 - SQLAlchemy's own type
        """Compare by code point, as SQLite and Python do."""
        return dialect.type_descriptor(
            String(collation="C") if dialect.name == "postgresql" else String()
        )

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse what one of the databases cannot hold.

        Raises:
            InvalidRecordError: the text holds a NUL, or half of a surrogate pair.
        """
        if value is not None and not _is_text(value):
            raise InvalidRecordError(
                f"{value[:100]!r} holds a NUL character or half of a surrogate pair, which no id, "
                "name or revision may"
            )
        return value


class FreeText(TypeDecorator[str]):
    """A text that is only kept and given back; JSON writes a NUL as an escape, and loses nothing.

    What is no JSON, such as the last words of a process that crashed, gets a replacement character
    for it: PostgreSQL holds no NUL.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what one of the databases cannot hold."""
        return value.replace(_NUL, "\N{REPLACEMENT CHARACTER}") if value else value


class Row(SQLModel):
    """What all tables share."""

    metadata: ClassVar[MetaData] = METADATA

    wheel: str


_UTC = cast(Any, UtcDateTime)
_FREE = cast(Any, FreeText)
"""SQLModel's stub takes classes of plain types only."""

Moment: TypeAlias = Annotated[datetime, Field(sa_type=_UTC)]
OptionalMoment: TypeAlias = Annotated[datetime | None, Field(default=None, sa_type=_UTC)]
LongText: TypeAlias = Annotated[str, Field(sa_type=_FREE)]
OptionalLongText: TypeAlias = Annotated[str | None, Field(default=None, sa_type=_FREE)]
OptionalBytes: TypeAlias = Annotated[bytes | None, Field(default=None, sa_type=LargeBinary)]


def table_of(row: type[SQLModel]) -> Table:
    """Return the Core table behind a class, which statements are built from.

    Its plain texts become `KeyText`: whatever is no `LongText` may be asked for or ordered by.
    """
    table = METADATA.tables[cast(str, row.__tablename__)]
    for column in table.columns:
        if isinstance(column.type, AutoString):
            column.type = KeyText()
    return table
