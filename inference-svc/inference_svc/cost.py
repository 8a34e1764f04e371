"""The cost of the local model: the price of its machine, shared out over the calls.

A call pays for its share in the machine's work (see `machine` and `steps`): for the time, at
`LOCAL_USD_PER_HOUR`, and for the energy, at `USD_PER_KWH`. Idle time is a figure of its own.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from opentelemetry.metrics import Observation
from opentelemetry.trace import Span

from inference_svc.machine import Consumption, Machine, Spent
from o11y.telemetry import identity, schema
from o11y.telemetry.identity import Tenants
from o11y.telemetry.signals import Telemetry

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
    """Charges calls for what they had of the machine; without a price nothing costs anything."""

    def __init__(self, price: Price | None, machine: Machine, telemetry: Telemetry) -> None:
        self.price = price
        self._machine = machine
        self._tenants = Tenants()
        self._cost = telemetry.counter(schema.MODEL_COST)
        self._energy = telemetry.counter(schema.MODEL_ENERGY)
        telemetry.observable_counter(schema.MODEL_IDLE_COST, self._observe_idle_cost)
        telemetry.observable_counter(schema.MODEL_IDLE_ENERGY, self._observe_idle_energy)

    def charge(
        self, span: Span, model: str, operation: str, consumption: Consumption
    ) -> float | None:
        """Charge a call that ends, for the tenant of the current request, and tell its span.

        Returns US dollars, None without a price.
        """
        tenant = identity.tenant()
        spent = consumption.settle(partial(self._pay, model, operation, tenant))
        if spent.joules:
            span.set_attribute(schema.ENERGY_JOULES, spent.joules)
        if self.price is None:
            return None
        usd = self.price.usd(spent)
        span.set_attribute(schema.LOCAL_COST_USD, usd)
        return usd

    def _pay(self, model: str, operation: str, tenant: str, spent: Spent) -> None:
        if not spent.seconds:
            return  # refused, or it left before its turn: it is no tenant's label
        labels = {
            schema.LABEL_MODEL: model,
            schema.LABEL_OPERATION: operation,
            schema.LABEL_TENANT: self._tenants.label(tenant),
        }
        if self.price is not None:
            self._cost.add(self.price.usd(spent), labels)
        if spent.joules:
            self._energy.add(spent.joules, labels)

    def _observe_idle_cost(self) -> Iterable[Observation]:
        idle = self._machine.idle()
        return [] if self.price is None else [Observation(self.price.usd(idle))]

    def _observe_idle_energy(self) -> Iterable[Observation]:
        idle = self._machine.idle()
        return [Observation(idle.joules)] if idle.joules else []


def priced(usage: dict[str, Any], usd: float | None) -> dict[str, Any]:
    """A usage in OpenAI's form, with what it cost where that is known, as OpenRouter has it."""
    return usage if usd is None else {**usage, "cost": usd}
