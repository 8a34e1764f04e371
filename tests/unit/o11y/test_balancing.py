"""Requests over several replicas: which one gets them, which failures go to another."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from o11y.http.balancer import (
    IDEMPOTENT,
    REPLICA,
    RESEND_COUNT,
    Balancer,
    BalancingTransport,
    Replica,
)
from o11y.http.transport import NetworkTransport
from tests.support.near import NearTransport, Streamed
from tests.support.peers import (
    HELLO,
    Server,
    listening,
    make_certificate,
    read_request,
    reset,
    serving_tls,
)

NAME = "things"


class Things:
    """A client of a service whose replicas have these addresses."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        *hosts: str,
        url: str = f"http://{NAME}:8000",
        attempts: int | None = None,
    ) -> None:
        async def names(host: str, port: int) -> list[str]:
            if not hosts:
                raise socket.gaierror("no such name")
            return list(hosts)

        self.balancer = Balancer(url, names)
        transport = BalancingTransport(self.balancer, inner, attempts)
        self.http = httpx2.AsyncClient(transport=transport, base_url=url)

    async def send(self, extensions: dict[str, object] | None = None) -> httpx2.Response:
        request = self.http.build_request("POST", "/v1?a=b", extensions=extensions)
        return await self.http.send(request, stream=True)

    @property
    def busy(self) -> dict[str, int]:
        return {replica.host: replica.in_flight for replica in self.balancer.replicas}


class Replicas:
    """Replicas on a transport of this process; those that are named fail so."""

    def __init__(self, **failures: Exception) -> None:
        self.failures = failures
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response | Streamed:
        self.requests.append(request)
        if failure := self.failures.get(request.url.host):
            raise failure
        return Streamed(request.url.host.encode(), asyncio.Event())

    @property
    def hosts(self) -> list[str]:
        return [request.url.host for request in self.requests]


@asynccontextmanager
async def things(
    replicas: Replicas, *hosts: str, attempts: int | None = None
) -> AsyncIterator[Things]:
    made = Things(NearTransport(replicas), *hosts, attempts=attempts)
    async with made.http:
        yield made


REFUSED = httpx2.ConnectError("refused")
BROKEN = httpx2.ReadError("reset")


async def test_a_replica_is_occupied_until_its_response_is_closed() -> None:
    replicas = Replicas()
    async with things(replicas, "a", "b") as client:
        first = await client.send()
        assert client.busy == {"a": 1, "b": 0}
        await (await client.send()).aclose()
        await (await client.send()).aclose()
        await first.aclose()
        await first.aclose()
        assert client.busy == {"a": 0, "b": 0}
    assert replicas.hosts == ["a", "b", "b"]
    assert first.extensions[REPLICA].host == "a"


async def test_a_replica_is_asked_as_the_service() -> None:
    replicas = Replicas()
    async with things(replicas, "10.0.0.1") as client:
        await client.send()
    [request] = replicas.requests
    assert str(request.url) == "http://10.0.0.1:8000/v1?a=b"
    assert request.headers["host"] == f"{NAME}:8000"
    assert request.extensions["sni_hostname"] == NAME


@pytest.mark.parametrize(
    ("error", "idempotent", "asked"),
    [
        (REFUSED, False, ["a", "b"]),
        (httpx2.ConnectTimeout("slow"), False, ["a", "b"]),
        (BROKEN, False, ["a"]),
        (BROKEN, True, ["a", "b"]),
        (httpx2.ReadTimeout("slow"), True, ["a"]),
        (httpx2.RemoteProtocolError("no HTTP"), True, ["a"]),
    ],
    ids=repr,
)
async def test_another_replica_gets_what_was_not_sent_or_may_be_done_twice(
    error: Exception, idempotent: bool, asked: list[str]
) -> None:
    replicas = Replicas(a=error)
    async with things(replicas, "a", "b") as client:
        if len(asked) == 1:
            with pytest.raises(type(error)):
                await client.send({IDEMPOTENT: idempotent})
        else:
            response = await client.send({IDEMPOTENT: idempotent})
            assert response.extensions[REPLICA].host == "b"
            await response.aclose()
        assert client.busy == {"a": 0, "b": 0}
    assert replicas.hosts == asked
    assert [each.extensions[RESEND_COUNT] for each in replicas.requests] == [*range(len(asked))]


