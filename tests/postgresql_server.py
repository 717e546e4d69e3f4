"""A PostgreSQL server of our own for the tests: a cluster in a temporary folder that listens on loopback alone.

PostgreSQL refuses to run as root: there it runs as the user that its Debian package makes, or as nobody.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PASSWORD = "only for this test"


def programs() -> Path | None:
    """The folder of initdb and postgres: on the PATH, or the newest that apt installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


def need() -> None:
    """Skip without PostgreSQL or its driver; in CI (CI=true) both must be there."""
    try:
        import psycopg  # noqa: F401

        missing = "" if programs() else "no PostgreSQL server is installed (apt install postgresql)"
    except ImportError:
        missing = "psycopg is not installed (pip install -e '.[postgresql]')"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@dataclass
class PostgresqlServer:
    """Use start, stop (which also removes the cluster), kill and databases by `url`."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="difix3d-postgresql-")))
    port: int = 0
    process: subprocess.Popen | None = None
    _made: int = 0

    def create(self) -> None:
        bin_folder = programs()
        assert bin_folder
        self.bin = bin_folder
        self.as_user: dict = {}
        if os.geteuid() == 0:
            user = next(name for name in ("postgres", "nobody") if _is_user(name))
            shutil.chown(self.folder, user)
            self.as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [self.bin / "initdb", "-D", self.folder / "data", "-U", "ratings", "-A", "scram-sha-256"]
        command += [f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self.as_user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "on"}
        settings["max_connections"] = 200
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("a") as log:
            command = [self.bin / "postgres", "-D", self.folder / "data", *flags]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self.as_user)
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._address("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.1)

    def url(self) -> str:
        """Of a new and empty database."""
        import psycopg

        self._made += 1
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE ratings_{self._made}")  # type: ignore[arg-type]
        address = f"127.0.0.1:{self.port}/ratings_{self._made}"
        return f"postgresql+psycopg://ratings:{PASSWORD.replace(' ', '%20')}@{address}"

    def kill(self) -> None:
        """As when the machine fails: no connection is told."""
        assert self.process
        self.process.send_signal(3)  # SIGQUIT: immediate shutdown, recovery at the next start
        self.process.wait(timeout=60)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _address(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=ratings password='{PASSWORD}' dbname={database}"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
