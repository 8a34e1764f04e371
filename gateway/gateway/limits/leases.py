"""Leases: the calls of an owner that run at once.

In a shared store a lease expires unless it is renewed, so that those of a gateway that has ended
don't count for ever.
"""

import asyncio
import time
from collections import Counter, defaultdict
from secrets import token_hex
from typing import Protocol

from redis.asyncio import Redis

from accounting.records import Owner

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0

_ACQUIRE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""
"""A script: with the time, the limit, and the lease's end and name, whether there is one more."""


class Leases(Protocol):
    """The calls that run."""

    async def acquire(self, owner: Owner, limit: int) -> str | None:
        """A lease; None where the limit is reached."""

    async def release(self, owner: Owner, lease: str) -> None:
        """Let another call run."""

    async def renew(self) -> None:
        """Keep the leases of this process."""


class MemoryLeases:
    """Leases of this process alone."""

    def __init__(self) -> None:
        self._running: Counter[Owner] = Counter()

    async def acquire(self, owner: Owner, limit: int) -> str | None:
        if self._running[owner] >= limit:
            return None
        self._running[owner] += 1
        return token_hex(8)

    async def release(self, owner: Owner, lease: str) -> None:  # noqa: ARG002 - one is as another
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]

    async def renew(self) -> None:
        return


class RedisLeases:
    """Leases in Valkey or Redis, shared with other gateways: a sorted set for each owner."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._script = client.register_script(_ACQUIRE)
        self._held: defaultdict[Owner, set[str]] = defaultdict(set)

    async def acquire(self, owner: Owner, limit: int) -> str | None:
        lease, now = token_hex(8), time.time()
        seconds = int(LEASE_SECONDS)
        arguments: list[str | float] = [now, limit, now + seconds, lease, seconds]
        self._held[owner].add(lease)
        taken = False
        try:
            taken = bool(await self._script(keys=[_key(owner)], args=arguments))
        finally:
            if not taken:
                self._drop(owner, lease)
        return lease if taken else None

    async def release(self, owner: Owner, lease: str) -> None:
        self._drop(owner, lease)
        await self._client.zrem(_key(owner), lease)

    async def renew(self) -> None:
        until = time.time() + LEASE_SECONDS
        held = {owner: dict.fromkeys(leases, until) for owner, leases in self._held.items()}
        for owner, leases in held.items():
            await self._client.zadd(_key(owner), leases, xx=True)
            await self._client.expire(_key(owner), int(LEASE_SECONDS))
            await asyncio.sleep(0)

    def _drop(self, owner: Owner, lease: str) -> None:
        self._held[owner].discard(lease)
        if not self._held[owner]:
            del self._held[owner]


def _key(owner: Owner) -> str:
    scope, name = owner
    return f"o11y/running/{scope}/{name}"
