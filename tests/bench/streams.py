"""Load of the inference benchmark: completions that stream, and embeddings, so many at once."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import httpx2

from tests.bench.runner import BenchError, peak_mb
from tests.bench.subjects import Started

ANSWER_SECONDS = 300
WORDS = ("a", "request", "goes", "through", "the", "gateway", "and", "back", "with", "its", "trace")


@dataclass(frozen=True)
class Case:
    """So many calls at once; `calls` of them in a cell, `slow_calls` of a subject that takes them
    one after another and whose rate does not depend on how many wait.
    """

    key: str
    title: str
    at_once: int
    calls: int
    slow_calls: int
    embeddings: bool = False

    @property
    def unit(self) -> str:
        return "texts/s" if self.embeddings else "tokens/s"


ONE = Case("1", "1 generation at once", 1, 2, 1)
EIGHT = Case("8", "8 generations at once", 8, 8, 2)
MANY = Case("32", "32 generations at once", 32, 32, 3)
EMBEDDINGS = Case("embeddings", "64 embeddings at once, one text each", 64, 256, 64, True)
CASES = [ONE, EIGHT, MANY, EMBEDDINGS]


@dataclass(frozen=True)
class Cell:
    """One measurement, times in milliseconds: until the first token (of embeddings: the answer),
    and between tokens (0 where the answer comes at once).
    """

    per_second: float
    first_p50: float
    first_p95: float
    between_p95: float
    resident_mb: float


@dataclass(frozen=True)
class _Answer:
    units: int
    first: float
    gaps: Sequence[float] = ()


def prompt(number: int) -> str:
    """About 4 to 70 tokens, each number's own."""
    words = itertools.islice(itertools.cycle(WORDS), 3 + (number * 17) % 64)
    return f"Note {number}: " + " ".join(words)


def measure(started: Started, case: Case, tokens: int, one_by_one: bool) -> Cell:
    """One cell. BenchError when an answer is wrong."""
    calls = case.slow_calls if one_by_one else case.calls
    try:
        answers, seconds = asyncio.run(_load(started.url, case, calls, tokens))
    except (httpx2.HTTPError, ValueError, LookupError, TimeoutError) as error:
        raise BenchError(f"no good answer: {type(error).__name__} {error}") from None
    firsts = [answer.first for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps]
    return Cell(
        per_second=sum(answer.units for answer in answers) / seconds,
        first_p50=1e3 * median(firsts),
        first_p95=1e3 * _p95(firsts),
        between_p95=1e3 * _p95(gaps),
        resident_mb=peak_mb(started.processes),
    )


async def _load(url: str, case: Case, calls: int, tokens: int) -> tuple[list[_Answer], float]:
    limits = httpx2.Limits(max_connections=case.at_once)
    numbers = iter(range(calls))
    answers: list[_Answer] = []
    async with httpx2.AsyncClient(
        base_url=url, timeout=ANSWER_SECONDS, limits=limits, trust_env=False
    ) as http:

        async def caller() -> None:
            for number in numbers:
                call = _embed(http, number) if case.embeddings else _stream(http, number, tokens)
                answers.append(await call)

        began = time.perf_counter()
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.gather(*(caller() for _ in range(case.at_once)))
        return answers, time.perf_counter() - began


async def _embed(http: httpx2.AsyncClient, number: int) -> _Answer:
    began = time.perf_counter()
    answer = await http.post("embeddings", json={"input": f"span {number} of a longer trace"})
    answer.raise_for_status()
    if len(answer.json()["data"][0]["embedding"]) != 384:
        raise ValueError("the vector has not 384 numbers")
    return _Answer(1, time.perf_counter() - began)


async def _stream(http: httpx2.AsyncClient, number: int, tokens: int) -> _Answer:
    body = {
        "prompt": prompt(number),
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    stamps: list[float] = []
    counted = 0
    began = time.perf_counter()
    async with http.stream("POST", "completions", json=body) as answer:
        if answer.status_code != 200:
            raise ValueError(f"status {answer.status_code}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise ValueError(str(event["error"])[:100])
            if any(choice.get("text") for choice in event["choices"]):
                stamps.append(time.perf_counter())
            if event.get("usage"):
                counted = event["usage"]["completion_tokens"]
    if not stamps or not 0 < counted <= tokens:
        raise ValueError(f"{counted} tokens in {len(stamps)} pieces")
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    return _Answer(counted, stamps[0] - began, gaps)


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else 0.0
