"""The cost of the local model: the price of its machine, shared out over the calls.

A call pays for the seconds of work that were its share (see `steps`), at `LOCAL_USD_PER_HOUR`. What
nobody worked for is its own figure. Generation and embeddings may work at the same time, and pay
for the machine each.
"""

import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.metrics import Observation

from o11y.telemetry import identity, schema
from o11y.telemetry.identity import Tenants
from o11y.telemetry.signals import Telemetry


class Costs:
    """Charges calls for their seconds; without a price nothing costs anything."""

    def __init__(self, usd_per_hour: float | None, telemetry: Telemetry) -> None:
        self.usd_per_second = None if usd_per_hour is None else usd_per_hour / 3600
        self._tenants = Tenants()
        self._began = time.monotonic()
        self._charged_seconds = 0.0
        self._cost = telemetry.counter(schema.MODEL_COST)
        telemetry.observable_counter(schema.MODEL_IDLE_COST, self._observe_idle)

    def charge(self, model: str, operation: str, seconds: float) -> float | None:
        """US dollars that a call costs which had so many seconds of work; None without a price."""
        if self.usd_per_second is None:
            return None
        self._charged_seconds += seconds
        usd = seconds * self.usd_per_second
        tenant = self._tenants.label(identity.tenant())
        self._cost.add(
            usd,
            {
                schema.LABEL_MODEL: model,
                schema.LABEL_OPERATION: operation,
                schema.LABEL_TENANT: tenant,
            },
        )
        return usd

    def _observe_idle(self) -> Iterable[Observation]:
        if self.usd_per_second is None:
            return []
        idle = time.monotonic() - self._began - self._charged_seconds
        return [Observation(max(0.0, idle) * self.usd_per_second)]


def priced(usage: dict[str, Any], usd: float | None) -> dict[str, Any]:
    """A usage in OpenAI's form, with what it cost where that is known, as OpenRouter has it."""
    return usage if usd is None else {**usage, "cost": usd}
