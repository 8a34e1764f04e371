"""Accounts: money that this replica was granted, reserved for the calls that run.

A call is let go when the most it can cost fits what was granted, or what is granted then; it
settles with what it did cost. All methods belong on the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from sqlalchemy.exc import SQLAlchemyError

from accounting.budget import Budget
from accounting.grants import TTL, Standing
from accounting.records import Owner

logger = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
"""Longest wait of a call for the database."""

IDLE_SECONDS = 2.0
"""Time after which what nothing is running for is given back."""

REFUSED_SECONDS = 0.25
"""Time for which a refusal holds for calls that cost as much, without another look."""

MOST_ACCOUNTS = 10_000
"""Accounts above which those without money are forgotten."""

Ask = Callable[[Sequence[Budget], int], Awaitable[Standing]]
"""A function that asks the database for a grant of so many picodollars."""


class BudgetExceeded(Exception):
    """The call may cost more than a budget has left."""

    def __init__(self, budget: Budget, needed: int, left: int) -> None:
        super().__init__(f"{budget.period} of {budget.scope} {budget.owner}")
        self.budget = budget
        self.needed = needed
        """Picodollars, as is `left`."""
        self.left = max(0, left)


class StoreUnavailable(Exception):
    """The database could not be asked, or not in time."""


class Account:
    """The money of one owner on this replica, in picodollars."""

    def __init__(self) -> None:
        self.granted = 0
        self.reserved = 0
        self.settled = 0
        """Spent, and not yet posted."""
        self.waiting = 0
        self.told = 0
        """Reserved, as the database has it."""
        self.valid_until = 0.0
        self.used_at = 0.0
        self.refusal: tuple[float, BudgetExceeded] | None = None
        self.asking: asyncio.Task[Standing] | None = None

    @property
    def free(self) -> int:
        return self.granted - self.reserved - self.settled

    @property
    def held(self) -> int:
        """The amount that running calls may cost, and ended ones have, which isn't posted yet."""
        return self.reserved + self.settled

    def take(self, amount: int) -> bool:
        """Reserve an amount if it is granted."""
        now = time.monotonic()
        if self.free < amount or now >= self.valid_until:
            return False
        self.reserved += amount
        self.used_at = now
        return True

    def refuses(self, amount: int) -> BudgetExceeded | None:
        """The refusal of a moment ago, if it holds for this amount as well."""
        if self.refusal is None or time.monotonic() >= self.refusal[0]:
            return None
        before = self.refusal[1]
        return (
            BudgetExceeded(before.budget, amount, before.left) if amount >= before.needed else None
        )


class Reservation:
    """Money that is kept for one call, of all who pay for it."""

    def __init__(self, accounts: Iterable[Account], amount: int) -> None:
        self._accounts = tuple(accounts)
        self._amount = amount

    def settle(self, cost: int) -> None:
        """Spend what the call did cost, and free the rest; once."""
        for account in self._accounts:
            account.reserved -= self._amount
            account.settled += cost
        self._accounts = ()


