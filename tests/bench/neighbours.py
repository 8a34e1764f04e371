"""`python -m tests.bench.neighbours`: how fast inference-svc writes while other processes want the
same cores, over the settings of the threads that compute.

Every subject is an inference-svc with the packaged model on the CPU; one of them writes at a time,
the others are stopped. A neighbour is a process in an endless loop.
"""

import argparse
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import httpx2

from inference_svc import device, threads
from tests.bench.results import machine, write_section
from tests.bench.runner import BenchError, Process, running, say, stop_on_signals
from tests.support.processes import free_ports

RESULTS = Path(__file__).with_name("RESULTS.md")
PROMPT = "A span has a name, a start, an end, attributes, events and a parent, and"
START_SECONDS = 120.0
CELL_SECONDS = 300.0
NEIGHBOURS = (0, 1, 2)
AT_ONCE = (1, 8)


@dataclass(frozen=True, eq=False)
class Subject:
    """A setting of the threads that compute, as environment variables."""

    title: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.environment.items())
        return f"`{told}`" if told else ""


PLAIN = Subject("libgomp's default, 300,000", {"GOMP_SPINCOUNT": "300000"})
SUBJECTS = [
    Subject(f"inference-svc's default, {threads.SPINS:,}"),
    PLAIN,
    Subject("30,000", {"GOMP_SPINCOUNT": "30000"}),
    Subject("3,000", {"GOMP_SPINCOUNT": "3000"}),
    Subject("300", {"GOMP_SPINCOUNT": "300"}),
    Subject("none", {"OMP_WAIT_POLICY": "passive"}),
    Subject("without end", {"OMP_WAIT_POLICY": "active"}),
    Subject("one thread", {"OMP_NUM_THREADS": "1"}),
]


class Service:
    """A subject's process, stopped unless it is measured."""

    def __init__(self, process: Process, url: str) -> None:
        self._process = process
        self._url = url
        self.measure(1, 8)

    def measure(self, at_once: int, tokens: int) -> float:
        """Tokens a second of so many texts that are written at once."""
        self._process.popen.send_signal(signal.SIGCONT)
        with ThreadPoolExecutor(at_once) as callers:
            texts = list(callers.map(partial(self._write, tokens=tokens), range(at_once)))
        self._process.popen.send_signal(signal.SIGSTOP)
        return sum(count for count, _ in texts) / max(seconds for _, seconds in texts)

    def _write(self, number: int, tokens: int) -> tuple[int, float]:
        body = {
            "prompt": f"{number}. {PROMPT}",
            "max_length": tokens,
            "temperature": 1,
            "seed": number,
        }
        headers = {"x-request-timeout": str(CELL_SECONDS)}
        try:
            answer = httpx2.post(
                f"{self._url}/local-inference", json=body, headers=headers, timeout=CELL_SECONDS
            )
            metadata = answer.raise_for_status().json()["metadata"]
        except httpx2.HTTPError as error:
            raise BenchError(f"no good answer: {type(error).__name__} {error}") from None
        written = int(metadata["usage"]["completion_tokens"])
        return written, float(metadata["performance"]["duration_seconds"])


@contextmanager
def service(subject: Subject, folder: Path, dtype: str) -> Iterator[Service]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings = {
        "APP_PORT": str(port),
        "OTEL_SDK_DISABLED": "true",
        "USE_GPU": "false",
        "LOCAL_MODEL_DTYPE": dtype,
        "REQUEST_TIMEOUT_SECONDS": str(CELL_SECONDS),
        **subject.environment,
    }
    command = [sys.executable, "-m", "inference_svc"]
    with running(
        command, subject.title, folder, f"{url}/readyz", START_SECONDS, None, settings
    ) as process:
        try:
            yield Service(process, url)
        finally:
            process.popen.send_signal(signal.SIGCONT)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but take a core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait(10)


Rates = dict[tuple[Subject, int, int], list[float]]
"""Tokens a second of each round, by subject, neighbours and texts at once."""


def run(services: Mapping[Subject, Service], rounds: int, tokens: int) -> Rates:
    rates: Rates = {}
    for number in range(rounds):
        for neighbours in NEIGHBOURS:
            for at_once in AT_ONCE:
                order = random.Random(f"{number} {neighbours}").sample(SUBJECTS, len(SUBJECTS))
                for subject in order:
                    with busy(neighbours):
                        rate = services[subject].measure(at_once, tokens)
                    rates.setdefault((subject, neighbours, at_once), []).append(rate)
                    say(
                        f"round {number + 1}, {neighbours} busy, {at_once} at once, "
                        f"{subject.title}: {rate:.1f} tokens/s"
                    )
    return rates


def section(rates: Rates, rounds: int, tokens: int, dtype: str) -> list[str]:
    command = f"python -m tests.bench.neighbours --rounds {rounds} --tokens {tokens}"
    lines = [
        "# inference-svc beside busy neighbours",
        "",
        f"Made by `{command} --dtype {dtype}` on {datetime.now(UTC):%Y-%m-%d}. {rounds} rounds, "
        f"subjects in turn and each round in another order; a figure is the median of its rounds "
        f"in tokens/s, {tokens} new tokens a text, and its share of what libgomp's own default "
        "writes alone. A subject is how often a thread that computes looks whether there is more "
        "to do before it sleeps; a neighbour is a process in an endless loop.",
        "",
    ]
    for at_once in AT_ONCE:
        alone = median(rates[PLAIN, 0, at_once])
        titles = " | ".join("alone" if not n else f"{n} busy" for n in NEIGHBOURS)
        lines += [
            f"## {at_once} text{'s' if at_once > 1 else ''} at once",
            "",
            f"| | | {titles} |",
            f"|---|---|{'---:|' * len(NEIGHBOURS)}",
        ]
        for subject in SUBJECTS:
            cells = [median(rates[subject, count, at_once]) for count in NEIGHBOURS]
            told = " | ".join(f"{cell:.1f} ({cell / alone:.0%})" for cell in cells)
            lines.append(f"| {subject.title} | {subject.words} | {told} |")
        lines.append("")
    return [
        *lines,
        "## Measured with",
        "",
        f"- {machine()}; all cores but in the row of one thread; {dtype}, telemetry off.",
        f"- Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}",
        "",
    ]


def arguments(given: list[str] | None) -> argparse.Namespace:
    fastest = str(device.choose(use_gpu=False, gpu_device_id=0).dtype).removeprefix("torch.")
    parser = argparse.ArgumentParser(prog="tests.bench.neighbours", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="new tokens a text")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=fastest)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Measure and write the section; 1 when something can't be measured."""
    stop_on_signals()
    asked = arguments(given)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            services = {}
            for subject in SUBJECTS:
                say(f"starting {subject.title}")
                services[subject] = stack.enter_context(service(subject, folder, asked.dtype))
            rates = run(services, asked.rounds, asked.tokens)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: everything is stopped, nothing is written", file=sys.stderr)
        return 130
    write_section(asked.output, section(rates, asked.rounds, asked.tokens, asked.dtype))
    say(f"wrote {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
