"""The limiter: lets a call in when all limits of its key and tenant have room for it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Literal

from opentelemetry.metrics import Observation
from redis.exceptions import RedisError

from gateway.limits.shared import SharedStore
from gateway.limits.store import Count, Kind, Limited, MemoryStore, Refusal, Store
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

RENEW_SECONDS = 15.0

_FAILURES = (RedisError, OSError, TimeoutError)

Failure = Literal["pass", "refuse"]


class Permit:
    """The holdings of a call while it runs: its counts, and a lease."""

    def __init__(self, limiter: "Limiter", limited: Sequence[Limited], tokens: int) -> None:
        self._limiter = limiter
        self.limited = limited
        self.lease = token_hex(8)
        self.tokens = tokens
        """Tokens that it was counted with."""
        self.counts: Sequence[Count] = ()
        self.is_held = False

    @property
    def counts_tokens(self) -> bool:
        return any(count.kind == "tokens" for count in self.counts)

    @property
    def is_leased(self) -> bool:
        """True where it counts how many calls run at once."""
        return any(each.limits.concurrent is not None for each in self.limited)

    async def end(self, tokens: int | None) -> None:
        """End the call, which has used so many tokens; None where nobody knows how many."""
        if self.is_held:
            self.is_held = False
            await self._limiter.end(self, 0 if tokens is None else tokens - self.tokens)


class RateLimited(Problem):
    """429: a limit has no room for the call."""

    def __init__(self, permit: Permit, limited: Limited, refusal: Refusal) -> None:
        scope, limits = limited.owner[0], limited.limits
        counts = {count.kind: count for count in permit.counts if count.owner == limited.owner}
        seconds = 1
        if refusal == "concurrent":
            detail = f"the {scope} may have {limits.concurrent} calls at once"
        else:
            kind: Kind = "requests" if refusal == "requests_per_minute" else "tokens"
            count, needed = counts[kind], 1 if kind == "requests" else permit.tokens
            seconds = count.seconds
            detail = (
                f"the {scope} may have {count.limit} {kind} in a minute; {count.used} are used, "
                f"and the call needs {needed}"
            )
        retry = {"Retry-After": str(seconds), **headers(permit)}
        super().__init__(429, detail, code=refusal, headers=retry)
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
        self._store: Store
        if url.startswith("memory:"):
            self._store = MemoryStore()
        else:
            self._store = SharedStore(url, CONNECTIONS, STORE_SECONDS)
        self._away_until = 0.0
        self._is_up = True
        telemetry.observable_gauge(schema.RATE_LIMIT_STORE_UP, self._observe)

    async def admit(self, limited: Sequence[Limited], tokens: int) -> Permit:
        """Let a call in that needs so many tokens at least.

        Raises Problem 429, and then nothing was taken; 503 where the store is away and calls are to
        be refused.
        """
        permit = Permit(self, limited, tokens)
        if time.monotonic() < self._away_until:
            return self._unchecked(permit)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                permit.counts, refused = await self._store.take(limited, tokens, permit.lease)
        except _FAILURES as error:
            self._fails(error)
            return self._unchecked(permit)
        self._mended()
        if refused:
            raise RateLimited(permit, *refused)
        permit.is_held = True
        return permit

    async def end(self, permit: Permit, more: int) -> None:
        """Free what a permit holds; its call has used so many more tokens than were counted."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.end(permit.limited, permit.counts, more, permit.lease)
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
            await self._store.aclose()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._store.renew()
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
    policies = (f'"{each.name}";q={each.limit};w=60' for each in permit.counts)
    left = (f'"{each.name}";r={each.remaining};t={each.seconds}' for each in permit.counts)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


def openai_headers(permit: Permit) -> dict[str, str]:
    """The headers that OpenAI has for it: of each kind the limit that has least left."""
    found: dict[str, str] = {}
    for kind in ("requests", "tokens"):
        counts = [each for each in permit.counts if each.kind == kind]
        if counts:
            least = min(counts, key=lambda each: each.remaining)
            found[f"x-ratelimit-limit-{kind}"] = str(least.limit)
            found[f"x-ratelimit-remaining-{kind}"] = str(least.remaining)
            found[f"x-ratelimit-reset-{kind}"] = f"{least.seconds}s"
    return found
