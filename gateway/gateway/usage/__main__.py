"""`python -m gateway.usage reconcile FILE.csv`: compare the ledger with a provider's invoice."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from accounting.database import connect, upgrade
from gateway.settings import Settings
from gateway.usage.reconcile import BadInvoice, Difference, compare, read
from o11y.settings import load


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m gateway.usage",
        description="The ledger of DATABASE_URL, which says what was spent.",
    )
    commands = root.add_subparsers(dest="command", required=True)
    reconcile = commands.add_parser(
        "reconcile", help="compare with a provider's invoice export, by day and model"
    )
    reconcile.add_argument("file", type=Path, help="CSV with a day, a model and a cost")
    reconcile.add_argument("--provider", help="its name in LLM_PROVIDERS; without it, all of them")
    reconcile.add_argument(
        "--tolerance", type=Decimal, default=Decimal("0.01"), help="in USD, a line: 0.01"
    )
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 0 when all lines agree, 1 when one doesn't, 2 when none can be made."""
    given = parser().parse_args(arguments)
    engine = connect(load(Settings).database_url.get_secret_value())
    try:
        invoice = read(given.file)
        upgrade(engine)
        found = list(compare(engine, invoice, given.provider))
    except BadInvoice as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    except (SQLAlchemyError, OSError) as error:
        print(f"DATABASE_URL: the database can't be used: {type(error).__name__}", file=sys.stderr)
        return 2
    finally:
        engine.dispose()
    return _print(found, given.tolerance)


def _print(found: list[Difference], tolerance: Decimal) -> int:
    width = max([len("model"), *(len(each.model) for each in found)])
    print(f"{'day':<10}  {'model':<{width}}  {'ledger':>14}  {'invoice':>14}  {'difference':>14}")
    differing = [each for each in found if abs(each.amount) > tolerance]
    for each in found:
        mark = "  <" if each in differing else ""
        print(
            f"{each.day}  {each.model:<{width}}  {each.ledger:>14.6f}  {each.invoice:>14.6f}  "
            f"{each.amount:>+14.6f}{mark}"
        )
    ledger = sum((each.ledger for each in found), Decimal(0))
    invoice = sum((each.invoice for each in found), Decimal(0))
    print(
        f"{'in all':<10}  {'':<{width}}  {ledger:>14.6f}  {invoice:>14.6f}  "
        f"{invoice - ledger:>+14.6f}"
    )
    print(f"{len(differing)} of {len(found)} lines differ by more than {tolerance} USD")
    return 1 if differing else 0


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
