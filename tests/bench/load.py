"""Subjects under wrk: started together, measured in turn, written to a section of RESULTS.md."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Case, Cell, Wrk, cell_seconds, measure, verify
from tests.bench.results import Results, write_section
from tests.bench.runner import BenchError, Cores, on_core, say, stop_on_signals
from tests.bench.subjects import Site, Started, Subject, exported, started_upstream

RESULTS = Path(__file__).with_name("RESULTS.md")
WARM_UP_SECONDS = 1
WARM_UPS = 4
STILL_WARMING = 1.1
"""A subject that answers this many times more than in the warm-up before gets another one."""


@dataclass(frozen=True)
class Setting:
    """How the results came about."""

    command: str
    seconds: int
    pinning: str
    versions: tuple[str, ...]
    """What the subjects say of themselves."""
    wrk: str
    exported: str


Section = Callable[[Results[Cell], Setting], list[str]]


class Bench:
    """One run: its subjects, what works of them, and the results so far."""

    def __init__(
        self, subjects: Sequence[Subject], cases: Sequence[Case], rounds: int, seconds: int
    ) -> None:
        self.results: Results[Cell] = Results(subjects, rounds)
        self.subjects = list(subjects)
        self.cases = cases
        self.seconds = seconds
        self.started: dict[str, Started] = {}
        self._lasting: dict[tuple[str, Case], int] = {}

    def start(self, site: Site, stack: ExitStack) -> None:
        """Start every subject; one that doesn't start has failed all its cases."""
        for subject in self.subjects:
            say(f"starting {subject.title}")
            try:
                self.started[subject.key] = stack.enter_context(subject.start(site))
            except BenchError as error:
                self._fail(subject, self.cases, str(error))

    def check(self, wrk: Wrk) -> None:
        """Verify each answer and warm up; what fails here is not measured."""
        for subject in self.subjects:
            if subject.key not in self.started:
                continue
            url = self.started[subject.key].url
            for case in self.cases:
                try:
                    took = verify(case, url)
                    if case.connections > 1:
                        warm_up(wrk, case, url, cell_seconds(case, took, WARM_UP_SECONDS))
                    took = verify(case, url)
                except BenchError as error:
                    self._fail(subject, [case], str(error))
                else:
                    self._lasting[subject.key, case] = cell_seconds(case, took, self.seconds)

    def run(self, wrk: Wrk) -> None:
        """All rounds; each has every case, each case every subject in turn."""
        subjects = self.subjects
        for number in range(self.results.rounds):
            turn = number % len(subjects)
            say(f"round {number + 1} of {self.results.rounds}")
            for case in self.cases:
                for subject in subjects[turn:] + subjects[:turn]:
                    self._cell(wrk, number, case, subject)

    def _cell(self, wrk: Wrk, number: int, case: Case, subject: Subject) -> None:
        seconds = self._lasting.get((subject.key, case))
        if seconds is None:
            return
        try:
            cell = measure(wrk, case, self.started[subject.key], seconds)
        except BenchError as error:
            self._fail(subject, [case], str(error))
            return
        self.results.add(subject.key, case, number, cell)
        say(
            f"  {case.key:<10} {subject.key:<10} {cell.per_second:>9,.1f}/s  p50 {cell.p50:.2f} ms"
            f"  p99 {cell.p99:.2f} ms  CPU {cell.cpu:,.0f} µs  {cell.resident_mb:,.0f} MB"
        )

    def _fail(self, subject: Subject, cases: Sequence[Case], reason: str) -> None:
        started = self.started.get(subject.key)
        for process in started.processes if started else []:
            if (status := process.popen.poll()) is not None:
                reason = f"{process.log.stem} ended with {status}: {process.last_words()}"
        for case in cases:
            self.results.fail(subject.key, case, reason)
        say(f"  {subject.key} failed {', '.join(case.key for case in cases)}: {reason}")


def warm_up(wrk: Wrk, case: Case, url: str, seconds: int) -> None:
    """Load a subject until it gets no faster, a few times at most."""
    before = 0.0
    for _ in range(WARM_UPS):
        requests = wrk.run(case, url, seconds)["requests"]
        if requests < STILL_WARMING * before:
            return
        before = requests


def wrk_version() -> str:
    """wrk's version. BenchError without wrk."""
    if shutil.which("wrk") is None:
        raise BenchError("wrk is missing: apt-get install wrk, or brew install wrk")
    told = subprocess.run(["wrk", "-v"], capture_output=True, text=True, timeout=10, check=False)
    words = told.stdout.split()
    return words[1].removeprefix("debian/") if len(words) > 1 else "of unknown version"


def arguments(
    name: str, about: str | None, subjects: Sequence[Subject], given: list[str] | None
) -> argparse.Namespace:
    keys = [subject.key for subject in subjects]
    parser = argparse.ArgumentParser(prog=f"tests.bench.{name}", description=about)
    parser.add_argument("--rounds", type=int, default=os.environ.get("BENCH_ROUNDS", "5"))
    parser.add_argument("--seconds", type=int, default=os.environ.get("BENCH_SECONDS", "2"))
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="SUBJECT")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args(given)
    if asked.rounds < 1 or asked.seconds < 1:
        parser.error("at least one round of one second")
    return asked


def run(
    name: str,
    about: str | None,
    every: Sequence[Subject],
    cases: Sequence[Case],
    section: Section,
    given: list[str] | None,
) -> int:
    """Measure and write the section; 1 when nothing could be measured."""
    stop_on_signals()
    asked = arguments(name, about, every, given)
    cores = Cores.choose()
    subjects = [subject for subject in every if subject.key in asked.only]
    command = f"python -m tests.bench.{name} --rounds {asked.rounds} --seconds {asked.seconds}"
    if len(subjects) < len(every):
        command += f" --only {' '.join(subject.key for subject in subjects)}"
    bench = Bench(subjects, cases, asked.rounds, asked.seconds)
    try:
        wrk_is = wrk_version()
        say(cores.words)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            stack.enter_context(on_core(cores.load))
            site = stack.enter_context(started_upstream(folder, cores))
            bench.start(site, stack)
            wrk = Wrk(folder, cores)
            bench.check(wrk)
            bench.run(wrk)
            sent = exported(site.sink_url)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: everything is stopped, nothing is written", file=sys.stderr)
        return 130
    told = tuple(started.version for started in bench.started.values() if started.version)
    setting = Setting(command, asked.seconds, cores.words, told, wrk_is, sent)
    write_section(asked.output, section(bench.results, setting))
    say(f"wrote {asked.output}")
    return 0 if bench.results.cells else 1
