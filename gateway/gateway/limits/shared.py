"""The store in Valkey or Redis: a call is one script, and its end another.

The keys of a tenant lie together in a cluster (`{tenant}`). Calls that run are leases, which expire
unless they are renewed, so that those of a gateway that has ended don't count for ever.
"""

import time
from collections.abc import Sequence

from redis.asyncio import BlockingConnectionPool, Redis

from gateway.limits.store import REFUSALS, WINDOW_SECONDS, Count, Limited, Taken, amounts

LEASE_SECONDS = 60.0

_TAKE = """
local now, lease, ends = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local found, refused = {}, 0
for at, key in ipairs(KEYS) do
  local limit, amount = tonumber(ARGV[2 * at + 2]), tonumber(ARGV[2 * at + 3])
  if amount < 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if refused == 0 and redis.call('ZCARD', key) >= limit then refused = at end
  else
    local used, left = tonumber(redis.call('GET', key) or 0), redis.call('PTTL', key)
    if refused == 0 and used + amount > limit then refused = at end
    found[#found + 1], found[#found + 2] = used, left
  end
end
if refused > 0 then return {refused, unpack(found)} end
for at, key in ipairs(KEYS) do
  local amount = tonumber(ARGV[2 * at + 3])
  if amount < 0 then
    redis.call('ZADD', key, ends, lease)
    redis.call('PEXPIREAT', key, math.floor(ends * 1000))
  elseif redis.call('INCRBY', key, amount) == amount then
    redis.call('EXPIRE', key, WINDOW)
  end
end
return {0, unpack(found)}
""".replace("WINDOW", str(WINDOW_SECONDS))
"""For each key its limit and an amount, -1 for calls that run; returns the first key that refuses,
and what is used of the others and the milliseconds that their windows last.
"""

_END = """
for at, key in ipairs(KEYS) do
  local amount = tonumber(ARGV[at + 1])
  if amount == nil then
    redis.call('ZREM', key, ARGV[1])
  elseif redis.call('EXISTS', key) == 1 then
    redis.call('INCRBY', key, amount)
  end
end
"""


class SharedStore:
    """The store that gateways share. Raises redis.RedisError, OSError and TimeoutError."""

    def __init__(self, url: str, connections: int, seconds: float) -> None:
        scheme, _, rest = url.partition("://")
        self._client = Redis.from_pool(
            BlockingConnectionPool.from_url(
                f"{scheme.replace('valkey', 'redis')}://{rest}",
                max_connections=connections,
                timeout=seconds,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
            )
        )
        self._take = self._client.register_script(_TAKE)
        self._end = self._client.register_script(_END)
        self._running: dict[str, list[str]] = {}
        """The keys of calls that run, by lease."""

    async def take(self, limited: Sequence[Limited], tokens: int, lease: str) -> Taken:
        keys: list[str] = []
        now = time.time()
        arguments: list[str | float] = [now, lease, now + LEASE_SECONDS]
        which: list[tuple[Limited, str]] = []
        for each in limited:
            if each.limits.concurrent is not None:
                which.append((each, "running"))
                arguments += [each.limits.concurrent, -1]
            for kind, limit, amount in amounts(each.limits, tokens):
                which.append((each, kind))
                arguments += [limit, amount]
        keys = [_key(each, kind) for each, kind in which]
        self._running[lease] = [
            key for key, (_, kind) in zip(keys, which, strict=True) if kind == "running"
        ]
        try:
            refused, *found = await self._take(keys=keys, args=arguments)
        except BaseException:
            del self._running[lease]
            raise
        states = iter(zip(found[::2], found[1::2], strict=True))
        counts = []
        for each in limited:
            for kind, limit, amount in amounts(each.limits, tokens):
                used, left = next(states)
                ends = now + (left / 1000 if left > 0 else WINDOW_SECONDS)
                taken = used if refused else used + amount
                counts.append(Count(each.owner, kind, limit, taken, ends))
        if not refused:
            return Taken(counts)
        del self._running[lease]
        whose, kind = which[refused - 1]
        return Taken(counts, (whose, "concurrent" if kind == "running" else REFUSALS[kind]))

    async def end(
        self, limited: Sequence[Limited], counts: Sequence[Count], more: int, lease: str
    ) -> None:
        keys = self._running.pop(lease, [])
        arguments: list[str | int] = [lease, *("-" for _ in keys)]
        by_owner = {each.owner: each for each in limited}
        for count in counts:
            if count.kind == "tokens" and more and (more > 0 or time.time() < count.resets_at):
                keys = [*keys, _key(by_owner[count.owner], "tokens")]
                arguments.append(more)
        if keys:
            await self._end(keys=keys, args=arguments)

    async def renew(self) -> None:
        ends = time.time() + LEASE_SECONDS
        leases: dict[str, dict[str, float]] = {}
        for lease, keys in self._running.items():
            for key in keys:
                leases.setdefault(key, {})[lease] = ends
        for key, each in leases.items():
            await self._client.zadd(key, each, xx=True)
            await self._client.expireat(key, int(ends) + 1)

    async def aclose(self) -> None:
        await self._client.aclose()


def _key(limited: Limited, kind: str) -> str:
    scope, name = limited.owner
    return f"o11y:{{{limited.tenant}}}:{scope}:{name}:{kind}"
