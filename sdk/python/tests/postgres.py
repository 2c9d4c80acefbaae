"""A PostgreSQL of Debian's package in a directory of its own, run by an ordinary user: the server refuses root."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from .helpers import DEADLINE, eventually, own_address

#: Ends the server and removes its directory when its input ends: when the test's process has ended, however it did.
GUARD = """cat >/dev/null; kill -INT $1 2>/dev/null
for i in $(seq 100); do kill -0 $1 2>/dev/null || break; sleep 0.1; done
kill -KILL $1 2>/dev/null; rm -rf "$2"
"""


def programs() -> Path:
    """The directory of the newest installed version's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql (scripts/test.sh does so)")
    return found[-1].parent


class Postgres:
    """A running server with an empty database of each name that is asked for."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="divvy-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._directory, "nobody", "nogroup")
        data = self._directory / "data"
        options = ["-A", "trust", "-U", "divvy", "--no-sync", "-E", "UTF8"]
        subprocess.run(command("initdb", "-D", str(data), *options), check=True, capture_output=True, timeout=DEADLINE)
        self.host = own_address()
        with socket.create_server((self.host, 0)) as listener:
            self.port = str(listener.getsockname()[1])
        settings = [
            f"listen_addresses={self.host}",
            f"unix_socket_directories={data}",
            "fsync=off",
            "max_connections=100",
        ]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command("postgres", "-D", str(data), "-p", self.port, *(f"-c{setting}" for setting in settings)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        arguments = [str(self._process.pid), str(self._directory)]
        # A signal to the test's group is not for the guard.
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", *arguments], stdin=subprocess.PIPE, start_new_session=True
        )
        eventually("PostgreSQL answers", self._answers)

    def url(self, database: str) -> str:
        """Makes a database, and returns its URL."""
        options = ["-h", self.host, "-p", self.port, "-U", "divvy", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        made = command("psql", *options, "-d", "postgres", "-c", f"CREATE DATABASE {database}")
        subprocess.run(made, check=True, capture_output=True, timeout=DEADLINE)
        return f"postgres://divvy@{self.host}:{self.port}/{database}?sslmode=disable"

    def kill(self) -> None:
        """Ends it and removes its directory."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(timeout=DEADLINE)

    def _answers(self) -> bool:
        ready = command("pg_isready", "-h", self.host, "-q", "-p", self.port)
        return subprocess.run(ready, check=False, timeout=DEADLINE).returncode == 0


def command(program: str, *arguments: str) -> Sequence[str]:
    """A command of the server's programs, as a user whom they take."""
    own = [str(programs() / program), *arguments]
    if os.geteuid() != 0:
        return own
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *own]
