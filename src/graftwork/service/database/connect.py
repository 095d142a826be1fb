"""Connections: SQLite for one machine, PostgreSQL by its URL; the same tables and code on both."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

BUSY_S = 20.0


class Database:
    """One database; safe to use from several threads, never across a fork."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking; nothing is kept of what it changes."""
        with self._sessions() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or leaves everything as it was."""
        with self._sessions() as session:
            session.info["writes"] = True
            with session.begin():
                yield session

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})
    event.listen(engine, "connect", _prepare)
    event.listen(Session, "after_begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    # the driver must not begin transactions by itself: `_begin` says which kind is wanted
    connection.isolation_level = None
    cursor = connection.cursor()
    # the rollback journal: write-ahead logs of SQLite before 3.51.3 can lose data with two connections
    for pragma in ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(session: Session, _: Any, connection: Any) -> None:
    if connection.dialect.name == "sqlite":
        # a reader that turns writer would be refused at once where another writes: ask for it first
        connection.exec_driver_sql("BEGIN IMMEDIATE" if session.info.get("writes") else "BEGIN")
