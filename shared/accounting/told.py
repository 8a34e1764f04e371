"""Costs of a replica that its metrics have told, so that another one can tell the rest of them.

A counter ends with its process, and what it counted since it was collected last is lost. It is
known all the same: the ledger has every row, and the journal's folder what was collected.
"""

import logging
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import Engine, func, select

from accounting.journal import Folder
from accounting.records import Row
from accounting.tables import ledger

logger = logging.getLogger(__name__)

_FILE = "told.json"


class Kind(msgspec.Struct, frozen=True, array_like=True):
    """The facts by which costs are told apart in metrics."""

    provider: str
    model: str
    operation: str
    tenant: str | None
    estimated: bool


Costs = dict[Kind, int]
"""Picodollars by their kind."""

_read = msgspec.json.Decoder(list[tuple[Kind, int]]).decode


class Told:
    """The costs of this process: those it has, and those that a reader of metrics has collected."""

    def __init__(self, folder: Folder) -> None:
        self._file = _file(folder)
        self._costs: Counter[Kind] = Counter()
        self._noted: Costs = {}
        self._writing = threading.Lock()
        self._closed = False

    def add(self, row: Row) -> None:
        """Add the cost of a row, which a counter has as well."""
        if row.cost:
            self._costs[kind_of(row)] += row.cost

    def collected(self) -> None:
        """Note that all so far was collected. For any thread."""
        with self._writing:
            costs = dict(self._costs)
            if self._closed or costs == self._noted:
                return
            new = self._file.with_suffix(".new")
            try:
                new.write_bytes(msgspec.json.encode(list(costs.items())))
                new.replace(self._file)
                self._noted = costs
            except OSError as error:
                logger.warning("the costs told can't be noted: %s", error.strerror or error)

    def close(self) -> None:
        """Note that all will be collected: metrics are sent once more when a process stops."""
        self.collected()
        with self._writing:
            self._closed = True


def kind_of(row: Row) -> Kind:
    return Kind(row.provider, row.model, row.operation, row.tenant, row.estimated)


def untold(engine: Engine, folder: Folder) -> Costs:
    """The costs in the ledger of the replica whose journal this was, but for those that were told.

    Raises SQLAlchemyError.
    """
    path, named = _file(folder), (ledger.c.provider, ledger.c.model, ledger.c.operation)
    keys = (*named, ledger.c.tenant, ledger.c.estimated)
    query = select(*keys, func.sum(ledger.c.cost)).group_by(*keys)
    query = query.where(ledger.c.replica == folder.replica, ledger.c.cost > 0)
    query = query.where(ledger.c.time >= datetime.fromtimestamp(folder.made, UTC))
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    costs = {Kind(*row[:-1]): int(row[-1]) for row in rows}
    for kind, told in _read(path.read_bytes()) if path.exists() else ():
        costs[kind] = costs.get(kind, 0) - told
    return {kind: cost for kind, cost in costs.items() if cost > 0}


def _file(folder: Folder) -> Path:
    return folder.path / _FILE
