"""A real MariaDB server of our own: for tests (fixtures), and for anything else (`running_mariadb`).

One server per test run, also under xdist: whoever comes first starts it as a process of its own that ends with the run,
however the run ends. Each test gets a fresh database in it. Options are fast ones, but every commit is on disk.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import pymysql
import pytest

SERVER, INSTALL = "mariadbd", "mariadb-install-db"
USER = PASSWORD = "oma"
ADMIN = "oma_admin"
START_TIMEOUT_S = 90
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=32M",
    "--max-connections=300",
)


@dataclass(frozen=True, slots=True)
class MariaDb:
    """Where the server listens. `USER` may use databases named `oma_…` and nothing else; `ADMIN` may do anything."""

    port: int
    directory: str
    pid: int

    def url(self, database: str, *, user: str = USER) -> str:
        return f"mysql+pymysql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[pymysql.connections.Connection[pymysql.cursors.Cursor]]:
        """A connection that may do anything; each statement commits."""
        connection = connect_admin(self.port, database)
        try:
            yield connection
        finally:
            connection.close()

    def execute(self, statement: str, database: str | None = None) -> Sequence[tuple[object, ...]]:
        with self.admin(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def run_script(self, path: Path, database: str) -> None:
        """Statements that end with a semicolon at the end of a line."""
        with self.admin(database) as connection, connection.cursor() as cursor:
            for statement in path.read_text(encoding="utf-8").split(";\n"):
                if statement.strip():
                    cursor.execute(statement)

    def create_database(self, *, options: str = "CHARACTER SET utf8mb4") -> str:
        name = f"oma_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return name

    def drop_database(self, name: str) -> None:
        # A test that left a transaction open fails here, in half a minute, and hangs nothing.
        self.execute(f"SET STATEMENT lock_wait_timeout=30 FOR DROP DATABASE IF EXISTS {name}")


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)


def is_installed() -> bool:
    return find_program(SERVER) is not None and find_program(INSTALL) is not None


def connect_admin(port: int, database: str | None = None) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
    return pymysql.connect(
        host="127.0.0.1",
        port=port,
        user=ADMIN,
        password=PASSWORD,
        database=database,
        autocommit=True,
        charset="utf8mb4",
    )


def pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_mariadb(
    directory: Path, *, options: Sequence[str] = (), time_zone: str = "UTC", port: int | None = None
) -> Iterator[MariaDb]:
    """A server over `directory`, which is filled at the first time and kept; stopped at the end of the block.

    Synchronous. `time_zone` is that of the server's system (`@@system_time_zone`). Started again with the same
    `directory` and `port` it is the same server after a restart.
    """
    data = directory / "data"
    if not data.exists():
        _install(directory, data)
    port = pick_port() if port is None else port
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(find_program(SERVER)),
                "--no-defaults",
                f"--datadir={data}",
                f"--user={getpass.getuser()}",
                f"--port={port}",
                "--socket=mariadb.sock",
                f"--pid-file={directory / 'mariadb.pid'}",
                f"--init-file={directory / 'users.sql'}",
                *_OPTIONS,
                *options,
            ],
            env=os.environ | {"TZ": time_zone},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _await_answer(process, port, directory / "server.log")
        yield MariaDb(port, str(directory), process.pid)
    finally:
        process.terminate()
        process.wait()


def _install(directory: Path, data: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    grants = [
        f"CREATE USER IF NOT EXISTS '{ADMIN}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION",
        f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON `oma\\_%`.* TO '{USER}'@'%'",
    ]
    (directory / "users.sql").write_text(";\n".join(grants) + ";\n", encoding="utf-8")
    made = subprocess.run(
        [
            str(find_program(INSTALL)),
            "--no-defaults",
            f"--datadir={data}",
            f"--user={getpass.getuser()}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=32M",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        shutil.rmtree(data, ignore_errors=True)
        raise RuntimeError(f"{INSTALL} failed: {made.stdout[-500:]} {made.stderr[-500:]}")


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            connect_admin(port).close()
        except pymysql.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(encoding="utf-8", errors="replace")[-1500:]
                raise RuntimeError(f"{SERVER} does not answer: {error}\n{tail}") from error
            time.sleep(0.05)
        else:
            return


def start_shared(directory: Path, owner: int) -> MariaDb:
    """The run's one server; `owner` is the process with which it ends. Called by each worker, started by the first."""
    directory.mkdir(parents=True, exist_ok=True)
    known = directory / "server.json"
    with (directory / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not known.exists():
            started = subprocess.run(
                [sys.executable, __file__, str(directory), str(owner)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=True,
                cwd=Path(__file__).parents[1],
            )
            known.write_bytes(started.stdout)
    answer = json.loads(known.read_text(encoding="utf-8"))
    if "error" in answer:
        pytest.fail(answer["error"], pytrace=False)
    return MariaDb(**answer)


def keep_running(directory: Path, owner: int) -> None:
    """The process behind `start_shared`: leaves its caller, starts the server, says where it is, ends with `owner`."""
    watched = os.pidfd_open(owner)
    if os.fork():
        return
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with running_mariadb(directory) as server:
            _say(asdict(server))
            select.select([watched], [], [])
    except RuntimeError as error:
        _say({"error": str(error)})
    shutil.rmtree(directory, ignore_errors=True)


def _say(answer: dict[str, object]) -> None:
    """One line, and the end: the caller reads until then."""
    print(json.dumps(answer), flush=True)  # noqa: T201
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


@pytest.fixture(scope="session")
def mariadb_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MariaDb:
    from tests.parts import require_part  # noqa: PLC0415 - this file is also a program, started by its path

    require_part(f"MariaDB ({SERVER}, {INSTALL})", is_installed())
    base = tmp_path_factory.getbasetemp()
    worker = hasattr(request.config, "workerinput")
    return start_shared((base.parent if worker else base) / "mariadb", os.getppid() if worker else os.getpid())


@pytest.fixture
def mariadb_database(mariadb_server: MariaDb) -> Iterator[str]:
    """The name of a fresh, empty database."""
    name = mariadb_server.create_database()
    yield name
    mariadb_server.drop_database(name)


@pytest.fixture
def mariadb_url(mariadb_server: MariaDb, mariadb_database: str) -> str:
    """A fresh, empty database, as a user that may use it and no other."""
    return mariadb_server.url(mariadb_database)


if __name__ == "__main__":
    keep_running(Path(sys.argv[1]), int(sys.argv[2]))
