"""Starts, watches and stops the processes of the embedded stack.

A process is remembered by its id and start time under the state folder, so that another process
with the same id is never mistaken for it.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from deploy.local.parts import HOST, ROOT, Part

START_SECONDS = 180.0
"""Longest wait for all parts to be ready: the first start prepares the language model."""

STOP_SECONDS = 10.0
POLL_SECONDS = 0.2


class StackError(Exception):
    """A fault that a person must mend; the message says which."""


@dataclass(frozen=True)
class State:
    """The state of one part: `word` is `running`, `starting`, `died` or `stopped`."""

    part: Part
    word: str
    pid: int | None = None


class Stack:
    """The processes of the parts, with their logs and ids under `folder`."""

    def __init__(self, parts: list[Part], folder: Path) -> None:
        self.parts = parts
        self.logs = folder / "logs"
        self._ids = folder / "run"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, part: Part) -> Path:
        return self.logs / f"{part.name}.log"

    def process(self, part: Part) -> psutil.Process | None:
        """The part's living process, if it has one."""
        try:
            known = json.loads(self._id_file(part).read_text())
            process = psutil.Process(known["pid"])
            alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - known["started"]) < 1.0
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if alive and same else None

    def state(self, part: Part) -> State:
        process = self.process(part)
        if process is None:
            return State(part, "died" if self._id_file(part).exists() else "stopped")
        return State(part, "running" if is_ready(part) else "starting", process.pid)

    def require_free_ports(self) -> None:
        """Raise StackError when another process listens on a port of a part that isn't running."""
        for part in self.parts:
            if self.process(part):
                continue
            for variable, number in part.ports.items():
                if not _is_free(number):
                    raise StackError(
                        f"port {number} ({part.name}) is in use{_by_whom(number)}. "
                        f"Stop that, or choose another: {variable}=PORT make up"
                    )

    def start(self, part: Part) -> None:
        """Start a part in a session of its own, so that Ctrl-C at the terminal doesn't reach it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._ids.mkdir(parents=True, exist_ok=True)
        log = self.log(part)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            child = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env={**os.environ, **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[part.name] = child
        started = psutil.Process(child.pid).create_time()
        self._id_file(part).write_text(json.dumps({"pid": child.pid, "started": started}))

    def until_ready(self, parts: list[Part]) -> Iterator[Part]:
        """Yield each part when it answers. Raises StackError when one ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        waiting = list(parts)
        while waiting:
            for part in [part for part in waiting if is_ready(part)]:
                waiting.remove(part)
                yield part
            for part in waiting:
                child = self._children.get(part.name)
                if child is not None and child.poll() is not None:
                    raise StackError(
                        f"{part.name} stopped with exit code {child.returncode}: "
                        f"{self._last_line(part)}\n  its log: {self.log(part)}"
                    )
            if waiting and time.monotonic() > deadline:
                raise StackError(
                    f"{waiting[0].name} isn't ready after {START_SECONDS:.0f} s\n"
                    f"  its log: {self.log(waiting[0])}"
                )
            time.sleep(POLL_SECONDS if waiting else 0)

    def stop(self) -> list[str]:
        """Stop every part, those that others need last; return the names of those that were killed.

        Each gets SIGTERM and STOP_SECONDS to finish its work.
        """
        killed = []
        for group in (self.parts[:0:-1], self.parts[:1]):
            found = {part.name: process for part in group if (process := self.process(part))}
            for process in found.values():
                process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(list(found.values()), timeout=STOP_SECONDS)
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=STOP_SECONDS)
            killed += [name for name, process in found.items() if process in left]
            for part in group:
                self._id_file(part).unlink(missing_ok=True)
        return killed

    def _id_file(self, part: Part) -> Path:
        return self._ids / f"{part.name}.json"

    def _last_line(self, part: Part) -> str:
        lines = self.log(part).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def is_ready(part: Part) -> bool:
    try:
        return httpx2.get(part.ready, timeout=2.0).status_code == 200
    except httpx2.HTTPError:
        return False


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
    return True


def _by_whom(number: int) -> str:
    """The words ` by process 42 (name)`; none where the system doesn't let us see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == number and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""
