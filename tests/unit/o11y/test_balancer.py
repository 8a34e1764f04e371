"""Which replica of a service gets the next request, and which gets none."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from httpx2 import Response

from o11y.balancer import Balancer, BalancingTransport, Replica, resolve

PATIENCE_SECONDS = 5
NAME = "things"


class Names:
    """A name service whose one name has the addresses of the moment."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self._asked = asyncio.Event()

    async def __call__(self, host: str, port: int) -> list[str]:
        self._asked.set()
        await asyncio.sleep(0)  # as a real one, which others run beside
        if not self.addresses:
            raise socket.gaierror("no such name")
        return list(self.addresses)

    async def noticed(self) -> None:
        """Return when addresses given before have been taken up."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(2):  # when it is asked again, the answer before has been dealt with
                self._asked.clear()
                await self._asked.wait()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("o11y.balancer.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("o11y.balancer.PROBE_SECONDS", 0.05)


@asynccontextmanager
async def balancing(names: Names, port: int = 8000) -> AsyncIterator[Balancer]:
    balancer = Balancer(f"http://{NAME}:{port}", names)
    yield balancer
    await balancer.close()


async def turns(balancer: Balancer, count: int, avoid: list[Replica] | None = None) -> list[str]:
    """The hosts of so many requests, each over before the next."""
    hosts = []
    for _ in range(count):
        async with balancer.lease(avoid or []) as replica:
            hosts.append(replica.host)
    return hosts


async def test_replicas_without_work_take_turns() -> None:
    async with balancing(Names("a", "b", "c")) as balancer:
        assert await turns(balancer, 6) == ["a", "b", "c"] * 2


async def test_the_replica_with_the_fewest_requests_gets_the_next() -> None:
    async with balancing(Names("a", "b")) as balancer, AsyncExitStack() as busy:
        first = await busy.enter_async_context(balancer.lease())
        assert await turns(balancer, 3) == ["b"] * 3
        second = await busy.enter_async_context(balancer.lease())
        assert (first.host, second.host) == ("a", "b")
        assert sorted(await turns(balancer, 2)) == ["a", "b"]


async def test_a_request_that_ends_badly_is_over_as_well() -> None:
    async with balancing(Names("a")) as balancer:
        with pytest.raises(ValueError, match="bad"):
            async with balancer.lease():
                raise ValueError("bad")
        assert [replica.in_flight for replica in await balancer.all()] == [0]


async def test_what_was_tried_or_does_not_answer_is_taken_only_without_another() -> None:
    async with balancing(Names("a", "b", "c")) as balancer:
        a, b, c = await balancer.all()
        b.failed()
        assert await turns(balancer, 2, [a]) == ["c", "c"]
        assert await turns(balancer, 2, [a, c]) == ["b", "b"]
        assert set(await turns(balancer, 3, [a, b, c])) == {"a", "b", "c"}


async def test_a_name_without_address_is_an_error() -> None:
    async with balancing(Names()) as balancer:
        with pytest.raises(OSError, match="no such name"):
            await balancer.all()


async def test_new_replicas_are_noticed_and_gone_ones_forgotten() -> None:
    names = Names("a", "b")
    async with balancing(names) as balancer:
        assert set(await turns(balancer, 2)) == {"a", "b"}
        names.addresses = ["b", "c"]
        await names.noticed()
        assert set(await turns(balancer, 4)) == {"b", "c"}


async def test_the_last_known_addresses_outlive_the_name_service() -> None:
    names = Names("a")
    async with balancing(names) as balancer:
        await balancer.all()
        names.addresses = []
        await names.noticed()
        assert await turns(balancer, 1) == ["a"]


def watchers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if "watch" in task.get_name()]


async def test_many_first_requests_start_one_watcher_which_ends_at_the_close() -> None:
    async with balancing(Names("a")) as balancer:
        await asyncio.gather(*(balancer.all() for _ in range(5)))
        assert watchers() == [f"watch {NAME}"]
    assert watchers() == []


async def test_an_address_is_not_watched() -> None:
    balancer = Balancer("http://127.0.0.1:8000")
    assert [replica.address for replica in await balancer.all()] == ["127.0.0.1:8000"]
    assert watchers() == []


@pytest.mark.parametrize(
    ("url", "port"), [("http://things", 80), ("https://things", 443), ("http://things:81/v1", 81)]
)
async def test_the_port_is_that_of_the_url(url: str, port: int) -> None:
    balancer = Balancer(url, Names("10.0.0.1"))
    assert [replica.address for replica in await balancer.all()] == [f"10.0.0.1:{port}"]
    await balancer.close()


def test_an_address_of_version_6_stands_in_brackets() -> None:
    assert Replica("::1", 80).address == "[::1]:80"


async def test_a_host_is_looked_up_once_for_each_address() -> None:
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]


@pytest.fixture
def port() -> int:
    """A port that is free on two addresses of this machine."""
    with socket.socket() as one, socket.socket() as other:
        try:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.2", one.getsockname()[1]))
        except OSError:
            pytest.skip("this machine has one loopback address")
        number: int = one.getsockname()[1]
    return number


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 the watcher tells nobody
            await asyncio.sleep(0.005)


async def test_a_replica_that_hangs_gets_nothing_until_it_answers_again(port: int) -> None:
    answering = asyncio.Event()
    answering.set()

    async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async def moody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering.wait()
        await well(reader, writer)

    async with (
        await asyncio.start_server(well, "127.0.0.1", port),
        await asyncio.start_server(moody, "127.0.0.2", port),
        balancing(Names("127.0.0.1", "127.0.0.2"), port) as balancer,
    ):
        _, changing = await balancer.all()
        answering.clear()
        await until(lambda: not changing.healthy)
        assert await turns(balancer, 3) == ["127.0.0.1"] * 3
        answering.set()
        await until(lambda: changing.healthy)
        assert "127.0.0.2" in await turns(balancer, 2)


class Inner:
    """The network: some hosts refuse, the others say who they are."""

    def __init__(self, *refusing: str) -> None:
        self.refusing = refusing
        self.asked: list[str] = []
        self.last: httpx2.Request | None = None

    def __call__(self, request: httpx2.Request) -> Response:
        self.asked.append(request.url.host)
        self.last = request
        if request.url.host in self.refusing:
            raise httpx2.ConnectError("refused")
        return Response(200, text=request.url.host)


@asynccontextmanager
async def asking(inner: Inner, names: Names) -> AsyncIterator[httpx2.AsyncClient]:
    transport = BalancingTransport(Balancer(f"https://{NAME}", names), httpx2.MockTransport(inner))
    async with httpx2.AsyncClient(transport=transport, base_url=f"https://{NAME}") as client:
        yield client


async def test_a_transport_spreads_requests_and_says_who_answered() -> None:
    async with asking(Inner(), Names("a", "b")) as client:
        answers = [await client.get("/") for _ in range(4)]
    assert [answer.text for answer in answers] == ["a", "b", "a", "b"]
    assert [answer.extensions["replica"] for answer in answers] == ["a", "b", "a", "b"]


async def test_a_transport_asks_another_replica_when_one_refuses() -> None:
    inner = Inner("a")
    async with asking(inner, Names("a", "b")) as client:
        assert [(await client.get("/")).text for _ in range(3)] == ["b"] * 3
    assert inner.asked == ["a", "b", "b", "b"]


async def test_a_transport_gives_up_when_all_refuse_or_there_is_none() -> None:
    inner = Inner("a", "b")
    async with asking(inner, Names("a", "b")) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("/")
    assert inner.asked == ["a", "b"]
    async with asking(inner, Names()) as client:
        with pytest.raises(httpx2.ConnectError, match="no such name"):
            await client.get("/")


async def test_a_replica_is_still_called_by_the_services_name() -> None:
    inner = Inner()
    async with asking(inner, Names("10.0.0.1")) as client:
        await client.get("/")
    assert inner.last
    assert inner.last.url.host == "10.0.0.1"
    assert inner.last.headers["host"] == NAME
    assert inner.last.extensions["sni_hostname"] == NAME
