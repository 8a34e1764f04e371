"""The cost of the local model: the price of its machine, shared out over the calls.

A call pays for its share in the machine's work (see `machine` and `steps`): for the time, at
`LOCAL_USD_PER_HOUR`, and for the energy, at `USD_PER_KWH`. Idle time is a figure of its own.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from opentelemetry.metrics import Observation
from opentelemetry.trace import Span

from accounting import budget, charges, told
from accounting.caller import is_charged
from accounting.charges import Charges
from accounting.ledger import Ledger
from accounting.money import dollars, picodollars
from accounting.posting import Typical
from accounting.records import INTERRUPTED, OK, Begun, Row
from inference_svc.machine import Consumption, Machine, Spent
from o11y.http import deadline
from o11y.telemetry import identity, schema
from o11y.telemetry.identity import NO_TENANT, Tenants
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import unavailable

PROVIDER = "o11y-local"
"""`gen_ai.provider.name` of this service, and the provider of its rows in the ledger."""

MOST_SECONDS = 600.0
"""Seconds that a call may take which has no deadline."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Price:
    """The price of the machine in US dollars. Its GPU takes `most_watts` at most."""

    usd_per_second: float
    usd_per_joule: float = 0.0
    most_watts: float = 0.0

    def usd(self, spent: Spent) -> float:
        return spent.seconds * self.usd_per_second + spent.joules * self.usd_per_joule

    @property
    def max_usd_per_second(self) -> float:
        """The most that a second costs."""
        return self.usd_per_second + self.most_watts * self.usd_per_joule


def price(
    usd_per_hour: float | None, usd_per_kwh: float | None, most_watts: float | None
) -> Price | None:
    """The price by the settings of these names, None without any; `most_watts` is None where
    nothing measures energy.
    """
    if usd_per_kwh is not None and most_watts is None:
        log.warning("USD_PER_KWH has no effect: no GPU here tells the energy it uses")
        usd_per_kwh = None
    if usd_per_hour is None and usd_per_kwh is None:
        return None
    return Price((usd_per_hour or 0.0) / 3600, (usd_per_kwh or 0.0) / 3.6e6, most_watts or 0.0)


class Costs:
    """Charges calls for what they had of the machine; without a price nothing costs anything.

    With a ledger every call is written down, unless the service that it comes from charges it.
    """

    def __init__(
        self,
        price: Price | None,
        machine: Machine,
        telemetry: Telemetry,
        ledger: Ledger | None = None,
    ) -> None:
        self.price = price
        self._machine = machine
        self._tenants = Tenants()
        self._charges = Charges(ledger, telemetry, "X-Request-Timeout") if ledger else None
        if ledger:
            ledger.on_untold = self._recover
        self._cost = telemetry.counter(schema.MODEL_COST)
        self._energy = telemetry.counter(schema.MODEL_ENERGY)
        telemetry.observable_counter(schema.MODEL_IDLE_COST, self._observe_idle_cost)
        telemetry.observable_counter(schema.MODEL_IDLE_ENERGY, self._observe_idle_energy)

    async def begin(
        self, model: str, operation: str, input_tokens: int, max_output_tokens: int | None = None
    ) -> "Charge":
        """Reserve the most that a call can cost where its caller has budgets: the price of all the
        time that it has left.

        Raises Problem: 429 `insufficient_quota` for a budget that hasn't got that much, 503 where
        budgets can't be checked or nothing can be written down.
        """
        labels = {schema.LABEL_MODEL: model, schema.LABEL_OPERATION: operation}
        charge = None
        if not is_charged():
            if self._charges:
                begun = charges.begun(operation, PROVIDER, model, input_tokens, max_output_tokens)
                charge = await self._charges.begin(begun, self._most())
            elif self.price and budget.current():
                raise unavailable("budgets need DATABASE_URL at inference-svc")
        return Charge(partial(self._pay, labels, identity.tenant()), self.price, charge)

    def _most(self) -> int:
        """Picodollars."""
        if self.price is None:
            return 0
        left = deadline.remaining()
        seconds = MOST_SECONDS if left is None else left
        return picodollars(Decimal(seconds * self.price.max_usd_per_second))

    def _pay(self, labels: Mapping[str, str], tenant: str, spent: Spent) -> None:
        if not spent.seconds:
            return  # refused, or it left before its turn: it is no tenant's label
        labels = {**labels, schema.LABEL_TENANT: self._tenants.label(tenant)}
        if self.price is not None:
            self._cost.add(self.price.usd(spent), labels)
        if spent.joules:
            self._energy.add(spent.joules, labels)

    def _recover(self, costs: told.Costs) -> None:
        """Count the costs of a process that had ended before it could tell them."""
        for kind, cost in costs.items():
            labels = {
                schema.LABEL_MODEL: kind.model,
                schema.LABEL_OPERATION: kind.operation,
                schema.LABEL_TENANT: self._tenants.label(kind.tenant or NO_TENANT),
            }
            self._cost.add(float(dollars(cost)), labels)

    def _observe_idle_cost(self) -> Iterable[Observation]:
        idle = self._machine.idle()
        return [] if self.price is None else [Observation(self.price.usd(idle))]

    def _observe_idle_energy(self) -> Iterable[Observation]:
        idle = self._machine.idle()
        return [Observation(idle.joules)] if idle.joules else []


