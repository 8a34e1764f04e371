"""Providers over the network: through the proxies of the environment, the local service never."""

from collections.abc import Iterator

import httpx2
import pytest

from llm_proxy.app import build
from llm_proxy.provider import Provider
from llm_proxy.settings import LOCAL, ProviderSettings, Settings
from o11y.web.service import StartError
from tests.support.peers import HELLO, Server, listening
from tests.support.recorded import Recorded
from tests.support.upstream import provider_settings

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded("llm-proxy", Settings())
    yield recorded
    recorded.telemetry.shutdown()


@pytest.mark.parametrize("excepted", ["", "a.test"])
async def test_a_provider_is_asked_through_the_proxy_unless_it_is_excepted(
    excepted: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Server(HELLO)
    async with listening(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{url.port}")
        monkeypatch.setenv("NO_PROXY", excepted)
        provider = Provider(provider_settings("a", {}), NOWHERE, recorded.telemetry)
        if excepted:
            with pytest.raises(httpx2.ConnectError):  # the name means nothing here
                await provider.get("/models")
        else:
            assert (await provider.get("/models")).content == b"hello"
        await provider.aclose()
    asked = [request.split(b"\r\n")[0] for request in proxy.requests]
    assert asked == ([] if excepted else [b"GET http://a.test/v1/models HTTP/1.1"])


async def test_the_local_service_is_asked_directly(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    local = Server(HELLO)
    async with listening(local) as url:
        inference_url = f"http://127.0.0.1:{url.port}"
        provider = Provider(ProviderSettings(name=LOCAL), inference_url, recorded.telemetry)
        assert (await provider.get("/models")).content == b"hello"
        await provider.aclose()
    assert len(local.requests) == 1


def test_a_proxy_that_speaks_no_http_stops_the_start(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    settings = Settings.model_validate({"openai_api_key": "sk-x"})
    with pytest.raises(StartError, match=r"^ALL_PROXY: only HTTP proxies are supported$"):
        build(settings, recorded.telemetry)
