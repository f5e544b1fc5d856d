"""A PostgreSQL server of its own, in a temporary folder, reached through a socket in that folder only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
_SECONDS = 60
_SETTINGS = ("listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@dataclass(frozen=True)
class Postgres:
    """A running server with one empty database."""

    folder: Path
    """Holds the socket. Only the server's user and root may enter."""
    user: str
    database: str

    @property
    def sqlalchemy_url(self) -> str:
        """The URL with which SQLAlchemy reaches the database."""
        return f"postgresql+psycopg2://{self.user}@/{self.database}?host={self.folder}"


def postgres_programs() -> Path | None:
    """Return the folder with initdb, pg_ctl and the others, or None where PostgreSQL is not installed."""
    if beside := shutil.which("initdb"):
        return Path(beside).resolve().parent
    # Debian keeps them off the PATH, in a folder a major version
    versions = [folder for folder in _DEBIAN_PROGRAMS.glob("*/bin") if folder.parent.name.isdecimal()]
    return max(versions, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def postgres(database: str) -> Iterator[Postgres]:
    """Run a PostgreSQL server for as long as the context lasts; then its data is gone.

    :raises RuntimeError: PostgreSQL is not installed or does not start; the message has the end of its log.
    """
    programs = postgres_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    # Not below pytest's folders: root's are closed to the server's user, and a socket's path may have 107 bytes only.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    owner = "postgres" if os.geteuid() == 0 else None  # the server refuses to be root
    if owner:
        account = pwd.getpwnam(owner)
        os.chown(folder, account.pw_uid, account.pw_gid)
    server = Postgres(folder, "airflow", database)

    def call(program: str, *arguments: str) -> None:
        log = folder / f"{program}.log"
        with log.open("wb") as out:
            ended = subprocess.run(
                [programs / program, *arguments],
                user=owner,
                group=owner,
                extra_groups=[] if owner else None,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
        if ended.returncode:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
            raise RuntimeError(f"PostgreSQL's {program} failed:\n{logs}")

    data = str(folder / "data")
    try:
        call("initdb", f"--pgdata={data}", f"--username={server.user}", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = " ".join(f"-c {setting}" for setting in (*_SETTINGS, f"unix_socket_directories={folder}"))
        call("pg_ctl", "start", "--wait", f"--pgdata={data}", f"--log={folder / 'server.log'}", f"--options={options}")
        try:
            call("createdb", f"--host={folder}", f"--username={server.user}", database)
            yield server
        finally:
            call("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={data}")
    finally:
        shutil.rmtree(folder)