class Charge:
    """The charge of one call; it ends once."""

    def __init__(
        self,
        pay: Callable[[Spent], None],
        price: Price | None,
        charge: charges.Charge | None,
    ) -> None:
        self._pay = pay
        self._price = price
        self._charge = charge
        self._loop = asyncio.get_running_loop()

    def void(self) -> None:
        """Charge nothing: no work was done."""
        if self._charge:
            self._charge.void()

    def settle(
        self,
        span: Span,
        consumption: Consumption,
        input_tokens: int,
        output_tokens: int = 0,
        error: str | None = None,
    ) -> float | None:
        """Charge what a call that ends has had of the machine, and tell its span. What still works
        for it is charged as it comes.

        Returns US dollars, None without a price.
        """
        spent = consumption.settle(self._pay, self._pay_later)
        if spent.joules:
            span.set_attribute(schema.ENERGY_JOULES, spent.joules)
        usd = self._price.usd(spent) if self._price else None
        if usd is not None:
            span.set_attribute(schema.LOCAL_COST_USD, usd)
        if self._charge and error and not spent.seconds:
            self._charge.void()
        elif self._charge:
            begun = self._charge.begun
            tokens = {"input_tokens": input_tokens, "output_tokens": output_tokens}
            self._charge.settle(
                charges.row(
                    begun,
                    picodollars(Decimal(usd or 0.0)),
                    tokens,
                    response_model=begun.model,
                    status=error or OK,
                )
            )
        return usd

    def _pay_later(self, spent: Spent) -> None:
        self._pay(spent)
        if self._charge and self._price:
            usd = Decimal(self._price.usd(spent))
            self._loop.call_soon_threadsafe(self._charge.add, picodollars(usd))


def estimate(price: Price | None, most_seconds: float, begun: Begun, typical: Typical) -> Row:
    """The row of a call that ended with its process: it cost what the model's calls do on average,
    or where there are none the price of the time that it may have taken.
    """
    output, cost = typical
    if price is None or cost is None:
        cost = 0 if price is None else picodollars(Decimal(most_seconds * price.max_usd_per_second))
    tokens = {"input_tokens": begun.input_tokens, "output_tokens": output or 0}
    return charges.row(begun, cost, tokens, estimated=True, status=INTERRUPTED)


def priced(usage: dict[str, Any], usd: float | None) -> dict[str, Any]:
    """A usage in OpenAI's form, with what it cost where that is known, as OpenRouter has it."""
    return usage if usd is None else {**usage, "cost": usd}
