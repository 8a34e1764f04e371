"""Counters of calls and tokens, in a store that gateways may share (the library `limits`).

A window of a minute begins with its first call. Unlike sliding ones such a counter can be given
back exactly what a call did not use.
"""

import math
import time
from typing import Literal, NamedTuple

from limits.aio.storage import Storage

from accounting.records import Owner

WINDOW_SECONDS = 60

Kind = Literal["requests", "tokens"]


class Quota(NamedTuple):
    """The most of something that an owner may use in a minute."""

    owner: Owner
    kind: Kind
    limit: int

    @property
    def name(self) -> str:
        """The name of the policy in headers, such as `tenant-tokens`."""
        return f"{self.owner[0]}-{self.kind}"


class Count(NamedTuple):
    """The state of a quota after something was taken of it."""

    quota: Quota
    used: int
    resets_at: float
    """Seconds since 1970."""

    @property
    def remaining(self) -> int:
        return max(0, self.quota.limit - self.used)

    @property
    def seconds(self) -> int:
        """Seconds until the window ends, one at least."""
        return max(1, math.ceil(self.resets_at - time.time()))


class Counters:
    """Counts in windows of a minute."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def take(self, quota: Quota, amount: int) -> Count:
        """Count an amount, however much is left."""
        key = _key(quota)
        used = await self._storage.incr(key, WINDOW_SECONDS, amount)
        return Count(quota, used, await self._storage.get_expiry(key))

    async def correct(self, count: Count, amount: int) -> None:
        """Count more, or less, than was taken; less only while the window lasts."""
        if amount > 0 or (amount < 0 and time.time() < count.resets_at):
            await self._storage.incr(_key(count.quota), WINDOW_SECONDS, amount)


def _key(quota: Quota) -> str:
    scope, name = quota.owner
    return f"o11y/{quota.kind}/{scope}/{name}"
