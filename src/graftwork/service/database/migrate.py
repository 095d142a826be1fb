"""Bring a database to this version's tables, one process at a time.

A new step, after tables.py was changed: `python -m graftwork.service.database.migrate NAME` writes it from
the difference; read it before it is kept.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from graftwork.errors import RequestError, WorkError
from graftwork.service.database.connect import Database

if TYPE_CHECKING:  # Alembic is imported where it is used: workers never use it
    from alembic.config import Config

STEPS = Path(__file__).parent / "migrations"
LOCK = 0x67726166  # any number that no other program's lock has


def migrate(database: Database) -> None:
    """Make or bring up to date all tables; nothing happens where they are.

    Raises RequestError where a newer version has written the database, WorkError where it cannot be opened.
    """
    if database.is_sqlite and database.engine.url.database:
        _make_room(Path(database.engine.url.database).parent)
    from alembic import command
    from alembic.script import ScriptDirectory

    with database.connect() as connection:
        if not database.is_sqlite:  # SQLite's writing transaction is a lock already
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        config = _config(connection)
        here, newest = version(connection), ScriptDirectory.from_config(config).get_current_head()
        if here == newest:
            return
        known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
        if here is not None and here not in known:
            raise RequestError(
                f"the database {database.shown} was written by a newer Graftwork (its version is {here}, "
                f"this one knows up to {newest}); try: pip install --upgrade graftwork"
            )
        command.upgrade(config, "head")


def _make_room(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"{folder} cannot be made ({error.strerror}); choose another place") from error


def version(connection: Connection) -> str | None:
    """The last step that the database has taken; None before the first."""
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(STEPS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def main() -> None:
    """Write the step from all earlier ones to tables.py."""
    from alembic import command
    from alembic.script import ScriptDirectory

    database = Database("sqlite://")
    with database.connect() as connection:
        config = _config(connection)
        steps = len(list(ScriptDirectory.from_config(config).walk_revisions()))
        command.upgrade(config, "head")
        command.revision(config, sys.argv[1], autogenerate=True, rev_id=f"{steps + 1:04d}")


if __name__ == "__main__":
    main()