class Accounts:
    """Reserves money of owners, and asks for more where what was granted isn't enough.

    With `passes` a call is let go where the database can't be asked.
    """

    def __init__(self, ask: Ask, *, passes: bool) -> None:
        self._ask = ask
        self._passes = passes
        self._accounts: dict[Owner, Account] = {}
        self._reported = False

    async def reserve(self, budgets: Sequence[Budget], amount: int) -> Reservation:
        """Reserve an amount of every budget. Raises BudgetExceeded and StoreUnavailable, and then
        nothing is reserved.
        """
        taken: list[Account] = []
        try:
            for owner, its_budgets in _by_owner(tuple(budgets)):
                account = self._account(owner)
                if not account.take(amount):
                    await self._get(account, its_budgets, amount)
                taken.append(account)
        except BaseException:
            Reservation(taken, amount).settle(0)
            raise
        return Reservation(taken, amount)

    def _account(self, owner: Owner) -> Account:
        found = self._accounts.get(owner)
        if found is None:
            if len(self._accounts) >= MOST_ACCOUNTS:
                self._forget()
            found = self._accounts[owner] = Account()
        return found

    async def _get(self, account: Account, budgets: Sequence[Budget], amount: int) -> None:
        """Reserve an amount for which the database has to be asked."""
        account.waiting += amount
        try:
            while True:
                if refusal := account.refuses(amount):
                    raise refusal
                asking = account.asking
                is_asked_for = asking is None
                if asking is None:
                    asking = account.asking = asyncio.create_task(self._more(account, budgets))
                    asking.add_done_callback(_retrieved)
                await asyncio.wait({asking}, timeout=WAIT_SECONDS)
                standing = _outcome(asking)
                if account.take(amount):
                    return
                if is_asked_for and standing.given < standing.wanted:
                    left = standing.left - standing.given + account.free
                    refused = BudgetExceeded(standing.tightest, amount, left)
                    account.refusal = (time.monotonic() + REFUSED_SECONDS, refused)
                    raise refused
        except StoreUnavailable as error:
            self._report(error)
            if not self._passes:
                raise
            account.reserved += amount
        finally:
            account.waiting -= amount

    async def _more(self, account: Account, budgets: Sequence[Budget]) -> Standing:
        """Get a grant for all that wait. It is known here even when nobody waits any more."""
        began = time.monotonic()
        if began >= account.valid_until:
            account.granted = 0  # it may have expired, and be another's
        wanted = max(1, account.waiting - account.free)
        try:
            standing = await self._ask(budgets, wanted)
        finally:
            account.asking = None
        account.granted += standing.given
        account.told += standing.given  # at most
        account.valid_until = began + TTL.total_seconds() / 2
        if self._reported:
            self._reported = False
            logger.warning("budgets can be checked again")
        return standing

    def _report(self, error: StoreUnavailable) -> None:
        if not self._reported:
            self._reported = True
            logger.warning("budgets can't be checked: %s", error)

    def renewals(self, *, give_back: bool) -> dict[Owner, tuple[int, int]]:
        """For each owner what is given back now, which is taken off here, and what is reserved.

        When the database then fails it may hold what was given back: rather too little is spent.
        """
        found: dict[Owner, tuple[int, int]] = {}
        for owner, account in self._accounts.items():
            if account.granted <= 0 and account.held <= 0 and account.told <= 0:
                continue
            idle = account.refusal or time.monotonic() - account.used_at > IDLE_SECONDS
            account.refusal = None
            is_free = give_back and idle and not account.waiting
            returned = max(0, account.free) if is_free else 0
            account.granted -= returned
            found[owner] = (returned, account.held)
        return found

    def renewed(
        self, renewals: Mapping[Owner, tuple[int, int]], gone: Iterable[Owner], since: float
    ) -> None:
        """Note that grants hold from a time (of `time.monotonic`) on, but for those that are gone:
        nothing of them may be spent.
        """
        for owner, (_, reserved) in renewals.items():
            if account := self._accounts.get(owner):
                account.told = reserved
                account.valid_until = since + TTL.total_seconds() / 2
        for owner in gone:
            if account := self._accounts.get(owner):
                account.granted, account.told, account.valid_until = 0, 0, 0.0

    def posted(self, sums: Mapping[Owner, int]) -> None:
        """Note what was spent, by who paid."""
        for owner, amount in sums.items():
            if account := self._accounts.get(owner):
                account.settled = max(0, account.settled - amount)
                account.granted = max(0, account.granted - amount)

    def _forget(self) -> None:
        for owner, account in list(self._accounts.items()):
            if not (account.granted or account.held or account.told or account.waiting):
                del self._accounts[owner]


def _outcome(asking: asyncio.Task[Standing]) -> Standing:
    """The outcome of a question. Raises StoreUnavailable."""
    if not asking.done():
        raise StoreUnavailable("the database does not answer")
    error = asking.exception()
    if isinstance(error, SQLAlchemyError | OSError):
        raise StoreUnavailable(f"the database can't be used: {type(error).__name__}") from error
    return asking.result()


def _retrieved(asking: asyncio.Task[Standing]) -> None:
    """Take the exception of a question whose askers have gone: asyncio would complain."""
    if not asking.cancelled():
        asking.exception()


@lru_cache(maxsize=1024)
def _by_owner(budgets: tuple[Budget, ...]) -> list[tuple[Owner, tuple[Budget, ...]]]:
    found: dict[Owner, list[Budget]] = {}
    for budget in budgets:
        found.setdefault((budget.scope, budget.owner), []).append(budget)
    return [(owner, tuple(its)) for owner, its in found.items()]