@pytest.mark.parametrize(("attempts", "asked"), [(None, ["a", "b"]), (3, ["a", "b", "a"])])
async def test_after_so_many_attempts_it_is_given_up(
    attempts: int | None, asked: list[str]
) -> None:
    replicas = Replicas(a=REFUSED, b=REFUSED)
    async with things(replicas, "a", "b", attempts=attempts) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.send()
        assert client.busy == {"a": 0, "b": 0}
    assert replicas.hosts == asked


async def test_a_replica_that_refused_is_not_asked_while_there_is_another() -> None:
    replicas = Replicas(a=REFUSED)
    async with things(replicas, "a", "b") as client:
        for _ in range(3):
            await (await client.send()).aclose()
    assert replicas.hosts == ["a", "b", "b", "b"]


async def test_a_name_without_address_is_nothing_sent() -> None:
    replicas = Replicas()
    async with things(replicas) as client:
        with pytest.raises(httpx2.ConnectError, match="no such name"):
            await client.send()
    assert replicas.requests == []


async def test_who_chooses_a_replica_gets_that_or_none() -> None:
    replicas = Replicas(b=REFUSED)
    async with things(replicas, "a", "b", attempts=3) as client:
        _, chosen = await client.balancer.all()
        with pytest.raises(httpx2.ConnectError):
            await client.send({REPLICA: chosen})
    assert replicas.hosts == ["b"]


async def test_who_leaves_frees_the_replica() -> None:
    reached = asyncio.Event()

    async def hang(request: httpx2.Request) -> httpx2.Response:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = Things(NearTransport(hang), "a")
    async with client.http:
        task = asyncio.create_task(client.send())
        await reached.wait()
        assert client.busy == {"a": 1}
        task.cancel()
        await asyncio.wait([task])
        assert client.busy == {"a": 0}


def test_an_address_of_a_replica_replaces_the_name() -> None:
    named = httpx2.URL("https://user:hunter2@things:8443/v1?a=b")
    assert str(Replica("::1", 8443).url(named)) == "https://[::1]:8443/v1?a=b"


# On the network


def two_addresses() -> int:
    """A port that is free on two addresses of this machine."""
    with socket.socket() as one, socket.socket() as other:
        try:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.2", one.getsockname()[1]))
        except OSError:
            pytest.skip("this machine has one loopback address")
        port: int = one.getsockname()[1]
        return port


async def test_a_replica_that_is_gone_costs_no_request() -> None:
    server = Server(HELLO, HELLO)
    async with listening(server) as there:
        url = f"http://{NAME}:{there.port}"
        client = Things(NetworkTransport(tls=False), "127.0.0.2", "127.0.0.1", url=url)
        async with client.http:
            response = await client.send()
            assert await response.aread() == b"hello"
            assert client.busy == {"127.0.0.2": 0, "127.0.0.1": 0}
    assert f"host: {NAME}:{there.port}\r\n".encode() in server.requests[0].lower()


async def test_a_request_that_was_sent_is_not_sent_again() -> None:
    async def cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reset(writer)

    server = Server(HELLO)
    async with listening(cutting) as there:
        url = f"http://{NAME}:{there.port}"
        client = Things(NetworkTransport(tls=False), "127.0.0.1", "127.0.0.2", url=url)
        async with client.http:
            with pytest.raises(httpx2.ReadError):
                await client.send()
    assert server.requests == []


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Those of NAME and of another name, both of them trusted."""
    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    make_certificate(ours, NAME)
    make_certificate(theirs, "other")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text("".join(Path(f"{each}.crt").read_text() for each in (ours, theirs)))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    return ours, theirs


async def test_each_replica_proves_the_name_of_the_service(
    certificates: tuple[Path, Path],
) -> None:
    ours, theirs = certificates
    port = two_addresses()
    good, bad = Server(HELLO), Server(HELLO)
    async with (
        await asyncio.start_server(bad, "127.0.0.1", port, ssl=serving_tls(theirs)),
        await asyncio.start_server(good, "127.0.0.2", port, ssl=serving_tls(ours)),
    ):
        url = f"https://{NAME}:{port}"
        client = Things(NetworkTransport(tls=True), "127.0.0.1", "127.0.0.2", url=url)
        async with client.http, asyncio.timeout(5):
            response = await client.send()
            assert await response.aread() == b"hello"
    assert (len(good.requests), bad.requests) == (1, [])
