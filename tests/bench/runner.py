"""Processes of a benchmark: pinned to a core, awaited within bounds, ended by process id."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx2
import psutil

from tests.support.processes import environment

PROBE_SECONDS = 2.0
END_SECONDS = 12.0
IDLE_POLL_SECONDS = 0.1
IDLE_SECONDS = 1.5


class BenchError(Exception):
    """Something can't be measured; the message is the one line that says why."""


@dataclass(frozen=True)
class Cores:
    """What is measured runs on one core, the load and the upstream on another, where there are."""

    subject: int | None
    load: int | None

    @classmethod
    def choose(cls) -> "Cores":
        """The first two cores this process may use; no pinning with fewer."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None)
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[1]) if len(usable) > 1 else cls(None, None)

    @property
    def words(self) -> str:
        if self.subject is None:
            return "Nothing is pinned: that takes two cores and a system that can."
        return (
            f"Each subject is pinned to core {self.subject}, "
            f"upstream, OTLP sink and load generator to core {self.load}."
        )


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started in the block run on this core; None leaves them alone."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a subject: nothing that would change it, no HTTP proxy, then `extra`."""
    kept = {
        key: value
        for key, value in environment({}).items()
        if not key.startswith(("LITELLM_", "PYTHON")) and not key.lower().endswith("_proxy")
    }
    return {**kept, **extra}


@dataclass
class Process:
    """A process with its children."""

    popen: subprocess.Popen[bytes]
    log: Path

    def family(self) -> list[psutil.Process]:
        """The process and everything it started, without those that have ended."""
        try:
            first = psutil.Process(self.popen.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def last_words(self) -> str:
        """The last line of its output that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "no output")[:200]

    def end(self) -> None:
        """Ask it to stop, then stop it and its children."""
        family = self.family()
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            self.popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(5)
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=5)


@contextmanager
def running(
    command: Sequence[str],
    name: str,
    folder: Path,
    ready_url: str,
    seconds: float,
    core: int | None,
    settings: Mapping[str, str],
    cwd: Path | None = None,
) -> Iterator[Process]:
    """Run a command until the block ends; the block begins when `ready_url` answers 200.

    Raises BenchError when that takes longer than `seconds`. The process has a session of its own,
    so that Ctrl-C reaches the benchmark alone, which then ends what it started.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output, on_core(core):
        popen = subprocess.Popen(
            command,
            cwd=cwd or folder,
            env=clean_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = Process(popen, log)
    try:
        _wait_until_ready(process, name, ready_url, seconds)
        yield process
    finally:
        process.end()


def _wait_until_ready(process: Process, name: str, url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with httpx2.Client(timeout=PROBE_SECONDS, trust_env=False) as http:
        while True:
            try:
                if http.get(url).status_code == 200:
                    return
            except httpx2.HTTPError:
                pass  # not listening yet
            if process.popen.poll() is not None:
                raise BenchError(f"{name} ended at its start: {process.last_words()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{name} was not ready in {seconds:.0f} s: {process.last_words()}")
            time.sleep(0.1)


def cpu_seconds(processes: Sequence[Process]) -> float:
    """User and system time of these processes and their children so far."""
    total = 0.0
    for process in processes:
        for member in process.family():
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def settle(processes: Sequence[Process]) -> None:
    """Wait, though not for long, until they rest: what a request left behind is its cost too."""
    deadline = time.monotonic() + IDLE_SECONDS
    before = cpu_seconds(processes)
    while time.monotonic() < deadline:
        time.sleep(IDLE_POLL_SECONDS)
        now = cpu_seconds(processes)
        if now - before < IDLE_POLL_SECONDS / 10:
            return
        before = now


def resident_mb(processes: Sequence[Process]) -> float:
    """Resident memory of these processes and their children in MB."""
    total = 0
    for process in processes:
        for member in process.family():
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    return total / 1e6


def peak_mb(processes: Sequence[Process]) -> float:
    """The most memory that was ever resident, in MB; what is resident now where the system
    doesn't tell.
    """
    peaks = []
    for process in processes:
        for member in process.family():
            status = Path(f"/proc/{member.pid}/status")
            lines = status.read_text().splitlines() if status.exists() else []
            peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return sum(peaks) / 1e6 if peaks else resident_mb(processes)


def say(line: str) -> None:
    print(line, flush=True)


def stop_on_signals() -> None:
    """Let SIGINT and SIGTERM end the run as KeyboardInterrupt, once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(_: int, __: FrameType | None) -> NoReturn:
    """End the run; what comes after the first signal must not disturb the end of the processes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
