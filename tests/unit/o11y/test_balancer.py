"""Which replica of a service gets the next request, and which gets none."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from o11y.http.balancer import Balancer, Replica, resolve
from tests.support.peers import CLOSING, make_certificate, serving_tls
from tests.support.waiting import eventually

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
    monkeypatch.setattr("o11y.http.balancer.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("o11y.http.balancer.PROBE_SECONDS", 0.05)


@asynccontextmanager
async def balancing(
    names: Names, port: int = 8000, scheme: str = "http"
) -> AsyncIterator[Balancer]:
    balancer = Balancer(f"{scheme}://{NAME}:{port}", names)
    yield balancer
    await balancer.close()


async def turns(balancer: Balancer, count: int, avoid: list[Replica] | None = None) -> list[str]:
    """The hosts of so many requests, each over before the next."""
    hosts = []
    for _ in range(count):
        replica = await balancer.acquire(avoid or [])
        hosts.append(replica.host)
        balancer.release(replica)
    return hosts


async def test_replicas_without_work_take_turns() -> None:
    async with balancing(Names("a", "b", "c")) as balancer:
        assert await turns(balancer, 6) == ["a", "b", "c"] * 2


async def test_the_replica_with_the_fewest_requests_gets_the_next() -> None:
    async with balancing(Names("a", "b")) as balancer:
        first = await balancer.acquire()
        assert await turns(balancer, 3) == ["b"] * 3
        second = await balancer.acquire()
        assert (first.host, second.host) == ("a", "b")
        assert sorted(await turns(balancer, 2)) == ["a", "b"]
        balancer.release(first)
        assert await turns(balancer, 3) == ["a"] * 3


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
        await eventually(lambda: not changing.healthy)
        assert await turns(balancer, 3) == ["127.0.0.1"] * 3
        answering.set()
        await eventually(lambda: changing.healthy)
        assert "127.0.0.2" in await turns(balancer, 2)


class Probed:
    """A replica that answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(CLOSING)
        await writer.drain()
        writer.close()


def certificates(folder: Path, stranger: str) -> tuple[Path, Path, Path]:
    """Those of NAME and of a stranger, and whom to trust: not a stranger with the same name."""
    ours, theirs, trusted = (folder / name for name in ("ours.pem", "theirs.pem", "trusted.pem"))
    make_certificate(ours, NAME)
    make_certificate(theirs, stranger)
    vouched = [ours] if stranger == NAME else [ours, theirs]
    trusted.write_text("".join(Path(f"{file}.crt").read_text() for file in vouched))
    return ours, theirs, trusted


@pytest.mark.parametrize("stranger", [NAME, "other"], ids=["nobody vouches", "another name"])
async def test_a_replica_that_cannot_prove_its_name_is_not_alive(
    stranger: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("o11y.http.balancer.PROBE_SECONDS", 1)
    ours, theirs, trusted = certificates(tmp_path, stranger)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    known, unknown = Probed(), Probed()
    async with (
        await asyncio.start_server(known, "127.0.0.1", port, ssl=serving_tls(ours)),
        await asyncio.start_server(unknown, "127.0.0.2", port, ssl=serving_tls(theirs)),
        balancing(Names("127.0.0.1", "127.0.0.2"), port, "https") as balancer,
    ):
        good, bad = await balancer.all()
        good.failed()
        await eventually(lambda: good.healthy and not bad.healthy)
        assert await turns(balancer, 3) == ["127.0.0.1"] * 3
    assert known.heads[0].startswith(b"GET /livez HTTP/1.1\r\n")
    assert f"\r\nhost: {NAME}:{port}\r\n".encode() in known.heads[0].lower()
    assert unknown.heads == []
