"""The ledger of a replica: every attempt goes into its journal, and from there into the database.

A call waits for the journal alone, a file; the database may be slow or away. Rows wait in the
journal then, for as long as it takes, and for another process if need be.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from accounting import grants, posting
from accounting.accounts import Accounts
from accounting.budget import Budget
from accounting.database import Migrated, connect
from accounting.grants import Standing
from accounting.journal import Folder, Journal, Reader, Taken, abandoned
from accounting.posting import ROWS, Posted, Typical
from accounting.records import Begun, Row, Void
from accounting.told import Costs, Told, untold

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
RENEW_SECONDS = 1.0
RECOVER_SECONDS = 10.0
FORGET_SECONDS = 3600.0
PATIENCE_SECONDS = 3.0
"""Longest wait for the last rows to be posted when the process stops."""

Estimate = Callable[[Begun, Typical], Row]
"""A function that says what a call has cost that ended with its process, by what the model's
answers have on average.
"""

T = TypeVar("T")


class Ledger:
    """Writes attempts down, and posts them in the background while it is `running`.

    `directory` has a folder for each process; those of processes that have ended are taken over.
    Rows are kept for `retention` where one is given. With `passes`, calls are let go while budgets
    can't be checked. Raises OSError where the journal can't be made.
    """

    def __init__(
        self,
        database_url: str,
        directory: Path,
        estimate: Estimate,
        *,
        retention: timedelta | None = None,
        passes: bool = False,
    ) -> None:
        self._database = Migrated(connect(database_url))
        self._directory = directory
        self._estimate = estimate
        self._retention = retention
        self._folder = _new_folder(directory)
        self._journal = Journal(self._folder)
        self._reader = Reader(self._folder)
        self._unposted: list[Row] = []
        self._threads = ThreadPoolExecutor(4, "accounting")
        self._failing = False
        self._stopping = asyncio.Event()
        self._oldest: float | None = None
        self.accounts = Accounts(self._ask, passes=passes)
        self.waiting = 0
        """Rows of this process that are not yet in the database."""
        self.recovered = 0
        """Rows of processes that had ended."""
        self.told = Told(self._folder)
        self.on_untold: Callable[[Costs], None] = _forgotten
        """Called in another thread with the costs of a process that had ended, which no metric has
        told.
        """

    @property
    def replica(self) -> str:
        """The name of this process in the database."""
        return self._folder.replica

    @property
    def lag_seconds(self) -> float:
        """The age of the oldest row that is not yet in the database, nearly."""
        return 0.0 if self._oldest is None else time.monotonic() - self._oldest

    def begin(self, begun: Begun) -> None:
        """Write down an attempt that is about to be sent. Raises OSError."""
        self._journal.write(begun)

    def end(self, row: Row) -> None:
        """Write down what an attempt has cost."""
        if self._write(row):
            self.told.add(row)
            self.waiting += 1
            if self._oldest is None:
                self._oldest = time.monotonic()

    def void(self, attempt: str) -> None:
        """Write down that nobody bills an attempt."""
        self._write(Void(attempt))

    def _write(self, record: Row | Void) -> bool:
        try:
            self._journal.write(record)
        except OSError as error:  # its beginning was written: it will be an estimate
            logger.error("the journal can't be written: %s", error.strerror or error)
            return False
        return True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Post rows, renew grants and take over what others left, until the block ends. Then post
        what is left, and give back all grants; what fails then is done by another process.
        """
        posting_rows = asyncio.create_task(self._run())
        posting_rows.add_done_callback(_ended)
        try:
            yield
        finally:
            self._stopping.set()
            ended = await self._stop(posting_rows)
            self._journal.close()
            self.told.close()
            if ended:
                self._folder.remove()
            else:
                logger.warning("the ledger's last rows wait for the next start")
                self._folder.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._database.engine.dispose()

    async def _run(self) -> None:
        flushed = recovered = forgot = float("-inf")
        while not self._stopping.is_set():
            began = time.monotonic()
            if self.waiting or began - flushed >= RENEW_SECONDS:
                flushed = began
                await self._flush()
            if not self._failing and began - recovered >= RECOVER_SECONDS:
                recovered = began
                await self._try(self._recover)
            if not self._failing and self._retention and began - forgot >= FORGET_SECONDS:
                forgot = began
                await self._try(partial(self._forget, self._retention))
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS if self._failing else FLUSH_SECONDS):
                    await self._stopping.wait()

    async def _stop(self, posting_rows: asyncio.Task[None]) -> bool:
        """True when nothing is left to do for this process."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait({posting_rows})
                while self.waiting and await self._flush():
                    pass
                if self.waiting or self._reader.running:
                    return False
                return await self._try(self._give_back) is not None
        except TimeoutError:
            return False

    def _give_back(self) -> bool:
        posting.recover(self._database.ready(), self.replica, [])
        return True

    def _forget(self, retention: timedelta) -> int:
        return posting.forget(self._database.ready(), datetime.now(UTC) - retention)

    async def _ask(self, budgets: Sequence[Budget], wanted: int) -> Standing:
        def ask() -> Standing:
            return grants.ask(
                self._database.ready(), self.replica, budgets, wanted, datetime.now(UTC)
            )

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    async def _flush(self) -> bool:
        """Post the next rows, and renew the grants. False where that fails."""
        began = time.monotonic()
        renewals = self.accounts.renewals(give_back=not self._failing)

        def post() -> tuple[int, Posted]:
            rows = self._unposted = self._unposted or self._reader.read(ROWS)
            posted = posting.post(
                self._database.ready(), self.replica, rows, renewals, datetime.now(UTC)
            )
            self._unposted = []
            self._reader.forget()
            return len(rows), posted

        done = await self._try(post)
        if done is None:
            return False
        count, posted = done
        self.waiting -= count
        self._oldest = began if self.waiting else None
        self.accounts.posted(posted.sums)
        self.accounts.renewed(renewals, posted.gone, began)
        return True

    def _recover(self) -> int:
        """Post what processes left that have ended."""
        engine = self._database.ready()
        count = 0
        for folder in abandoned(self._directory, self.replica):
            reader = Reader(folder)
            try:
                while rows := reader.read(ROWS):
                    posting.post(engine, folder.replica, rows, {}, datetime.now(UTC))
                    count += len(rows)
                rows = [
                    self._estimate(begun, posting.typical(engine, begun))
                    for begun in reader.running
                ]
                posting.recover(engine, folder.replica, rows)
                costs = untold(engine, folder)
            except BaseException:
                folder.close()
                raise
            folder.remove()
            self.on_untold(costs)
            count += len(rows)
        count += posting.expire(engine, datetime.now(UTC))
        self.recovered += count
        if count:
            logger.warning("%d rows of the ledger were left by processes that have ended", count)
        return count

    async def _try(self, work: Callable[[], T]) -> T | None:
        """Do something in a thread; None where the database or a file fails."""
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (SQLAlchemyError, OSError) as error:
            if not self._failing:
                self._failing = True
                logger.warning("the ledger can't be written: %s", type(error).__name__)
            return None
        if self._failing:
            self._failing = False
            logger.warning("the ledger can be written again")
        return done


def _forgotten(_: Costs) -> None:
    """Costs that no metric tells are left at that, where there are no metrics."""


def _ended(posting_rows: asyncio.Task[None]) -> None:
    """Say that rows are no longer posted, if that is so; they wait in the journal."""
    if not posting_rows.cancelled() and (error := posting_rows.exception()):
        logger.critical("the ledger is not written any more", exc_info=error)


def _new_folder(directory: Path) -> Folder:
    """A folder of one's own."""
    while True:
        try:
            return Folder(directory / token_hex(16))
        except Taken:  # by one that looks for what others left
            continue
