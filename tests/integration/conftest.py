"""A PostgreSQL server of the tests' own, and stores on both databases."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode.storage import Storage
from dicomnode.testing.stores import opened_store
from tests.conftest import require_program

_SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "unix_socket_directories": "",
}


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """`postgresql+psycopg://...` of an empty server on loopback, gone after the session.

    As root the server runs as the user `postgres`, because it refuses to be root.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    pg_ctl = require_program("pg_ctl", path=str(folders[-1]) if folders else "/nonexistent")
    binaries = Path(pg_ctl).parent
    run_as = [require_program("runuser"), "-u", "postgres", "--"] if os.geteuid() == 0 else []
    base = Path(tempfile.mkdtemp(prefix="dicomnode-postgres-"))
    if run_as:
        shutil.chown(base, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = base / "data"
    options = " ".join(f"-c {name}={value!r}" for name, value in _SERVER_SETTINGS.items())

    def run(*command: str) -> None:
        subprocess.run(
            [*run_as, *command], check=True, timeout=60, cwd=base, stdout=subprocess.DEVNULL
        )

    try:
        run(str(binaries / "initdb"), "-D", str(data), "-U", "tests", "-A", "trust", "-N")
        start = ("-D", str(data), "-o", f"{options} -p {port}", "-l", str(base / "log"), "-w")
        run(pg_ctl, "start", *start)
        try:
            yield f"postgresql+psycopg://tests@127.0.0.1:{port}/postgres"
        finally:
            run(pg_ctl, "stop", "-D", str(data), "-m", "immediate", "-w")
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def new_database_url(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Makes an empty database per call; all are dropped at the end."""
    import psycopg

    plain = postgres_url.replace("+psycopg", "")
    made: list[str] = []

    def make() -> str:
        name = f"store_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        made.append(name)
        return postgres_url.removesuffix("postgres") + name

    yield make
    with psycopg.connect(plain, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The setting `storage.database_url`, for each kind of database."""
    if request.param == "sqlite":
        return ""
    made: str = request.getfixturevalue("new_database_url")()
    return made


@pytest.fixture
def storage(tmp_path: Path, database_url: str) -> Iterator[Storage]:
    """A node's open store on each kind of database."""
    with opened_store(tmp_path / "store", database_url=database_url) as opened:
        yield opened
