"""`python -m tests.bench.inference`: inference-svc beside `transformers serve` and the original's
way, written to its section of RESULTS.md.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

from inference_svc import device, packaged
from tests.bench.results import (
    Goal,
    Results,
    failed,
    failures_notes,
    goals_table,
    machine,
    memory_table,
    times_faster,
    write_section,
)
from tests.bench.runner import BenchError, Cores, Process, running, say, stop_on_signals
from tests.bench.streams import CASES, EIGHT, EMBEDDINGS, MANY, ONE, Case, Cell, measure
from tests.bench.subjects import Site, Started, Subject, exported, service, started_upstream
from tests.support.processes import ROOT, free_ports

RESULTS = Path(__file__).with_name("RESULTS.md")
START_SECONDS = 180.0
LIBRARIES = ("torch", "transformers", "sentence-transformers", "fastapi", "uvicorn", "httpx2")
WARM_UPS = 2
WARM_UP_TOKENS = 4


@contextmanager
def _one_by_one(site: Site) -> Iterator[Started]:
    with _server(
        site,
        "one-by-one",
        [sys.executable, "-m", "tests.bench.one_by_one", "{port}", str(_folder())],
        "/",
    ) as (url, process):
        yield Started(f"{url}/v1", [process])


@contextmanager
def _serve(site: Site, dtype: str) -> Iterator[Started]:
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(_folder())]
    options = ["--continuous-batching", "--device", "cpu", "--dtype", dtype, "--port", "{port}"]
    options += ["--host", "127.0.0.1"]
    with _server(site, "serve", [*command, *options], "/health") as (url, process):
        yield Started(f"{url}/v1", [process], version("transformers"))


@contextmanager
def _ours(site: Site) -> Iterator[Started]:
    with service(site, "inference_svc", "inference-svc", True, USE_GPU="false") as (url, process):
        yield Started(f"{url}/v1", [process])


@contextmanager
def _server(site: Site, name: str, command: list[str], path: str) -> Iterator[tuple[str, Process]]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    words = [str(port) if word == "{port}" else word for word in command]
    settings = {"HF_HUB_OFFLINE": "1"}
    with running(
        words, name, site.folder, url + path, START_SECONDS, None, settings, ROOT
    ) as process:
        yield url, process


def _folder() -> Path:
    return packaged.ensure(packaged.CACHE)


DTYPE = str(device.choose(use_gpu=False, gpu_device_id=0).dtype).removeprefix("torch.")
ONE_BY_ONE = Subject("one-by-one", "one `generate` after another, float32", _one_by_one)
SERVE = Subject(
    "serve", f"`transformers serve --continuous-batching`, {DTYPE}", partial(_serve, dtype=DTYPE)
)
OURS = Subject("ours", f"inference-svc, {DTYPE}, telemetry on", _ours)
SUBJECTS = [ONE_BY_ONE, SERVE, OURS]


def _goal(title: str, case: Case, other: Subject, times: float) -> Goal[Cell]:
    return Goal(title, case, OURS.key, other.key, times_faster, " times", at_least=times)


GOALS = [
    _goal("tokens/s over one after another, 32 at once", MANY, ONE_BY_ONE, 20),
    _goal("tokens/s over `transformers serve`, 1 at once", ONE, SERVE, 1),
    _goal("tokens/s over `transformers serve`, 8 at once", EIGHT, SERVE, 1),
    _goal("tokens/s over `transformers serve`, 32 at once", MANY, SERVE, 1),
    _goal("texts/s over one after another, 64 at once", EMBEDDINGS, ONE_BY_ONE, 10),
]


class Bench:
    """One run."""

    def __init__(self, subjects: list[Subject], rounds: int, tokens: int) -> None:
        self.results: Results[Cell] = Results(subjects, rounds)
        self.subjects = subjects
        self.tokens = tokens
        self.started: dict[str, Started] = {}

    def start(self, site: Site, stack: ExitStack) -> None:
        """Start every subject and warm it up; what fails here is not measured."""
        for subject in self.subjects:
            say(f"starting {subject.title}")
            try:
                started = stack.enter_context(subject.start(site))
                self.started[subject.key] = started
                for case in self.cases(subject) * WARM_UPS:
                    measure(started, case, WARM_UP_TOKENS, subject is ONE_BY_ONE)
            except BenchError as error:
                self.started.pop(subject.key, None)
                for case in self.cases(subject):
                    self.results.fail(subject.key, case, str(error))
                say(f"  failed: {error}")

    def cases(self, subject: Subject) -> list[Case]:
        """`transformers serve` has no embeddings."""
        return [case for case in CASES if subject is not SERVE or not case.embeddings]

    def run(self) -> None:
        """All rounds; each has every case, each case every subject in turn."""
        for number in range(self.results.rounds):
            turn = number % len(self.subjects)
            say(f"round {number + 1} of {self.results.rounds}")
            for case in CASES:
                for subject in self.subjects[turn:] + self.subjects[:turn]:
                    if subject.key in self.started and case in self.cases(subject):
                        self._cell(number, case, subject)

    def _cell(self, number: int, case: Case, subject: Subject) -> None:
        started = self.started[subject.key]
        try:
            cell = measure(started, case, self.tokens, subject is ONE_BY_ONE)
        except BenchError as error:
            self.results.fail(subject.key, case, str(error))
            say(f"  {case.key:<10} {subject.key:<10} failed: {error}")
            return
        self.results.add(subject.key, case, number, cell)
        say(
            f"  {case.key:<10} {subject.key:<10} {cell.per_second:>7,.1f} {case.unit}"
            f"  first p50 {cell.first_p50:,.0f} p95 {cell.first_p95:,.0f} ms"
            f"  between p95 {cell.between_p95:,.0f} ms  {cell.resident_mb:,.0f} MB"
        )


def case_table(results: Results[Cell], case: Case) -> list[str]:
    first, between = ("answer", "") if case.embeddings else ("first token", "between tokens p95 ms")
    lines = [
        f"## {case.title}",
        "",
        f"| | {case.unit} | min to max | {first} p50 ms | p95 ms | {between} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for subject in results.subjects:
        if subject is SERVE and case.embeddings:
            continue
        cells = list(results.of(subject.key, case).values())
        if not cells:
            lines.append(f"| {subject.title} | {failed(results, subject, case)} | | | | |")
            continue
        rates = [cell.per_second for cell in cells]
        gap = median(cell.between_p95 for cell in cells)
        # of one after another only a few are waited for: their waits would say nothing
        waits = subject is not ONE_BY_ONE or case is ONE
        firsts = (
            f"{median(cell.first_p50 for cell in cells):,.0f} "
            f"| {median(cell.first_p95 for cell in cells):,.0f}"
        )
        lines.append(
            f"| {subject.title} | {median(rates):,.1f} | {min(rates):,.1f} to {max(rates):,.1f} "
            f"| {firsts if waits else ' | '} | {f'{gap:,.0f}' if gap else ''} |"
        )
    return [*lines, "", *failures_notes(results, case)]


def section(results: Results[Cell], command: str, tokens: int, sent: str) -> list[str]:
    """The section of RESULTS.md."""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in LIBRARIES]
    return [
        "# inference-svc beside transformers serve and one generate after another",
        "",
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}. {results.rounds} rounds, subjects "
        "in turn and each round in another order; a figure is the median of its rounds. The "
        f"packaged model ({packaged.NAME}); {tokens} new tokens a call, greedy; prompts of about "
        "4 to 70 tokens, the same ones for all; every call is a stream over HTTP.",
        "",
        *goals_table(results, GOALS),
        *(line for case in CASES for line in case_table(results, case)),
        *memory_table(results),
        "## Measured with",
        "",
        f"- {machine()}. Nothing is pinned: the models use all cores, and the load generator, an "
        "asyncio client, shares them.",
        f"- {', '.join(versions)}",
        "- One after another: a plain HTTP server that holds a lock around `generate` and "
        "`encode`; its answer is a single event, so its first token is its last. Its rate does "
        f"not depend on how many wait, so at most {MANY.slow_calls} wait for it; how long they do "
        "is not shown.",
        "- `transformers serve`: as it is without options of ours. Its first request builds a "
        "cache of most of the machine's memory; that is not in the figures but in its memory.",
        f"- Telemetry on: traces, metrics and logs of every request over OTLP; {sent}",
        "- Memory is the most that was ever resident.",
        "",
    ]


def arguments(given: list[str] | None) -> argparse.Namespace:
    keys = [subject.key for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="tests.bench.inference", description=__doc__)
    parser.add_argument("--rounds", type=int, default=os.environ.get("BENCH_ROUNDS", "3"))
    parser.add_argument("--tokens", type=int, default=32, help="new tokens a call")
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="SUBJECT")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args(given)
    if asked.rounds < 1 or asked.tokens < 2:
        parser.error("at least one round of two tokens")
    return asked


def main(given: list[str] | None = None) -> int:
    """Measure and write the section; 1 when nothing could be measured."""
    stop_on_signals()
    asked = arguments(given)
    subjects = [subject for subject in SUBJECTS if subject.key in asked.only]
    command = f"python -m tests.bench.inference --rounds {asked.rounds} --tokens {asked.tokens}"
    if len(subjects) < len(SUBJECTS):
        command += f" --only {' '.join(subject.key for subject in subjects)}"
    bench = Bench(subjects, asked.rounds, asked.tokens)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            site = stack.enter_context(started_upstream(folder, Cores(None, None)))
            bench.start(site, stack)
            bench.run()
            sent = exported(site.sink_url)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: everything is stopped, nothing is written", file=sys.stderr)
        return 130
    write_section(asked.output, section(bench.results, command, asked.tokens, sent))
    say(f"wrote {asked.output}")
    return 0 if bench.results.cells else 1


if __name__ == "__main__":
    sys.exit(main())
