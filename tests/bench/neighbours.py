"""`python -m tests.bench.neighbours`: how fast the packaged model writes while other processes want
the same cores, over the settings of the threads that compute it.

Every subject is a process with the engine of inference-svc, without HTTP and telemetry; one of them
writes at a time, the others are stopped. A neighbour is a process in an endless loop.
"""

import argparse
import asyncio
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from inference_svc import device, model
from inference_svc.engine import Engine, EngineLimits, GenerationRequest
from inference_svc.prompt import Prompts
from inference_svc.settings import Settings
from tests.bench.results import machine, write_section
from tests.bench.runner import BenchError, clean_environment, say, stop_on_signals

RESULTS = Path(__file__).with_name("RESULTS.md")
PROMPT = "A span has a name, a start, an end, attributes, events and a parent, and so"
START_SECONDS = 120.0
CELL_SECONDS = 300.0
NEIGHBOURS = (0, 1, 2)


@dataclass(frozen=True, eq=False)
class Subject:
    """A setting of the computing threads, as environment variables."""

    title: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.environment.items())


CHOSEN = Subject("as inference-svc sets it")
SUBJECTS = [
    CHOSEN,
    Subject("libgomp's own way", {"GOMP_SPINCOUNT": "300000"}),
    *[Subject(f"spins {count}", {"GOMP_SPINCOUNT": str(count)}) for count in (0, 100, 1000, 10000)],
    Subject("waits passively", {"OMP_WAIT_POLICY": "passive"}),
    Subject("one thread", {"OMP_NUM_THREADS": "1"}),
]
BEFORE = SUBJECTS[1]


async def write(engine: Engine, requests: list[GenerationRequest]) -> float:
    """Tokens a second of all sequences together."""
    done = await asyncio.gather(*[engine.generate([each]) for each in requests])
    longest = max(generation.duration_seconds for (generation,) in done)
    return sum(generation.completion_tokens for (generation,) in done) / longest


async def child() -> None:
    """The process of a subject: for each line `SEQUENCES TOKENS` it prints its tokens a second."""
    settings = Settings()
    chosen = device.choose(False, 0, settings.local_model_dtype)
    loaded = model.load(None, chosen, settings.model_cache_dir)
    limits = EngineLimits(
        max_context=1024, max_requests=32, max_batch_tokens=512, cache_blocks=128, max_waiting=64
    )
    engine = Engine(loaded, limits)
    engine.start()
    ids = await Prompts(loaded.tokenizer, engine.window).text(PROMPT)
    await write(engine, [GenerationRequest(ids, 8, 0.0)])
    print(json.dumps({"dtype": str(chosen.dtype), "threads": torch.get_num_threads()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        sequences, tokens = map(int, line.split())
        made = [GenerationRequest([*ids, at + 10], tokens, 0.0) for at in range(sequences)]
        print(json.dumps(await write(engine, made)), flush=True)
    await engine.stop()


class Running:
    """A subject's process, stopped between its turns."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.log = folder / f"{subject.title}.log"
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.neighbours", "--child"],
                env=clean_environment(subject.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        self.about = json.loads(self._line())
        self.popen.send_signal(signal.SIGSTOP)

    def measure(self, sequences: int, tokens: int) -> float:
        self.popen.send_signal(signal.SIGCONT)
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{sequences} {tokens}\n")
        self.popen.stdin.flush()
        rate = float(json.loads(self._line()))
        self.popen.send_signal(signal.SIGSTOP)
        return rate

    def _line(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise BenchError(f"a subject ended: {self.log.read_text().strip().splitlines()[-1:]}")
        return line

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait(10)


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
"""Tokens a second of each round, by subject, neighbours, and sequences at once."""


def run(running: Mapping[Subject, Running], asked: argparse.Namespace) -> Rates:
    rates: Rates = {}
    for number in range(asked.rounds):
        for neighbours in NEIGHBOURS:
            for sequences in asked.sequences:
                order = random.Random(f"{number} {neighbours}").sample(list(running), len(running))
                for subject in order:
                    with busy(neighbours):
                        rate = running[subject].measure(sequences, asked.tokens)
                    rates.setdefault((subject, neighbours, sequences), []).append(rate)
                    say(
                        f"round {number + 1}: {subject.title}, {neighbours} busy, "
                        f"{sequences} at once: {rate:.1f} tokens/s"
                    )
    return rates


def section(
    rates: Rates, asked: argparse.Namespace, command: str, about: dict[str, str]
) -> list[str]:
    lines = [
        "# Beside busy neighbours",
        "",
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}. {asked.rounds} rounds, subjects in "
        f"turn and each round in another order; a figure is the median of its rounds in tokens/s, "
        f"{asked.tokens} new tokens a sequence, greedy. In brackets: the share of what "
        f"“{BEFORE.title}” ({BEFORE.key}) writes alone. A neighbour is a process in an endless "
        "loop.",
        "",
    ]
    for sequences in asked.sequences:
        alone = median(rates[BEFORE, 0, sequences])
        titles = " | ".join(f"{count} busy" for count in NEIGHBOURS)
        lines += [
            f"## {sequences} at once",
            "",
            f"| | | {titles} |",
            f"|---|---|{'---:|' * len(NEIGHBOURS)}",
        ]
        for subject in SUBJECTS:
            cells = [median(rates[subject, count, sequences]) for count in NEIGHBOURS]
            told = " | ".join(f"{cell:.1f} ({cell / alone:.0%})" for cell in cells)
            lines.append(f"| {subject.title} | `{subject.key}` | {told} |")
        lines.append("")
    return [
        *lines,
        "## Measured with",
        "",
        f"- {machine()}; {about['threads']} threads unless one is said, {about['dtype']}.",
        f"- Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}",
        "",
    ]


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.neighbours", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="new tokens a sequence")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    asked = arguments(given)
    if asked.child:
        asyncio.run(child())
        return 0
    stop_on_signals()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            running: dict[Subject, Running] = {}
            for subject in SUBJECTS:
                say(f"starting {subject.title}")
                running[subject] = Running(subject, folder)
                stack.callback(running[subject].end)
            rates = run(running, asked)
            about = running[BEFORE].about
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: everything is stopped, nothing is written", file=sys.stderr)
        return 130
    command = f"python -m tests.bench.neighbours --rounds {asked.rounds} --tokens {asked.tokens}"
    write_section(asked.output, section(rates, asked, command, about))
    say(f"wrote {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
