"""Database servers of our own, from the machine's binaries."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Any

import reaper
from ports import free_port

DEADLINE = 60.0


def binary(name: str) -> str | None:
    """Return where one of a server's programs is; Debian keeps some off the PATH."""
    places = (f"/usr/lib/postgresql/*/bin/{name}", f"/usr/sbin/{name}")
    found = (max(glob.glob(place), default=None) for place in places)
    return shutil.which(name) or next((path for path in found if path is not None), None)


class Server:
    """Has a directory and a port of 127.0.0.1. As root it runs as somebody else: some refuse to run as root."""

    user = "shop"
    """Who may do everything, without a password."""
    maintenance: str
    """A database that there always is."""

    def __init__(self, name: str) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self._directory = reaper.directory(name)
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._directory, entry.pw_uid, entry.pw_gid)
        self.port = free_port()
        self._data = str(self._directory / "data")

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and every connection to it, at once."""
        raise NotImplementedError

    def remove(self) -> None:
        with contextlib.suppress(AssertionError):  # a test that failed may have left it stopped
            self.stop()
        shutil.rmtree(self._directory)

    def config(self, name: str) -> dict[str, Any]:
        """Return what DATABASES says of one of its databases."""
        return {
            "NAME": name,
            "USER": self.user,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "CONN_MAX_AGE": 600,  # what is not closed at the end of a thread would be left behind
        }

    def _run(self, *command: str) -> None:
        # Not a pipe, which the server would inherit and keep open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                **self._as_user(),
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode()

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}


class Postgres(Server):
    """A PostgreSQL server."""

    maintenance = "postgres"

    def __init__(self) -> None:
        super().__init__("postgres")
        initdb, pg_ctl = binary("initdb"), binary("pg_ctl")
        assert initdb is not None
        assert pg_ctl is not None
        self._pg_ctl = pg_ctl
        self._run(initdb, "-D", self._data, "-U", self.user, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    @staticmethod
    def why_not() -> str | None:
        """Return why there can be none here."""
        if binary("initdb") and binary("pg_ctl"):
            return None
        return "no PostgreSQL server is installed here (initdb and pg_ctl, as in Debian's package postgresql)"

    def start(self) -> None:
        settings = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off "
            f"-c log_min_messages=fatal"
        )
        log = str(self._directory / "log")
        self._run(self._pg_ctl, "-D", self._data, "-w", "-l", log, "-o", settings, "start")

    def stop(self) -> None:
        self._run(self._pg_ctl, "-D", self._data, "-w", "-m", "immediate", "stop")

    def config(self, name: str) -> dict[str, Any]:
        return {"ENGINE": "django.db.backends.postgresql", **super().config(name)}


class MariaDB(Server):
    """A MariaDB server, with the character set that it has if nobody sets one."""

    maintenance = "mysql"

    def __init__(self) -> None:
        super().__init__("mariadb")
        install, server = binary("mariadb-install-db"), binary("mariadbd")
        assert install is not None
        assert server is not None
        self._run(
            install,
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._directory}",  # two that are made at once take the same names in a common one
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )
        who = f"'{self.user}'@'127.0.0.1'"
        (self._directory / "users.sql").write_text(
            f"CREATE USER IF NOT EXISTS {who};\nGRANT ALL ON *.* TO {who};\n"
        )
        self._command = (
            server,
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._directory}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            f"--socket={self._directory}/socket",
            f"--pid-file={self._directory}/pid",
            f"--log-error={self._directory}/log",
            f"--init-file={self._directory}/users.sql",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--debug-no-sync",
            "--default-time-zone=-06:00",  # which is not that of the tests
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @staticmethod
    def why_not() -> str | None:
        """Return why there can be none here."""
        if not (binary("mariadb-install-db") and binary("mariadbd")):
            return "no MariaDB server is installed here (Debian's package mariadb-server)"
        if importlib.util.find_spec("MySQLdb") is None:
            return "the package mysqlclient is not installed here"
        return None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it has a log
            cwd=self._directory,
            **self._as_user(),
        )
        deadline = time.monotonic() + DEADLINE
        while not self._greets():
            assert time.monotonic() < deadline, "it cannot be reached"
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"it has ended with {self._process.wait(0.05)}")

    def _greets(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), DEADLINE) as sock:
            return bool(sock.recv(1))
        return False

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE)

    def config(self, name: str) -> dict[str, Any]:
        options = {"charset": "utf8mb4"}  # which Django 5.2 takes by itself
        return {"ENGINE": "django.db.backends.mysql", "OPTIONS": options, **super().config(name)}
