"""Money as whole numbers: sums of them are exact in every database.

A picodollar is 10⁻¹² US dollars; the cheapest token that a price list has costs some thousands.
A 64-bit number holds nine million dollars.
"""

from decimal import ROUND_CEILING, Decimal

DOLLAR = 10**12
"""Picodollars in a US dollar."""

MAX = 2**63 - 1


def picodollars(usd: Decimal) -> int:
    """The amount, rounded up."""
    return min(MAX, int((usd * DOLLAR).to_integral_value(ROUND_CEILING)))


def dollars(amount: int) -> Decimal:
    """US dollars of an amount."""
    return (Decimal(amount) / DOLLAR).normalize()
