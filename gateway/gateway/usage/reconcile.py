"""Reconciliation: a provider's invoice beside the ledger, by day and model."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from accounting.usage import usage

DAYS = ("day", "date", "start_time_iso", "start_time", "timestamp")
MODELS = ("model", "line_item", "model_name", "sku")
COSTS = ("cost_usd", "cost", "amount_value", "amount", "usd")
"""The names of columns that are understood, in lower case: OpenAI's cost export has `start_time`
(seconds since 1970), `line_item` ("gpt-4o, input") and `amount_value`.
"""

MAX_LINES = 1_000_000


class BadInvoice(Exception):
    """The file can't be read; the message says which line and why."""


class Difference(NamedTuple):
    """A day and model, with what the ledger and the invoice say it cost, in US dollars."""

    day: date
    model: str
    ledger: Decimal
    invoice: Decimal

    @property
    def amount(self) -> Decimal:
        return self.invoice - self.ledger


def read(path: Path) -> dict[tuple[date, str], Decimal]:
    """The cost of each day and model of an invoice export (CSV). Raises BadInvoice."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _sums(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInvoice(f"can't be read: {error}") from error


def compare(
    engine: Engine, invoice: dict[tuple[date, str], Decimal], provider: str | None
) -> Iterator[Difference]:
    """Every day and model of the invoice's days, in order. Raises SQLAlchemyError."""
    days = [day for day, _ in invoice]
    booked: dict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for row in usage(engine, min(days), max(days), ["day", "model", "provider"]):
        if provider in (None, row.group["provider"]):
            day = date.fromisoformat(row.group["day"] or "")
            booked[day, row.group["model"] or ""] += row.cost_usd
    for day, model in sorted(booked.keys() | invoice.keys()):
        zero = Decimal(0)
        ledger, invoiced = booked.get((day, model), zero), invoice.get((day, model), zero)
        if ledger or invoiced:
            yield Difference(day, model, ledger, invoiced)


def _sums(lines: "csv.DictReader[str]") -> dict[tuple[date, str], Decimal]:
    columns = {name.strip().lower(): name for name in lines.fieldnames or ()}
    day, model, cost = (_column(columns, names) for names in (DAYS, MODELS, COSTS))
    sums: dict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for number, line in enumerate(lines, 2):
        if number > MAX_LINES:
            raise BadInvoice(f"has more than {MAX_LINES} lines")
        try:
            name = (line[model] or "").partition(",")[0].strip()
            sums[_day(line[day] or ""), name] += Decimal((line[cost] or "").strip().lstrip("$"))
        except (ValueError, InvalidOperation, OverflowError, OSError) as error:
            raise BadInvoice(f"line {number}: not a day, a model and a cost") from error
    if not sums:
        raise BadInvoice("has no lines")
    return dict(sums)


def _column(columns: dict[str, str], names: Iterable[str]) -> str:
    for name in names:
        if name in columns:
            return columns[name]
    raise BadInvoice(f"has no column {' or '.join(names)}")


def _day(text: str) -> date:
    text = text.strip()
    if text.isdecimal():
        return datetime.fromtimestamp(int(text), UTC).date()
    return date.fromisoformat(text[:10])
