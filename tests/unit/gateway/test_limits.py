"""Limits of keys and tenants: calls and tokens in a minute, and calls at once."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from accounting.database import connect
from gateway.allowance import Limits
from gateway.keys.store import KeyStore
from gateway.limits import limiter
from gateway.settings import Settings
from gateway.tenants import Tenant, TenantStore
from o11y.telemetry import schema
from o11y.web.events import event
from tests.support.gateway_services import CHAT, EMBED, GENERATE, Gateway, Held
from tests.support.near import Streamed
from tests.support.recorded import attributes
from tests.support.redis import PROGRAM, redis_server

V1 = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "a"}]}


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The store that gateways share; the memory is one gateway's."""
    if request.param == "memory":
        yield "memory://"
    elif PROGRAM is None:
        pytest.skip("needs Debian's redis-server")
    else:
        with redis_server(tmp_path) as (url, _):
            yield url


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred calls share one thread here, which may be a slow one."""
    monkeypatch.setattr(limiter, "STORE_SECONDS", 30.0)


class Keys:
    """The database with keys of the tenant `acme`, and gateways before it."""

    def __init__(self, folder: Path, limits_url: str) -> None:
        self._url = f"sqlite:///{folder}/o11y.db"
        self._limits_url = limits_url

    def key(self, tenant: str = "acme", **limits: int) -> dict[str, str]:
        """The headers of a key with these limits."""
        engine = connect(self._url)
        _, text = KeyStore(engine).create("web", tenant, limits=Limits(**limits))
        engine.dispose()
        return {"authorization": f"Bearer {text}"}

    def tenant(self, **limits: int) -> None:
        """Give the tenant these limits."""
        engine = connect(self._url)
        TenantStore(engine).put(Tenant("acme", Limits(**limits)))
        engine.dispose()

    @asynccontextmanager
    async def gateway(self, **settings: Any) -> AsyncIterator[Gateway]:
        given = {"database_url": self._url, "limits_url": self._limits_url, **settings}
        gateway = Gateway(**given)
        async with gateway.app.router.lifespan_context(gateway.app):
            yield gateway
        await gateway.client.aclose()


@pytest.fixture
def keys(tmp_path: Path, store: str) -> Keys:
    return Keys(tmp_path, store)


async def chat(gateway: Gateway, key: dict[str, str]) -> httpx2.Response:
    return await gateway.post("/chat", {"message": "a"}, key)


async def test_a_key_makes_as_many_calls_in_a_minute_as_it_may(keys: Keys) -> None:
    key, other = keys.key(requests_per_minute=3), keys.key()
    async with keys.gateway() as gateway:
        answers = [await chat(gateway, key) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert (await chat(gateway, other)).status_code == 200
        refused = answers[3]
        assert refused.json()["code"] == "requests_per_minute"
        detail = "the key may have 3 requests in a minute; 3 are used, and the call needs 1"
        assert refused.json()["detail"] == detail
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit-policy"] == '"key-requests";q=3;w=60'
        assert answers[1].headers["ratelimit"].startswith('"key-requests";r=1;t=')
        assert "ratelimit" not in (await chat(gateway, other)).headers
        refusals = gateway.recorded.points(schema.ADMISSION_REFUSED.name)
        assert {each.labels["reason"]: each.value for each in refusals} == {
            "requests_per_minute": 2
        }
        spans = [attributes(each) for each in gateway.recorded.spans()]
        decided = Counter(
            (each[schema.ADMISSION_DECISION], each.get(schema.ADMISSION_REASON))
            for each in spans
            if schema.ADMISSION_DECISION in each
        )
        assert decided == {("allowed", None): 5, ("refused", "requests_per_minute"): 2}


async def test_openais_clients_are_told_in_their_words(keys: Keys) -> None:
    key = keys.key(requests_per_minute=1, tokens_per_minute=1000)
    async with keys.gateway() as gateway:
        good = await gateway.post(V1, BODY, key)
        refused = await gateway.post(V1, BODY, key)
    assert good.status_code == 200
    assert good.headers["x-ratelimit-limit-requests"] == "1"
    assert good.headers["x-ratelimit-remaining-requests"] == "0"
    assert good.headers["x-ratelimit-reset-requests"].endswith("s")
    assert good.headers["x-ratelimit-limit-tokens"] == "1000"
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_providers_limits_are_not_shown_beside_the_keys(keys: Keys) -> None:
    key = keys.key(requests_per_minute=9)
    answer = httpx2.Response(200, json={"choices": []}, headers={"x-ratelimit-limit-requests": "7"})
    async with keys.gateway() as gateway:
        gateway.services.answers[CHAT] = answer
        given = (await gateway.post(V1, BODY, key)).headers.get_list("x-ratelimit-limit-requests")
        assert given == ["9"]


async def test_a_tenants_limit_holds_over_its_keys(keys: Keys) -> None:
    first, second = keys.key(requests_per_minute=2), keys.key()
    keys.tenant(requests_per_minute=3)
    async with keys.gateway() as gateway:
        for _ in range(5):  # what a key has not got it does not take from the tenant either
            await chat(gateway, first)
        assert (await chat(gateway, second)).status_code == 200
        refused = await chat(gateway, second)
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("the tenant may have 3 requests")


async def test_calls_at_once_are_as_many_as_may_be(keys: Keys) -> None:
    key = keys.key(concurrent=2)
    async with keys.gateway() as gateway:
        held = Held()
        gateway.services.answers[CHAT] = held
        running = [asyncio.create_task(chat(gateway, key)) for _ in range(2)]
        await asyncio.wait_for(held.asked.wait(), 10)
        while True:
            refused = await chat(gateway, key)
            if refused.status_code == 429:
                break
        assert refused.json()["code"] == "concurrent"
        assert refused.headers["retry-after"] == "1"
        held.let_go.set()
        assert [each.status_code for each in await asyncio.gather(*running)] == [200, 200]
        del gateway.services.answers[CHAT]
        assert (await chat(gateway, key)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_one_call_after_another_is_never_two_at_once(keys: Keys, stream: bool) -> None:
    key = keys.key(concurrent=1)
    async with keys.gateway() as gateway:
        for _ in range(30):
            if stream:
                gateway.services.answers[CHAT] = llm_stream()
            answer = await gateway.post("/chat", {"message": "a", "stream": stream}, key)
            assert answer.status_code == 200


async def test_200_calls_at_once_take_no_more_than_there_is(keys: Keys) -> None:
    key = keys.key(requests_per_minute=50)
    async with keys.gateway() as gateway:
        answers = await asyncio.gather(*(chat(gateway, key) for _ in range(200)))
    assert Counter(each.status_code for each in answers) == {200: 50, 429: 150}


async def remaining(gateway: Gateway, key: dict[str, str], path: str, body: Any) -> int:
    """The tokens that are left before this call."""
    answer = await gateway.post(path, body, key)
    assert answer.status_code == 200
    given = answer.headers["ratelimit"]
    return int(given.split('"key-tokens";r=')[1].split(";")[0])


def spent(used: int) -> dict[str, Any]:
    return {"prompt_tokens": 1, "completion_tokens": used - 1, "total_tokens": used}


SUMMARY = {
    "model": "m",
    "provider": "p",
    "usage": spent(77),
    "usage_estimated": False,
    "cost_usd": 0.1,
    "finish_reason": "stop",
}
TOLD = [
    {"choices": [{"index": 0, "delta": {"content": 'my "o11y": '}}]},
    {"choices": [], "usage": spent(77), "o11y": SUMMARY},
]
LOCAL = {
    "model": "m",
    "device": "cpu",
    "usage": spent(77),
    "performance": dict.fromkeys(
        (
            *("duration_seconds", "tokens_per_second", "time_to_first_token_seconds"),
            *("queue_seconds", "batch_efficiency"),
        ),
        0.0,
    ),
}


def events(*data: Any) -> bytes:
    return b"".join(event(each) for each in data)


def llm_stream() -> Streamed:
    """The stream of llm-proxy, which sums it up before its end."""
    return Streamed(events(TOLD[0]), events(TOLD[1]), b"data: [DONE]\n\n")


def broken_stream() -> Streamed:
    return Streamed(events(TOLD[0]), events({"error": {"message": "cut"}}, TOLD[1]))


def local_stream() -> Streamed:
    return Streamed(events({"content": "a"}), event(LOCAL, "metadata"))


@pytest.mark.parametrize(
    ("path", "body", "call", "stream"),
    [
        ("/chat", {"message": "a"}, CHAT, None),
        ("/chat", {"message": "a", "stream": True}, CHAT, llm_stream),
        (V1, BODY, CHAT, None),
        (V1, {**BODY, "stream": True}, CHAT, llm_stream),
        (V1, {**BODY, "stream": True}, CHAT, broken_stream),
        ("/v1/embeddings", {"input": "a"}, EMBED, None),
        ("/search", {"query": "a"}, EMBED, None),
        ("/local-inference", {"prompt": "a"}, GENERATE, None),
        ("/local-inference", {"prompt": "a", "stream": True}, GENERATE, local_stream),
    ],
)
async def test_the_tokens_that_a_call_used_count(
    keys: Keys, path: str, body: Any, call: str, stream: Callable[[], Streamed] | None
) -> None:
    key = keys.key(tokens_per_minute=1_000_000)
    estimate = -(-len(json.dumps(body, separators=(",", ":"))) // 4)
    async with keys.gateway() as gateway:
        left = []
        for _ in range(3):
            if stream:
                gateway.services.answers[call] = stream()
            left.append(await remaining(gateway, key, path, body))
    assert left[0] == 1_000_000 - estimate
    used = left[0] - left[1]
    assert used == left[1] - left[2]
    assert used == 77 if stream else used not in (0, estimate)


async def test_the_stream_of_a_limited_key_is_that_of_any(keys: Keys) -> None:
    limited = keys.key(tokens_per_minute=1_000_000)
    async with keys.gateway() as gateway:
        for stream in (llm_stream, broken_stream):
            gateway.services.answers[CHAT] = stream()
            given = (await gateway.post(V1, {**BODY, "stream": True}, limited)).content
            assert given.startswith(events(TOLD[0]))
            assert b'"total_tokens"' not in given
    assert given.endswith(events({"error": {"message": "cut"}}))


async def test_a_call_that_needs_more_tokens_than_there_are_is_refused(keys: Keys) -> None:
    key = keys.key(tokens_per_minute=20)
    async with keys.gateway() as gateway:
        refused = await gateway.post("/chat", {"message": "long " * 100}, key)
        assert refused.status_code == 429
        assert refused.json()["code"] == "tokens_per_minute"
        # and has taken none
        assert (await gateway.post("/chat", {"message": "a"}, key)).status_code == 200


async def test_limits_that_change_hold_soon(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.keys.directory.REFRESH_SECONDS", 0.05)
    key = keys.key()
    async with keys.gateway() as gateway:
        assert "ratelimit" not in (await chat(gateway, key)).headers
        keys.tenant(requests_per_minute=100)
        async with asyncio.timeout(10):
            while "ratelimit" not in (await chat(gateway, key)).headers:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


# A shared store


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[str]:
    if PROGRAM is None:
        pytest.skip("needs Debian's redis-server")
    with redis_server(tmp_path) as (url, _):
        yield url


async def test_gateways_share_a_limit(tmp_path: Path, shared: str) -> None:
    keys = Keys(tmp_path, shared.replace("redis://", "valkey://"))
    key = keys.key(requests_per_minute=10)
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(keys.gateway()) for _ in range(3)]
        calls = (chat(gateways[number % 3], key) for number in range(60))
        answers = await asyncio.gather(*calls)
    assert Counter(each.status_code for each in answers) == {200: 10, 429: 50}


async def test_the_calls_of_a_gateway_that_has_ended_count_no_more(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.shared.LEASE_SECONDS", 1.0)
    keys = Keys(tmp_path, shared)
    key = keys.key(concurrent=1)
    async with keys.gateway() as gone, keys.gateway() as gateway:
        held = Held()
        gone.services.answers[CHAT] = held
        running = asyncio.create_task(chat(gone, key))
        await asyncio.wait_for(held.asked.wait(), 10)
        assert (await chat(gateway, key)).status_code == 429
        async with asyncio.timeout(20):
            while (await chat(gateway, key)).status_code == 429:  # noqa: ASYNC110 - its lease ends
                await asyncio.sleep(0.1)
        held.let_go.set()
        await running


@pytest.mark.parametrize(("failure", "status"), [("pass", 200), ("refuse", 503)])
async def test_while_the_store_is_away_calls_pass_or_are_refused_as_it_is_set(
    tmp_path: Path,
    failure: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if PROGRAM is None:
        pytest.skip("needs Debian's redis-server")
    monkeypatch.setattr(limiter, "AWAY_SECONDS", 0.05)
    with redis_server(tmp_path) as (url, _):
        keys = Keys(tmp_path, url)
        key, free = keys.key(requests_per_minute=2), keys.key()
        port = int(url.rsplit(":", 1)[1])
    async with keys.gateway(limits_failure=failure) as gateway:
        answers = [await chat(gateway, key) for _ in range(5)]
        assert {each.status_code for each in answers} == {status}
        assert (await chat(gateway, free)).status_code == 200
        [up] = gateway.recorded.points(schema.RATE_LIMIT_STORE_UP.name)
        assert up.value == 0
        with redis_server(tmp_path, port):
            async with asyncio.timeout(20):
                while "ratelimit" not in (await chat(gateway, key)).headers:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            [up] = gateway.recorded.points(schema.RATE_LIMIT_STORE_UP.name)
            assert up.value == 1
    said = [each for each in caplog.messages if "store of the limits" in each]
    assert [each.split(" be used")[1][:6] for each in said] == [": Time", " again"] or len(
        said
    ) == 2


@pytest.mark.parametrize("url", ["", "redis://", "memcached://x", "memory", "http://x"])
def test_a_store_that_is_none_stops_the_gateway(url: str) -> None:
    with pytest.raises(ValidationError, match=r"limits_url|should be memory"):
        Settings(limits_url=url)
