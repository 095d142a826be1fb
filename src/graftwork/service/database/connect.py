"""Connections: SQLite for one machine, PostgreSQL by its URL; the same tables and code on both."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from graftwork.errors import RequestError, WorkError

BUSY_S = 20.0
"""How long one writer waits for another."""
CONNECT_S = 10
WRITES = "graftwork_writes"
SERVER = 0x67726173
"""PostgreSQL's lock of the one server; any number that no other program's lock has."""
ALONE = {"lock_timeout": "5s", "tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5"}
"""Of the connection that holds it: a server that was killed, or its machine, is soon known to be gone."""


class Database:
    """One database; safe to use from several threads, never across a fork: each process makes its own.

    Raises RequestError for an address that is none; nothing is opened before the first session.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(_parsed(url))
        self._reading = sessionmaker(self.engine, expire_on_commit=False)
        self._writing = sessionmaker(self.engine.execution_options(**{WRITES: True}), expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def shown(self) -> str:
        """Its address as it may be printed: without the password."""
        return self.engine.url.render_as_string(hide_password=True).replace("+psycopg://", "://", 1)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking; nothing is kept of what it changes."""
        with self._reading() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or leaves everything as it was."""
        with self._writing.begin() as session:
            yield session

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in one writing transaction; raises WorkError where the database cannot be opened."""
        with ExitStack() as opened:
            try:
                connection = opened.enter_context(self.engine.connect())
                connection = connection.execution_options(**{WRITES: True})
                opened.enter_context(connection.begin())
            except DatabaseError as error:  # no database at all, not only one that does not answer
                hint = "put a backup back" if self.is_sqlite else "leave --database out to use SQLite"
                if "disk is full" in str(error.orig):
                    hint = "make room on its disk"
                raise WorkError(
                    f"the database {self.shown} cannot be opened ({_first_line(error.orig)}); "
                    f"check its address, or {hint}"
                ) from None  # the driver's own text may repeat the password
            yield connection

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be its one server while the block lasts; raises RequestError where another is.

        SQLite's lies under ROOT, whose own lock is enough.
        """
        if self.is_sqlite:
            yield
            return
        with self.engine.connect() as connection:
            connection.detach()  # its end is the lock's
            for name, value in ALONE.items():
                connection.exec_driver_sql(f"SET {name} = '{value}'")
            try:
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({SERVER})")
            except OperationalError as error:
                raise RequestError(
                    f"the database {self.shown} has a server already, which serves another folder; end that "
                    "one, or give this folder a database of its own"
                ) from error
            connection.commit()  # the lock is the session's
            yield

    def close(self) -> None:
        self.engine.dispose()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError, NoSuchModuleError):
        backend = "none"  # the text itself is not repeated: it may hold a password
    if backend not in ("sqlite", "postgresql"):
        raise RequestError(
            "the address of the database is not understood; expected postgresql://USER:PASSWORD@HOST/NAME, "
            "or no --database for SQLite"
        )
    if "@" in (parsed.host or ""):
        # what is taken for the host begins with a piece of the password, which must not be printed
        raise RequestError(
            "the address of the database has more than one '@'; write one in a password as %40"
        )
    return parsed


def _engine(url: URL) -> Engine:
    # hide_parameters: an error goes to the log, and with it would what is stored: texts, owners' secrets
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=20,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_S},
        )
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    # the driver must not begin transactions by itself: `_begin` says which kind is wanted
    connection.isolation_level = None
    cursor = connection.cursor()
    # the rollback journal: write-ahead logs of SQLite before 3.51.3 can lose data with two connections.
    # EXTRA: the journal's removal, which is the commit, is on the disk too before anything is acknowledged
    for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # a reader that turns writer would be refused at once where another writes: a writer asks for it first
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _first_line(error: BaseException | None) -> str:
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
