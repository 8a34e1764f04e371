"""Hundreds of calls of all kinds over HTTP; afterwards nothing of them is left."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from inference_svc.app import build
from inference_svc.settings import Settings
from o11y.telemetry.signals import Telemetry
from tests.support import mixed_calls
from tests.support.recorded import InMemoryReader, points

pytestmark = pytest.mark.slow

CALLS = 500


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
        self.reader = InMemoryReader()
        settings = Settings(
            local_model_name=str(folder),
            engine_max_context=mixed_calls.MAX_CONTEXT,
            engine_max_waiting=mixed_calls.MAX_WAITING,
        )
        telemetry = Telemetry("inference-svc", settings, [self.ends], [self.reader])
        self.app = build(settings, telemetry)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[httpx2.AsyncClient]:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(self.app, log_config=None))
        running = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(60):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        async with mixed_calls.client(f"http://127.0.0.1:{listener.getsockname()[1]}") as http:
            yield http
        server.should_exit = True
        await running

    def counted(self, metric: str) -> Counter[str]:
        """Values by the labels status and reason."""
        found: Counter[str] = Counter()
        for labels, value in points(self.reader, metric):
            told = (labels.get(key) for key in ("reason", "status"))
            found[" ".join(str(each) for each in told if each)] += int(value)
        return found

    def abandoned(self) -> int:
        """The calls that the engine gave up since their callers had left."""
        cancelled = self.counted("model_requests_cancelled")
        return sum(count for why, count in cancelled.items() if why.startswith("cancelled"))


async def test_after_hundreds_of_mixed_calls_nothing_is_left(model_folder: Path) -> None:
    soaked = Soaked(model_folder)
    async with soaked.serving() as http:
        outcomes = await mixed_calls.calls(http, CALLS, seed=1)
        await mixed_calls.rest(http)
        async with asyncio.timeout(60):  # an engine that is quick may have served all who left
            while not soaked.abandoned():
                outcomes["leaves", await mixed_calls.call(http, "leaves", random.Random(1))] += 1
                await mixed_calls.rest(http)
        durations = soaked.counted("model_inference_duration")
        rejected = soaked.counted("model_requests_rejected")
        cancelled = soaked.counted("model_requests_cancelled")

    assert outcomes.total() >= CALLS
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
    # of a call whose client left we don't know how far it came: it may have ended any way, or none
    for known, told in (("200", durations["ok"]), ("429", rejected["busy"]), ("504", late)):
        assert statuses[known] <= told <= statuses[known] + statuses["left"]
    assert 0 < soaked.abandoned() <= statuses["left"]
    assert durations.total() <= outcomes.total()

    assert soaked.ends.ended > CALLS
    assert +soaked.ends.open == Counter()
