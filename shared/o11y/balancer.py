"""Which replica of a service gets the next request.

A name that resolves to several addresses is a service with several replicas. Requests go to the one
with the fewest in flight, in turn among equals. Addresses are looked up again all the time, so that
new replicas get their share and gone ones get nothing; each is asked `/livez` in the background, so
that one that hangs — it still accepts connections — gets nothing either.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from o11y.wire import authority

WATCH_SECONDS = 0.5
"""Pause between two looks at the addresses and the replicas behind them."""

RESOLVE_SECONDS = 2.0
PROBE_SECONDS = 1.5
FAILED_PROBES = 2
"""So many unanswered probes in a row take a replica out: within 4 s of its last sign of life."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host name. Raises OSError when there are none."""


@dataclass(eq=False)
class Replica:
    """One address of a service, and how it is doing."""

    host: str
    port: int
    in_flight: int = 0
    last_turn: int = 0
    failed_probes: int = 0
    urls: dict[str, URL] = field(default_factory=dict)
    """Where its paths are, kept by whoever asks: to make a URL takes longer than to find it."""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def healthy(self) -> bool:
        return self.failed_probes < FAILED_PROBES

    def failed(self) -> None:
        """It could not be connected to: nothing more until a probe succeeds."""
        self.failed_probes = FAILED_PROBES


async def resolve(host: str, port: int) -> list[str]:
    """IPv4 addresses of a name, or IPv6 ones where it has no other."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [row for row in found if row[0] == socket.AF_INET] or found
    return list(dict.fromkeys(str(row[4][0]) for row in first))


async def as_is(host: str, port: int) -> list[str]:
    """For a transport that takes names: the name itself is the only address."""
    del port
    return [host]


class Balancer:
    """The replicas behind one base URL."""

    def __init__(self, base_url: str, resolve: Resolve = resolve) -> None:
        url = urlsplit(base_url)
        self.scheme = url.scheme
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self._authority = authority(URL(base_url))
        self.replicas: list[Replica] = []
        self._resolve = resolve
        self._turn = 0
        self._first_look = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    async def acquire(self, avoid: Collection[Replica] = ()) -> Replica:
        """The replica for one request, counted as busy until it is released.

        Those in `avoid`, and those that don't answer probes, are taken only when there is no other.
        Raises OSError when the name has no address.
        """
        replica = self._choose(avoid, await self.all())
        replica.in_flight += 1
        return replica

    def release(self, replica: Replica) -> None:
        replica.in_flight -= 1

    async def all(self) -> list[Replica]:
        """Every replica there is. Raises OSError when the name has no address."""
        if self._unwatched():
            async with self._first_look:
                if self._unwatched():
                    await self._look_up()
                    if self._resolve is not as_is and not _is_address(self.host):
                        self._watcher = asyncio.create_task(
                            self._watch(), name=f"watch {self.host}"
                        )
        return self.replicas

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    def _unwatched(self) -> bool:
        return not self.replicas or (self._watcher is not None and self._watcher.done())

    def _choose(self, avoid: Collection[Replica], known: list[Replica]) -> Replica:
        better = [replica for replica in known if replica.healthy and replica not in avoid]
        untried = [replica for replica in known if replica not in avoid]
        chosen = min(better or untried or known, key=lambda one: (one.in_flight, one.last_turn))
        self._turn += 1
        chosen.last_turn = self._turn
        return chosen

    async def _look_up(self) -> None:
        async with asyncio.timeout(RESOLVE_SECONDS):
            hosts = await self._resolve(self.host, self.port)
        known = {replica.host: replica for replica in self.replicas}
        self.replicas = [known.get(host) or Replica(host, self.port) for host in hosts]

    async def _watch(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        headers = {"host": self._authority}
        # what a request trusts; aiohttp's own trust is as old as the process
        trust = ssl.create_default_context() if self.scheme == "https" else True
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers
        ) as http:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                with contextlib.suppress(OSError):  # the last known addresses stay in use
                    await self._look_up()
                if len(self.replicas) > 1:
                    await asyncio.gather(*(self._probe(http, one) for one in self.replicas))

    async def _probe(self, http: aiohttp.ClientSession, replica: Replica) -> None:
        """Ask as a request does: the service's name is on the certificate, and the host asked."""
        try:
            url = f"{self.scheme}://{replica.address}/livez"
            async with http.get(url, server_hostname=self.host) as answer:
                replica.failed_probes = 0 if answer.status < 500 else replica.failed_probes + 1
        except (aiohttp.ClientError, TimeoutError):
            replica.failed_probes += 1


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
