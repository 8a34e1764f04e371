"""Debian's PostgreSQL as a process of a test's own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.processes import free_ports
from tests.support.waiting import until

OWNER = "postgres"
"""The user whom Debian's package makes: the server doesn't run as root."""


def programs() -> Path | None:
    """The folder of the newest server that is installed; None without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """The URL of a server with an empty database, and its process id; stopped in the end."""
    bin_folder = programs()
    assert bin_folder
    owner = OWNER if os.geteuid() == 0 else None
    data = Path(tempfile.mkdtemp(prefix="o11y-postgres-"))
    if owner:
        shutil.chown(data, owner)
    (port,) = free_ports(1)
    make = [str(bin_folder / "initdb"), "-D", str(data / "data"), "-A", "trust", "-N", "-U", OWNER]
    subprocess.run(make, check=True, capture_output=True, timeout=60, cwd=data, user=owner)
    options = ["-D", str(data / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    with (folder / "postgres.log").open("wb") as log:
        command = [str(bin_folder / "postgres"), *options]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=data, user=owner)
    url = f"postgresql://{OWNER}@127.0.0.1:{port}/postgres"
    try:
        until(lambda: _answers(url), 30)
        yield url.replace("postgresql://", "postgresql+psycopg://"), server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(data)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database, `sqlite` or `postgresql`; skips where there is no server."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/o11y.db"
    elif programs() is None:
        pytest.skip("needs Debian's postgresql")
    else:
        with postgres(folder) as (url, _):
            yield url


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True
