"""The limiter: lets a call in when all limits of its key and tenant have room for it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError
from opentelemetry.metrics import Observation
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from accounting.records import Owner
from gateway.allowance import Limits
from gateway.limits.counters import Count, Counters, Quota
from gateway.limits.leases import RENEW_SECONDS, Leases, MemoryLeases, RedisLeases
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem, unavailable

logger = logging.getLogger(__name__)

STORE_SECONDS = 1.0
"""Longest wait for the store."""

CONNECTIONS = 16
"""Connections to the store, for which calls wait in their order."""

AWAY_SECONDS = 5.0
"""Time for which a store that failed is left alone."""

_FAILURES = (StorageError, RedisError, OSError, TimeoutError)

Failure = Literal["pass", "refuse"]


class Limited(NamedTuple):
    """A key or tenant with its limits."""

    owner: Owner
    limits: Limits


class Permit:
    """The holdings of a call while it runs: counts of its quotas, and leases."""

    def __init__(self, limiter: "Limiter") -> None:
        self._limiter = limiter
        self.counts: list[Count] = []
        self.taken: dict[Quota, int] = {}
        self.leases: list[tuple[Owner, str]] = []

    @property
    def counts_tokens(self) -> bool:
        return any(count.quota.kind == "tokens" for count in self.counts)

    async def end(self, tokens: int | None) -> None:
        """End the call, which has used so many tokens; None where nobody knows how many."""
        await self._limiter.end(self, tokens)


class RateLimited(Problem):
    """429: a limit has no room for the call."""

    def __init__(self, permit: Permit, detail: str, code: str, seconds: int) -> None:
        retry = {"Retry-After": str(seconds), **headers(permit)}
        super().__init__(429, detail, code=code, headers=retry)
        self._openai = {**self.headers, **openai_headers(permit)}

    def as_openai(self) -> Problem:
        """The refusal as OpenAI's clients know it."""
        return Problem(429, self.detail, code="rate_limit_exceeded", headers=self._openai)


class Limiter:
    """Counts calls and tokens by the minute, and calls at once.

    `url` names the store: `memory://` for this process alone, `redis://` or `valkey://` for one
    that gateways share. `failure` says whether calls pass or are refused while it is away.
    """

    def __init__(self, url: str, failure: Failure, telemetry: Telemetry) -> None:
        self._failure = failure
        self._client: Redis | None = None
        self._leases: Leases
        if url.startswith("memory:"):
            self._counters, self._leases = Counters(MemoryStorage()), MemoryLeases()
        else:
            scheme, _, rest = url.partition("://")
            address = f"{scheme.replace('valkey', 'redis')}://{rest}"
            pool = BlockingConnectionPool.from_url(
                address,
                max_connections=CONNECTIONS,
                timeout=STORE_SECONDS,
                socket_timeout=STORE_SECONDS,
                socket_connect_timeout=STORE_SECONDS,
            )
            storage = RedisStorage(
                f"async+{address}",
                wrap_exceptions=True,
                implementation="redispy",
                connection_pool=pool,  # type: ignore[arg-type] # what it takes for redis-py
            )
            self._client = Redis(connection_pool=pool)
            self._counters, self._leases = Counters(storage), RedisLeases(self._client)
        self._away_until = 0.0
        self._is_up = True
        telemetry.observable_gauge(schema.RATE_LIMIT_STORE_UP, self._observe)

    async def admit(self, limited: Sequence[Limited], tokens: int) -> Permit:
        """Let a call in that needs so many tokens at least.

        Raises Problem 429, and then nothing was taken; 503 where the store is away and calls are to
        be refused.
        """
        permit = Permit(self)
        if time.monotonic() < self._away_until:
            return self._unchecked(permit)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                for each in limited:  # a key's before its tenant's, which others use as well
                    await self._take(permit, each, tokens)
        except Problem:
            await self._give_back(permit)
            raise
        except _FAILURES as error:
            self._fails(error)
            return self._unchecked(permit)
        self._mended()
        return permit

    async def end(self, permit: Permit, tokens: int | None) -> None:
        """Free what a permit holds, and count the tokens that its call has really used."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                for owner, lease in permit.leases:
                    await self._leases.release(owner, lease)
                for count in permit.counts if tokens is not None else ():
                    if count.quota.kind == "tokens" and tokens is not None:
                        await self._counters.correct(count, tokens - permit.taken[count.quota])
        except _FAILURES as error:
            self._fails(error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the leases of calls that run, until the block ends."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
            if self._client:
                await self._client.aclose()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._leases.renew()
            except _FAILURES as error:
                self._fails(error)

    async def _take(self, permit: Permit, limited: Limited, tokens: int) -> None:
        owner, limits = limited
        if limits.concurrent is not None:
            lease = await self._leases.acquire(owner, limits.concurrent)
            if lease is None:
                detail = f"the {owner[0]} may have {limits.concurrent} calls at once"
                raise RateLimited(permit, detail, "concurrent", 1)
            permit.leases.append((owner, lease))
        quotas = []
        if limits.requests_per_minute is not None:
            quotas.append((Quota(owner, "requests", limits.requests_per_minute), 1))
        if limits.tokens_per_minute is not None:
            quotas.append((Quota(owner, "tokens", limits.tokens_per_minute), tokens))
        for quota, amount in quotas:
            count = await self._counters.take(quota, amount)
            permit.counts.append(count)
            permit.taken[quota] = amount
            if count.used > quota.limit:
                used = count.used - amount
                detail = (
                    f"the {owner[0]} may have {quota.limit} {quota.kind} in a minute; {used} are "
                    f"used, and the call needs {amount}"
                )
                raise RateLimited(permit, detail, f"{quota.kind}_per_minute", count.seconds)

    async def _give_back(self, permit: Permit) -> None:
        """Take back what was taken for a call that is refused."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                for owner, lease in permit.leases:
                    await self._leases.release(owner, lease)
                for count in permit.counts:
                    await self._counters.correct(count, -permit.taken[count.quota])
        except _FAILURES as error:
            self._fails(error)

    def _unchecked(self, permit: Permit) -> Permit:
        if self._failure == "refuse":
            raise unavailable("limits can't be checked: their store is away")
        return permit

    def _fails(self, error: BaseException) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        if self._is_up:
            self._is_up = False
            logger.warning("the store of the limits can't be used: %s", type(error).__name__)

    def _mended(self) -> None:
        if not self._is_up:
            self._is_up = True
            logger.warning("the store of the limits can be used again")

    def _observe(self) -> Iterable[Observation]:
        return [Observation(1 if self._is_up else 0)]


def headers(permit: Permit) -> dict[str, str]:
    """The headers that tell a caller of its limits (draft-ietf-httpapi-ratelimit-headers-10)."""
    if not permit.counts:
        return {}
    policies = (f'"{each.quota.name}";q={each.quota.limit};w=60' for each in permit.counts)
    left = (f'"{each.quota.name}";r={each.remaining};t={each.seconds}' for each in permit.counts)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


def openai_headers(permit: Permit) -> dict[str, str]:
    """The headers that OpenAI has for it: of each kind the limit that has least left."""
    found: dict[str, str] = {}
    for kind in ("requests", "tokens"):
        counts = [each for each in permit.counts if each.quota.kind == kind]
        if counts:
            least = min(counts, key=lambda each: each.remaining)
            found[f"x-ratelimit-limit-{kind}"] = str(least.quota.limit)
            found[f"x-ratelimit-remaining-{kind}"] = str(least.remaining)
            found[f"x-ratelimit-reset-{kind}"] = f"{least.seconds}s"
    return found
