"""Hundreds of calls of all kinds over HTTP; afterwards nothing of them is left."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil
import uvicorn
from opentelemetry.context import Context
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from inference_svc.app import build
from inference_svc.settings import Settings
from o11y.telemetry import Telemetry
from tests.tiny_model import WORDS
from tests.unit.o11y.recorded import points

CALLS = 500
AT_ONCE = 48
WARM_UP = 100
GROWTH_BYTES = 40 << 20

KINDS = ("short", "long", "several", "stream", "leaves", "gives up", "too long", "late")


class Ends(SpanProcessor):
    """Counts the spans that have started and not ended."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.ended = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open[format(span.context.span_id, "x")] += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.open[format(span.context.span_id, "x")] -= 1
        self.ended += 1


class Soaked:
    """The service on a port, and its telemetry."""

    def __init__(self, folder: Path) -> None:
        self.ends = Ends()
        self.reader = InMemoryMetricReader()
        settings = Settings(
            local_model_name=str(folder), engine_max_context=64, engine_max_waiting=32
        )
        telemetry = Telemetry("inference-svc", settings, [self.ends], [self.reader])
        self.app = build(settings, telemetry)
        self.http = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=AT_ONCE))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.http.base_url = httpx2.URL(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(self.app, log_config=None))
        running = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        async with self.http:
            yield
        server.should_exit = True
        await running

    async def call(self, kind: str, dice: random.Random) -> str:
        """One call; what came of it: its status, or `left`."""
        words = [f"w{dice.randrange(1, WORDS)}" for _ in range(dice.randint(1, 12))]
        body = {
            "prompt": " ".join(words),
            "max_length": {"short": 3, "too long": 100, "several": 8}.get(kind, 45),
            "num_sequences": 3 if kind == "several" else 1,
            "temperature": dice.choice([0, 1]),
            "stream": kind in ("stream", "leaves"),
        }
        headers = {"x-request-timeout": "0.004"} if kind == "late" else {}
        sent = self.http.stream("POST", "/local-inference", json=body, headers=headers)
        if kind == "gives up":
            try:
                async with asyncio.timeout(dice.uniform(0, 0.02)), sent as answer:
                    await answer.aread()
            except TimeoutError:
                return "left"
            return str(answer.status_code)
        async with sent as answer:
            if kind == "leaves" and answer.status_code == 200:
                await anext(answer.aiter_lines())
                return "left"
            await answer.aread()
            return str(answer.status_code)

    async def calls(self, count: int, seed: int) -> Counter[tuple[str, str]]:
        dice = random.Random(seed)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(kind: str) -> tuple[str, str]:
            async with places:
                return kind, await self.call(kind, dice)

        kinds = [KINDS[index % len(KINDS)] for index in range(count)]
        dice.shuffle(kinds)
        return Counter(await asyncio.gather(*map(one, kinds)))

    async def rest(self) -> None:
        """Returns once nothing runs, nothing waits and the cache is free."""
        async with asyncio.timeout(20):
            while True:
                stats = (await self.http.get("/stats")).json()
                if (stats["running"], stats["waiting"], stats["cache_used"]) == (0, 0, 0.0):
                    return
                await asyncio.sleep(0.05)

    def counted(self, metric: str) -> Counter[str]:
        """Values by the labels status and reason."""
        found: Counter[str] = Counter()
        for labels, value in points(self.reader, metric):
            told = (labels.get(key) for key in ("reason", "status"))
            found[" ".join(str(each) for each in told if each)] += int(value)
        return found


async def test_after_hundreds_of_mixed_calls_nothing_is_left(model_folder: Path) -> None:
    soaked = Soaked(model_folder)
    process = psutil.Process()
    async with soaked.serving():
        outcomes = await soaked.calls(WARM_UP, seed=1)
        await soaked.rest()
        before = process.memory_info().rss
        outcomes += await soaked.calls(CALLS - WARM_UP, seed=2)
        await soaked.rest()
        growth = process.memory_info().rss - before
        durations = soaked.counted("model_inference_duration")
        rejected = soaked.counted("model_requests_rejected")
        cancelled = soaked.counted("model_requests_cancelled")

    assert outcomes.total() == CALLS
    statuses: Counter[str] = Counter()
    for (kind, status), count in outcomes.items():
        statuses[status] += count
        assert status in {"200", "422", "429", "504", "left"}, (kind, status)
    assert {"200", "422", "504", "left"} <= set(statuses)
    assert all(status == "422" for kind, status in outcomes if kind == "too long")

    assert rejected["context_length_exceeded"] == statuses["422"]
    late = rejected["out_of_time"] + sum(
        count for why, count in cancelled.items() if why.startswith("out_of_time")
    )
    gone = sum(count for why, count in cancelled.items() if why.startswith("cancelled"))
    assert gone > 0
    # of a call whose client left we don't know how far it came: it may have ended any way, or none
    for known, told in (("200", durations["ok"]), ("429", rejected["busy"]), ("504", late)):
        assert statuses[known] <= told <= statuses[known] + statuses["left"]
    assert gone <= statuses["left"]
    assert durations.total() <= CALLS

    assert soaked.ends.ended > CALLS
    assert +soaked.ends.open == Counter()
    assert growth < GROWTH_BYTES
