"""A PostgreSQL server of our own, from the machine's binaries."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

WHY_NOT = "no PostgreSQL server is installed here (initdb and pg_ctl, as in Debian's package postgresql)"


def binary(name: str) -> str | None:
    """Return where one of the server's programs is; Debian keeps them off the PATH."""
    return shutil.which(name) or max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), default=None)


class Postgres:
    """Listens on a port of 127.0.0.1. As root it runs as somebody else, because it refuses to run as root."""

    user = "shop"
    """Who may do everything, without a password."""

    def __init__(self) -> None:
        initdb, pg_ctl = binary("initdb"), binary("pg_ctl")
        assert initdb is not None
        assert pg_ctl is not None
        self._pg_ctl = pg_ctl
        self._user = "nobody" if os.geteuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="aggstream-postgres-"))
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._directory, entry.pw_uid, entry.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._data = str(self._directory / "data")
        self._run(initdb, "-D", self._data, "-U", self.user, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        settings = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off "
            f"-c log_min_messages=fatal"
        )
        log = str(self._directory / "log")
        self._run(self._pg_ctl, "-D", self._data, "-w", "-l", log, "-o", settings, "start")

    def stop(self) -> None:
        """End it, and every connection to it, at once."""
        self._run(self._pg_ctl, "-D", self._data, "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        with contextlib.suppress(AssertionError):  # a test that failed may have left it stopped
            self.stop()
        shutil.rmtree(self._directory)

    def _run(self, *command: str) -> None:
        # Not a pipe, which the server would inherit and keep open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                cwd=self._directory,
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode()
