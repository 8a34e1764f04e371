"""Calls of all kinds to an inference-svc with the tiny model, many at once: good ones, streams,
callers who leave or give up, prompts that are too long, and calls whose time is over at once.
"""

import asyncio
import random
from collections import Counter

import httpx2

from tests.support.tiny_model import WORDS

AT_ONCE = 48

MAX_CONTEXT = 64
MAX_WAITING = 32
"""Settings of the service: some prompts are too long, and some callers are told to come again."""

KINDS = ("short", "long", "several", "stream", "leaves", "gives up", "too long", "late")


def client(base_url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=AT_ONCE)
    return httpx2.AsyncClient(base_url=base_url, limits=limits, timeout=60)


async def call(http: httpx2.AsyncClient, kind: str, dice: random.Random) -> str:
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
    sent = http.stream("POST", "/local-inference", json=body, headers=headers)
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


async def calls(http: httpx2.AsyncClient, count: int, seed: int) -> Counter[tuple[str, str]]:
    """So many calls, of each kind as many, and what came of them by kind."""
    dice = random.Random(seed)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(kind: str) -> tuple[str, str]:
        async with places:
            return kind, await call(http, kind, dice)

    kinds = [KINDS[index % len(KINDS)] for index in range(count)]
    dice.shuffle(kinds)
    return Counter(await asyncio.gather(*map(one, kinds)))


async def rest(http: httpx2.AsyncClient) -> None:
    """Returns once nothing runs, nothing waits and the cache is free."""
    async with asyncio.timeout(60):
        while True:
            stats = (await http.get("/stats")).json()
            if (stats["running"], stats["waiting"], stats["cache_used"]) == (0, 0, 0.0):
                return
            await asyncio.sleep(0.05)
