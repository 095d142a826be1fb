"""Shared fixtures of the service: one suite on SQLite and on PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from graftwork.service.database import Database, migrate
from graftwork.service.database.tables import OPERATOR, Owner
from graftwork.service.settings import Settings

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
"""Where Debian puts PostgreSQL's server; elsewhere it is looked for on the path."""


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL server of this session, {} for a database's name; skips without one."""
    found = str(PROGRAMS[-1]) if PROGRAMS else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (no initdb)")
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="graftwork-postgresql-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        make = [found, "-D", str(folder / "data"), "-U", "graft", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(make, check=True, capture_output=True, user=user, cwd=folder)
        # a socket in its folder: a port that is free now may be another's when it is listened on
        options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        said = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        serve = [str(Path(found).with_name("postgres")), "-D", str(folder / "data"), *said]
        with (folder.with_suffix(".log")).open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, user=user, cwd=folder)
        try:
            address = f"postgresql+psycopg://graft@/{{}}?host={folder}"
            _wait(server, address.format("postgres"))
            yield address
        finally:
            server.terminate()  # ends at once where clients are gone, and waits for none of ours
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


def _wait(server: "subprocess.Popen[bytes]", address: str) -> None:
    database = Database(address)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            assert server.poll() is None, "PostgreSQL ended at its start"
            try:
                with database.connect():
                    return
            except Exception:
                time.sleep(0.05)
        raise AssertionError("PostgreSQL did not answer within two minutes")
    finally:
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without tables, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'home' / 'service.db'}"
        return
    server = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(server.format("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.format(name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    """A database of each kind in turn, with all tables and the owner "operator"."""
    made = Database(empty_url)
    migrate(made)
    with made.write() as session:
        session.add(Owner(id=OPERATOR, name=OPERATOR, secret="00" * 32, quotas={}, created=time.time()))
    yield made
    made.close()


@pytest.fixture
def settings(empty_url: str, tmp_path: Path) -> Settings:
    """Settings of a service on `database`."""
    root = tmp_path / "root"
    (root / ".graftwork").mkdir(parents=True)
    return Settings(root, database=empty_url, workers=1, offline=True)
