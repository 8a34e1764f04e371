"""Real processes for tests: free ports, bounded waits, an end by process id."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@dataclass
class Service:
    """A service process; its output is in `log`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without anything that would change a service, plus `extra`."""
    ours = (
        *("OPENAI_", "OTEL_", "APP_", "CHROMA_", "LOCAL_", "LLM_", "DATABASE_URL", "LEDGER_"),
        *("BUDGET_", "LIMITS_", "AUTH", "ADMIN_KEY", "KEYS_FILE", "INTERNAL_TOKEN", "USD_PER_KWH"),
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {**kept, **extra}


@contextmanager
def service(
    module: str,
    folder: Path,
    path: str = "/readyz",
    command: Sequence[str] = (sys.executable,),
    **settings: str,
) -> Iterator[Service]:
    """Run `python -m module` on a free port, or that of APP_PORT, until the block ends; `path`
    answers when it yields.

    `command` is what stands before `-m`.
    """
    port = int(settings["APP_PORT"]) if "APP_PORT" in settings else free_ports(1)[0]
    log = folder / f"{module}-{port}.log"
    extra = {"APP_PORT": str(port), **settings}
    with _running([*command, "-m", module], folder, log, port, path, extra) as running:
        yield running


@contextmanager
def trace_store(folder: Path) -> Iterator[tuple[Service, str]]:
    """The embedded stack's trace store: where Tempo's API is, and the address that takes OTLP."""
    otlp, port = free_ports(2)
    module = [sys.executable, "-m", "deploy.local.trace_store", "--data", str(folder / "traces")]
    command = [*module, "--otlp-port", str(otlp), "--tempo-port", str(port)]
    with _running(command, ROOT, folder / "trace-store.log", port, "/ready", {}) as running:
        yield running, f"http://127.0.0.1:{otlp}"


@contextmanager
def chroma_server(folder: Path, port: int | None = None) -> Iterator[Service]:
    """A Chroma server with its data in a folder, at a port that is free or this one."""
    port = port or free_ports(1)[0]
    command = [
        str(Path(sys.executable).with_name("chroma")),
        "run",
        "--path",
        str(folder / "chroma"),
    ]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with _running(command, ROOT, folder / "chroma.log", port, "/api/v2/heartbeat", {}) as running:
        yield running


@contextmanager
def _running(
    command: list[str], cwd: Path, log: Path, port: int, path: str, extra: Mapping[str, str]
) -> Iterator[Service]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(extra), stdout=output, stderr=subprocess.STDOUT
        )
    running = Service(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for_answer(running, path)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
            raise


def _wait_for_answer(running: Service, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx2.get(running.url + path, timeout=2).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # not listening yet
        assert running.process.poll() is None, running.log.read_text()
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.1)
