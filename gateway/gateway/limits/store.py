"""Stores of what callers use: in this process, or in Valkey or Redis, which gateways share.

A window of a minute begins with its first call. Unlike sliding ones such a counter can be given
back exactly what a call did not use. A call is taken in one step, of its key and of its tenant, or
not at all.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from accounting.records import Owner
from gateway.allowance import Limits

WINDOW_SECONDS = 60

Kind = Literal["requests", "tokens"]
Refusal = Literal["concurrent", "requests_per_minute", "tokens_per_minute"]


class Limited(NamedTuple):
    """A key or tenant with its limits; `tenant` is whose both are."""

    owner: Owner
    limits: Limits
    tenant: str


class Count(NamedTuple):
    """The state of a limit after a call was taken, or not."""

    owner: Owner
    kind: Kind
    limit: int
    used: int
    resets_at: float
    """Seconds since 1970."""

    @property
    def name(self) -> str:
        """The name of the policy in headers, such as `tenant-tokens`."""
        return f"{self.owner[0]}-{self.kind}"

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def seconds(self) -> int:
        """Seconds until the window ends, one at least."""
        return max(1, math.ceil(self.resets_at - time.time()))


class Taken(NamedTuple):
    """The outcome for a call: its counts, and whose limit refuses it."""

    counts: list[Count]
    refused: tuple[Limited, Refusal] | None = None


class Store(Protocol):
    """The counters, and the calls that run. `lease` is a call's own name."""

    async def take(self, limited: Sequence[Limited], tokens: int, lease: str) -> Taken:
        """Count a call of so many tokens, if it has room everywhere."""

    async def end(
        self, limited: Sequence[Limited], counts: Sequence[Count], more: int, lease: str
    ) -> None:
        """End a call, which has used so many more tokens than it was counted with, or less."""

    async def renew(self) -> None:
        """Keep the calls of this process among those that run."""

    async def aclose(self) -> None:
        """Close the connections."""


class MemoryStore:
    """The store of a gateway that is alone."""

    def __init__(self) -> None:
        self._windows: dict[tuple[Owner, Kind], tuple[int, float]] = {}
        self._running: Counter[Owner] = Counter()
        self._swept_at = 0.0

    async def take(self, limited: Sequence[Limited], tokens: int, lease: str) -> Taken:  # noqa: ARG002
        counts: list[Count] = []
        refused: tuple[Limited, Refusal] | None = None
        now = time.time()
        self._sweep(now)
        for each in limited:
            owner, limits, _ = each
            if limits.concurrent is not None and self._running[owner] >= limits.concurrent:
                refused = refused or (each, "concurrent")
            for kind, limit, amount in amounts(limits, tokens):
                used, ends = self._windows.get((owner, kind), (0, now + WINDOW_SECONDS))
                if used + amount > limit:
                    refused = refused or (each, REFUSALS[kind])
                counts.append(Count(owner, kind, limit, used, ends))
        if refused:
            return Taken(counts, refused)
        for each in limited:
            if each.limits.concurrent is not None:
                self._running[each.owner] += 1
        took = [
            count._replace(used=count.used + (1 if count.kind == "requests" else tokens))
            for count in counts
        ]
        for count in took:
            self._windows[count.owner, count.kind] = (count.used, count.resets_at)
        return Taken(took)

    async def end(
        self,
        limited: Sequence[Limited],
        counts: Sequence[Count],
        more: int,
        lease: str,  # noqa: ARG002 - one call is as another
    ) -> None:
        for each in limited:
            if each.limits.concurrent is not None:
                self._running[each.owner] -= 1
        for count in counts:
            window = self._windows.get((count.owner, count.kind))
            if count.kind == "tokens" and window and (more > 0 or window[1] == count.resets_at):
                self._windows[count.owner, count.kind] = (max(0, window[0] + more), window[1])

    async def renew(self) -> None:
        return

    async def aclose(self) -> None:
        return

    def _sweep(self, now: float) -> None:
        """Forget windows that have ended."""
        if now - self._swept_at < 1:
            return
        self._swept_at = now
        self._windows = {name: each for name, each in self._windows.items() if each[1] > now}
        self._running = +self._running


REFUSALS: dict[Kind, Refusal] = {
    "requests": "requests_per_minute",
    "tokens": "tokens_per_minute",
}


def amounts(limits: Limits, tokens: int) -> list[tuple[Kind, int, int]]:
    """The limits of a minute that there are, each with what a call of so many tokens takes."""
    found: list[tuple[Kind, int, int]] = []
    if limits.requests_per_minute is not None:
        found.append(("requests", limits.requests_per_minute, 1))
    if limits.tokens_per_minute is not None:
        found.append(("tokens", limits.tokens_per_minute, tokens))
    return found
