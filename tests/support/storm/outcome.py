"""The figures of a storm."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass
class Outcome:
    """The figures of a storm."""

    statuses: Counter[int] = field(default_factory=Counter)
    """Of the answers; 0 where a caller left or had none."""
    attempts: int = 0
    """Attempts that a stand-in bills."""
    billed_usd: Decimal = Decimal(0)
    known_usd: Decimal = Decimal(0)
    """The ledger's, of calls whose usage was told."""
    estimated_usd: Decimal = Decimal(0)
    local_usd: Decimal = Decimal(0)
    told_usd: Decimal = Decimal(0)
    """By `openai_cost_usd_total`, the last values of processes that were killed included."""
    rows: int = 0
    estimated_rows: int = 0
    unaccounted: int = 0
    """Billed attempts without a row."""
    differing: int = 0
    """Traces whose usage was told, and whose rows don't cost what was billed."""
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def table(outcome: Outcome) -> str:
    """The figures, for people."""
    statuses = ", ".join(
        f"{status or 'none'} x {n}" for status, n in sorted(outcome.statuses.items())
    )
    lines = (
        ("calls", f"{sum(outcome.statuses.values())} in {outcome.seconds:.0f} s: {statuses}"),
        ("kills", ", ".join(outcome.kills)),
        ("attempts billed", f"{outcome.attempts}, {outcome.billed_usd} USD"),
        ("rows", f"{outcome.rows}, of these {outcome.estimated_rows} estimates"),
        ("ledger", f"{outcome.known_usd} USD known, {outcome.estimated_usd} USD estimated"),
        ("local model", f"{outcome.local_usd} USD"),
        ("openai_cost_usd_total", f"{outcome.told_usd} USD"),
        ("attempts without a row", str(outcome.unaccounted)),
        ("calls that cost other than billed", str(outcome.differing)),
        ("faults", "; ".join(outcome.faults) or "none"),
    )
    return "\n".join(f"{name:<35}{value}" for name, value in lines)
