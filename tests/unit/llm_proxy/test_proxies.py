"""Which requests go through a proxy of the environment."""

import httpx2
import pytest

from llm_proxy.proxies import UnsupportedProxy, proxy_for
from o11y.http.transport import NetworkTransport
from tests.support.peers import HELLO, Server, listening

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("environment", "url", "direct"),
    [
        ({}, "http://llm.test", True),
        ({"HTTP_PROXY": NOWHERE}, "http://llm.test", False),
        ({"http_proxy": "127.0.0.1:1"}, "http://llm.test", False),
        ({"HTTP_PROXY": NOWHERE}, "https://llm.test", True),
        ({"HTTPS_PROXY": NOWHERE}, "https://llm.test", False),
        ({"ALL_PROXY": NOWHERE}, "https://llm.test", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "llm.test"}, "http://llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "a.test, llm.test"}, "http://llm.test:8000/v1", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "test"}, "http://llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": ".llm.test"}, "http://eu.llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": ".llm.test"}, "http://llm.test", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "llm.test"}, "http://notllm.test", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "*"}, "http://llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "localhost,10.0.0.1"}, "http://localhost", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "localhost,10.0.0.1"}, "http://10.0.0.1", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.1"}, "http://10.0.0.2", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "::1"}, "http://[::1]:8000", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "https://llm.test"}, "https://llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "https://llm.test"}, "http://llm.test", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "*"}, "http://10.0.0.1", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "llm.test:8000"}, "http://llm.test:8000/v1", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "llm.test:8000"}, "http://llm.test:8001/v1", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "llm.test:443"}, "https://eu.llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "llm.test:443"}, "http://llm.test", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.1:8000"}, "http://10.0.0.1:8000", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.1:8000"}, "http://10.0.0.1", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.0/8"}, "http://10.200.0.1:8000", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.0/8"}, "http://11.0.0.1", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.1.2.3/8"}, "http://10.200.0.1", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.0/8"}, "http://10.test", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.0/99"}, "http://10.0.0.1", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "fd00::/8"}, "http://[fd12::1]:8000", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "10.0.0.0/8"}, "http://[fd12::1]", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "[::1]:8000"}, "http://[::1]:8000", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "[::1]:8000"}, "http://[::1]:9000", False),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "*.llm.test"}, "http://eu.llm.test", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": "LLM.test"}, "http://llm.TEST", True),
        ({"ALL_PROXY": NOWHERE, "NO_PROXY": " , ,"}, "http://llm.test", False),
    ],
)
def test_the_environment_names_the_way(
    environment: dict[str, str], url: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx2.URL(url)) == (None if direct else NOWHERE)


def test_a_proxy_that_is_not_spoken_to_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://ann:hunter2@127.0.0.1:1")
    with pytest.raises(UnsupportedProxy, match="ALL_PROXY: only HTTP proxies are") as raised:
        proxy_for(httpx2.URL("http://llm.test"))
    assert "hunter2" not in str(raised.value)


async def test_credentials_of_a_proxy_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Server(HELLO)
    async with listening(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:hunter2@127.0.0.1:{url.port}")
        way = NetworkTransport(tls=False, proxy=proxy_for(httpx2.URL("http://llm.test/v1")))
        async with httpx2.AsyncClient(transport=way) as http:
            response = await http.get("http://llm.test/v1", headers={"authorization": "Bearer x"})
    assert response.content == b"hello"
    head = proxy.requests[0].lower()
    assert head.startswith(b"get http://llm.test/v1 http/1.1\r\n")
    assert b"\r\nproxy-authorization: basic yw5uomh1bnrlcji=\r\n" in head
    assert b"\r\nauthorization: bearer x\r\n" in head
