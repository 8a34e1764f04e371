"""Debian's Redis as a process of a test's own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.processes import free_ports
from tests.support.waiting import until

PROGRAM = shutil.which("redis-server")
"""The server; None where it is not installed."""


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[tuple[str, int]]:
    """The URL of a server with nothing in it, and its process id; stopped in the end."""
    assert PROGRAM
    port = port or free_ports(1)[0]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("ab") as log:
        server = subprocess.Popen([PROGRAM, *options], stdout=log, stderr=log)
    try:
        until(lambda: _answers(port), 30)
        yield f"redis://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait(30)


def _answers(port: int) -> bool:
    with redis.Redis(port=port, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
