"""The balancing of requests over the replicas of a service.

A name that resolves to several addresses is a service with several replicas. Requests go to the one
with the fewest in flight, in turn among equals. Addresses are looked up again all the time, so that
new replicas get their share and gone ones get nothing; each is asked `/livez` in the background, so
that one that hangs — it still accepts connections — gets nothing either.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import httpx2

from o11y.http.transport import NetworkTransport, no_cookies, nothing_was_sent, port_of

WATCH_SECONDS = 0.5
"""Pause between two looks at the addresses and the replicas behind them."""

RESOLVE_SECONDS = 2.0
PROBE_SECONDS = 1.5
FAILED_PROBES = 2
"""Unanswered probes in a row that take a replica out: within 4 s of its last sign of life."""

MAX_URLS = 1000
"""Most URLs of a replica that are kept ready."""

IDEMPOTENT = "o11y.idempotent"
"""Extension of a request: True if it is idempotent, so that it may be sent twice."""

REPLICA = "o11y.replica"
"""Extension of a request and of its response: the replica it goes to."""

RESEND_COUNT = "o11y.resend_count"
"""Extension of a request and of an attempt: how often it has been sent before."""

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
    _urls: dict[httpx2.URL, httpx2.URL] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def healthy(self) -> bool:
        return self.failed_probes < FAILED_PROBES

    def url(self, named: httpx2.URL) -> httpx2.URL:
        """The URL of this replica for one of the service."""
        found = self._urls.get(named)
        if found is None:
            if len(self._urls) >= MAX_URLS:
                self._urls.clear()
            found = self._urls[named] = named.copy_with(host=self.host, userinfo=b"")
        return found

    def failed(self) -> None:
        """Leave the replica out until a probe succeeds: it could not be connected to."""
        self.failed_probes = FAILED_PROBES


async def resolve(host: str, port: int) -> list[str]:
    """IPv4 addresses of a name, or IPv6 ones where it has no other."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [row for row in found if row[0] == socket.AF_INET] or found
    return list(dict.fromkeys(str(row[4][0]) for row in first))


async def as_is(host: str, port: int) -> list[str]:
    """The name itself as the only address, for a transport that takes names."""
    del port
    return [host]


class Balancer:
    """The replicas behind one base URL."""

    def __init__(self, base_url: str, resolve: Resolve = resolve) -> None:
        self._base = httpx2.URL(base_url)
        self.host = self._base.host
        self.port = port_of(self._base)
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
        async with httpx2.AsyncClient(
            # connections of its own: where requests use up theirs, a probe must not wait for one
            transport=NetworkTransport(tls=self._base.scheme == "https"),
            headers={"host": self._base.netloc.decode("ascii")},
            cookies=no_cookies(),
            timeout=None,
        ) as http:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                with contextlib.suppress(OSError):  # the last known addresses stay in use
                    await self._look_up()
                if len(self.replicas) > 1:
                    await asyncio.gather(*(self._probe(http, one) for one in self.replicas))

    async def _probe(self, http: httpx2.AsyncClient, replica: Replica) -> None:
        """Ask a replica whether it lives. As for a request, the `Host` header and the name that its
        certificate must have are the service's, and not the replica's address.
        """
        url = replica.url(self._base.copy_with(raw_path=b"/livez"))
        request = http.build_request("GET", url, extensions={"sni_hostname": self.host})
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                response = await http.send(request)
            alive = response.status_code < 500
        except (httpx2.HTTPError, TimeoutError):
            alive = False
        replica.failed_probes = 0 if alive else replica.failed_probes + 1


class BalancingTransport(httpx2.AsyncBaseTransport):
    """Sends each request to the replica whose turn it is; its `Host` header stays the service's.

    A request that could not be sent goes to another replica: to each one once, or to `attempts` in
    all where that is given. So does a request that broke on its way, if its extension `IDEMPOTENT`
    allows it. The extension `REPLICA` picks a replica. Each attempt is one request of `inner`; its
    extension `RESEND_COUNT` is the number of attempts before it. The response's `REPLICA` is the
    one that answered, and stays occupied until the response is closed.
    """

    def __init__(
        self, balancer: Balancer, inner: httpx2.AsyncBaseTransport, attempts: int | None = None
    ) -> None:
        self.balancer = balancer
        self._inner = inner
        self._attempts = attempts

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response of the first attempt that has one. Raises what the last one raised."""
        options = request.extensions
        tried: list[Replica] = []
        while True:
            replica = await self._acquire(options.get(REPLICA), tried)
            attempt = self._attempt(request, replica, len(tried))
            tried.append(replica)
            try:
                response = await self._inner.handle_async_request(attempt)
            except BaseException as error:
                self.balancer.release(replica)
                if nothing_was_sent(error):
                    replica.failed()
                if not self._try_again(error, options, len(tried)):
                    raise
                continue
            if response.is_closed:
                self.balancer.release(replica)
                return response
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Occupying(response.stream, self.balancer, replica)
            response.extensions = {**response.extensions, REPLICA: replica}
            return response

    async def aclose(self) -> None:
        await self.balancer.close()
        await self._inner.aclose()

    def _attempt(self, request: httpx2.Request, replica: Replica, number: int) -> httpx2.Request:
        """The request on its way to one replica, its `Host` the service."""
        return httpx2.Request(
            request.method,
            replica.url(request.url),
            headers=request.headers,
            content=request.content,
            extensions={
                **request.extensions,
                REPLICA: replica,
                RESEND_COUNT: request.extensions.get(RESEND_COUNT, 0) + number,
                "sni_hostname": self.balancer.host,
            },
        )

    async def _acquire(self, chosen: Replica | None, tried: list[Replica]) -> Replica:
        if chosen is not None:
            chosen.in_flight += 1
            return chosen
        try:
            return await self.balancer.acquire(tried)
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error

    def _try_again(
        self, error: BaseException, options: Mapping[str, object], attempts: int
    ) -> bool:
        most = self._attempts or len(self.balancer.replicas)
        if REPLICA in options or attempts >= most:
            return False
        if nothing_was_sent(error):
            return True
        return bool(options.get(IDEMPOTENT)) and isinstance(error, httpx2.NetworkError)


class _Occupying(httpx2.AsyncByteStream):
    """The body of a response that occupies its replica until it is closed."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, balancer: Balancer, replica: Replica
    ) -> None:
        self._stream = stream
        self._balancer = balancer
        self._replica: Replica | None = replica

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        if (replica := self._replica) is not None:
            self._replica = None
            self._balancer.release(replica)
        await self._stream.aclose()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
