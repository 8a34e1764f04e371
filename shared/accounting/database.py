"""Opens the database, and brings it up to date with the migrations of this package."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from pydantic import AfterValidator, SecretStr
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_SECONDS = 5
"""Longest wait for a lock of SQLite's, or a connection of a server's."""


def _is_known(value: SecretStr) -> SecretStr:
    try:
        backend = make_url(value.get_secret_value()).get_backend_name()
    except ArgumentError:
        raise ValueError("not a URL of a database") from None
    if backend not in ("sqlite", "postgresql"):
        raise ValueError("should begin with sqlite:// or postgresql+psycopg://")
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_is_known)]
"""The type of a setting that says which database it is."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = 0x6F313179
"""The number of PostgreSQL's advisory lock within which one process alone migrates."""


class UnknownSchema(SQLAlchemyError):
    """The database was brought up to date by a newer version than this one."""


def connect(url: str) -> Engine:
    """The engine of a database; nothing is opened yet. Raises ArgumentError for a bad URL."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        milliseconds = BUSY_SECONDS * 1000
        options = {
            "connect_timeout": BUSY_SECONDS,
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        }
        return create_engine(parsed, pool_pre_ping=True, connect_args=options)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def sqlite_file(url: str | URL) -> Path | None:
    """The file of a SQLite database; None for another one, or one in memory."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database)).expanduser()


def upgrade(engine: Engine) -> None:
    """Make the tables, or bring them up to date; several processes may do so at once.

    Raises OSError for a file whose folder can't be made, and SQLAlchemyError: UnknownSchema for a
    database that is newer than this code.
    """
    if (file := sqlite_file(engine.url)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        begin(connection)
        _migrate(connection)


class Migrated:
    """An engine whose database is brought up to date before its first use."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._is_current = False

    def ready(self) -> Engine:
        """The engine. Raises OSError and SQLAlchemyError, see `upgrade`."""
        if not self._is_current:
            upgrade(self.engine)
            self._is_current = True
        return self.engine


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what happens where the row is there already."""
    is_sqlite = connection.dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def begin(connection: Connection) -> None:
    """Begin a transaction that writes: one of SQLite's could else fail at its first write."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def utc(time: datetime) -> datetime:
    """A time as the database gave it: SQLite forgets the zone, PostgreSQL gives it in its own."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnknownSchema(str(error)) from error


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Let readers and a writer work at once, and leave transactions to SQLAlchemy."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
