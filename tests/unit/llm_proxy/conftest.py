from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.unit.llm_proxy.upstream import KEY, Proxy
from tests.unit.o11y.recorded import bare_machine


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare_machine(monkeypatch, tmp_path)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)


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
    return start(inference_url="http://inference:8083")
