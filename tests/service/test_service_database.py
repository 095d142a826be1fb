"""Connections and migrations, on SQLite and PostgreSQL alike."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from graftwork.errors import RequestError, WorkError
from graftwork.service.database import Database, migrate
from graftwork.service.database.migrate import STEPS, version
from graftwork.service.database.tables import Base, File, Owner


def test_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database)
    with database.read() as session:
        assert session.get(Owner, "operator") is not None


def test_many_at_once_migrate_one_after_the_other(empty_url: str) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        mine = Database(empty_url)
        try:
            migrate(mine)
        except BaseException as error:
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_migration_that_breaks_leaves_nothing_behind(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(empty_url)

    def broken(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "CREATE TABLE events" in statement:
            raise RuntimeError("the power went")

    event.listen(database.engine, "before_cursor_execute", broken)
    with pytest.raises(RuntimeError, match="the power went"):
        migrate(database)
    event.remove(database.engine, "before_cursor_execute", broken)
    with database.connect() as connection:
        assert version(connection) is None
        assert not database.engine.dialect.has_table(connection, "owners")
    migrate(database)
    database.close()


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RequestError, match=r"newer Graftwork \(its version is 9999.*pip install --upgrade"):
        migrate(database)


def test_every_step_of_the_migrations_is_in_a_package() -> None:
    folders = {path.parent for path in STEPS.rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_what_a_block_that_raises_wrote_is_not_kept(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as session:
        session.add(Owner(id="a", name="a", secret="", quotas={}, created=0.0))
        session.flush()
        1 / 0  # noqa: B018
    with database.read() as session:
        assert session.get(Owner, "a") is None


def test_what_a_reader_writes_is_not_kept(database: Database) -> None:
    with database.read() as session:
        session.add(Owner(id="a", name="a", secret="", quotas={}, created=0.0))
        session.flush()
    with database.read() as session:
        assert session.get(Owner, "a") is None


def test_rows_of_owners_that_do_not_exist_are_refused(database: Database) -> None:
    file = File(id="f", owner_id="nobody", name="", media_type="", bytes=0, sha256="", created=0.0)
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(file)


def test_an_error_for_the_log_says_nothing_of_what_is_stored(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught, database.write() as session:
        for id in ("a", "b"):
            session.add(Owner(id=id, name="same", secret="very secret", quotas={}, created=0.0))
            session.flush()
    assert "very secret" not in str(caught.value)


def test_writers_wait_for_each_other_and_lose_no_count(database: Database) -> None:
    def count() -> None:
        mine = Database(str(database.engine.url.render_as_string(hide_password=False)))
        for _ in range(10):
            with mine.write() as session:
                owner = session.get(Owner, "operator", with_for_update=True)
                assert owner is not None
                owner.quotas = {"jobs": owner.quotas.get("jobs", 0) + 1}
        mine.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        owner = session.get(Owner, "operator")
        assert owner is not None and owner.quotas == {"jobs": 40}


def test_many_databases_in_a_process_each_begin_one_transaction(tmp_path: Path) -> None:
    several = [Database(f"sqlite:///{tmp_path / 'a.db'}") for _ in range(3)]
    said: list[str] = []
    event.listen(several[0].engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    with several[0].read() as session:
        session.execute(text("SELECT 1"))
    with several[0].write() as session:
        session.execute(text("SELECT 1"))
    assert said == ["BEGIN", "SELECT 1", "BEGIN IMMEDIATE", "SELECT 1"]
    for one in several:
        one.close()


def test_sqlite_keeps_a_rollback_journal_and_waits_for_the_disk(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with database.read() as session:
        said = [
            session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert said == ["delete", 3, 1]
    database.close()


def test_no_piece_of_a_password_is_taken_for_the_host() -> None:
    with pytest.raises(RequestError, match="%40") as raised:
        Database("postgresql+psycopg://me:half@other-half@here/graft")
    assert "half" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["graft", "mysql://me:secret@here/graft", "postgresql://me:secret@here:x/y", ""]
)
def test_addresses_that_are_none_are_refused_in_a_line_without_the_password(url: str) -> None:
    with pytest.raises(RequestError) as raised:
        Database(url)
    assert "postgresql://USER" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:secret@127.0.0.1:9/graft", "sqlite:////proc/none/a.db"]
)
def test_a_database_that_cannot_be_reached_is_said_in_a_line_without_the_password(url: str) -> None:
    database = Database(url)
    with pytest.raises(WorkError) as raised:
        migrate(database)
    assert "cannot be" in str(raised.value)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("no database, but longer than the header of one would be" * 3)
    with pytest.raises(WorkError, match="not a database") as raised:
        migrate(Database(f"sqlite:///{tmp_path / 'a.db'}"))
    assert "\n" not in str(raised.value)


def test_a_database_that_another_program_holds_is_said_to_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftwork.service.database.connect.BUSY_S", 0.0)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    holder, waiter = Database(url), Database(url)
    with holder.connect(), pytest.raises(WorkError, match="locked"):
        migrate(waiter)


def test_a_full_disk_asks_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OperationalError("BEGIN", None, Exception("database or disk is full"))

    monkeypatch.setattr("sqlalchemy.engine.Engine.connect", full)
    with pytest.raises(WorkError, match="make room"):
        migrate(Database(f"sqlite:///{tmp_path / 'a.db'}"))
