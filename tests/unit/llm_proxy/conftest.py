import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from tests.support.recorded import bare_machine
from tests.support.upstream import INFERENCE, KEY, Caller, Proxy


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare_machine(monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between attempts; nobody waits."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    return slept


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Proxy]]:
    """Starts proxies with settings of the test's choice."""
    started: list[Proxy] = []

    def start(**settings: object) -> Proxy:
        started.append(Proxy(**settings))
        return started[-1]

    yield start
    for proxy in started:
        await proxy.close()


@pytest.fixture
def proxy(start: Callable[..., Proxy]) -> Proxy:
    """A proxy of OpenAI."""
    return start(openai_api_key=KEY)


@pytest.fixture
def local(start: Callable[..., Proxy]) -> Proxy:
    """A proxy without a key: of the local inference service."""
    return start(inference_url=INFERENCE)


@pytest.fixture
async def calling() -> AsyncIterator[Callable[..., Caller]]:
    """Makes callers of providers with these settings, in this order."""
    made: list[Caller] = []

    def make(*providers: Mapping[str, object]) -> Caller:
        made.append(Caller(*providers))
        return made[-1]

    yield make
    for caller in made:
        await caller.close()
