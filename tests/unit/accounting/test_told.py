"""Costs that metrics have told of, and those that another process has to tell."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from accounting import posting
from accounting.journal import Folder
from accounting.ledger import Ledger
from accounting.money import DOLLAR
from accounting.told import Costs, Kind, Told, untold
from tests.support.accounting import begun, row

CENT = DOLLAR // 100
KIND = Kind("p", "m", "chat", "t", estimated=False)


async def test_the_next_process_tells_what_was_not_collected_and_what_was_running(
    replica: Callable[..., Ledger], engine: Engine
) -> None:
    """By the folder of the one before, which ends without a word."""
    killed = replica()
    for name in ("a", "b"):
        killed.begin(begun(name))
        killed.end(row(name, CENT))
    killed.told.collected()
    killed.begin(begun("c"))
    killed.end(row("c", 2 * CENT))
    killed.begin(begun("d"))
    killed._folder.close()  # noqa: SLF001 - as the system does for a process that was killed
    following = replica()
    found: list[Costs] = []
    following.on_untold = found.append
    async with following.running(), asyncio.timeout(20):
        while not found:  # noqa: ASYNC110 - it is called in another thread
            await asyncio.sleep(0.01)
    estimated = Kind("p", "m", "chat", "t", estimated=True)
    assert found == [{KIND: 2 * CENT, estimated: CENT}]


def test_what_nobody_collected_is_told_in_full(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Folder(tmp_path_factory.mktemp("journals") / "r")
    told = Told(folder)
    rows = [row("a", CENT), row("b", None), row("c", CENT, tenant=None)]
    for each in rows:
        told.add(each)
    posting.recover(engine, "r", rows)
    assert untold(engine, folder) == {
        KIND: CENT,
        Kind("p", "m", "chat", None, estimated=False): CENT,
    }
    told.close()
    assert untold(engine, folder) == {}
    told.add(row("d", CENT))
    told.collected()  # nobody writes to the folder any more
    assert untold(engine, folder) == {}
    folder.remove()
    assert not folder.path.exists()
