"""Charges of calls to models: reserved before a call runs, settled after it, and written down."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from secrets import token_hex

import msgspec
from opentelemetry import trace
from opentelemetry.metrics import Observation

from accounting import budget
from accounting.accounts import BudgetExceeded, Reservation, StoreUnavailable
from accounting.ledger import Ledger
from accounting.money import dollars
from accounting.records import OK, REMAINDER, Begun, Row
from o11y.contracts import BUDGET_HEADER
from o11y.telemetry import identity, schema
from o11y.telemetry.identity import Tenants
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import NO_QUOTA, Problem, unavailable


class Charges:
    """Lets calls spend within the budgets of the caller's key and tenant.

    `bounded_by` names the field or header by which a caller bounds what a call can cost.
    """

    def __init__(self, ledger: Ledger, telemetry: Telemetry, bounded_by: str) -> None:
        self._ledger = ledger
        self._bounded_by = bounded_by
        self._refused = telemetry.counter(schema.ADMISSION_REFUSED)
        self._tenants = Tenants()
        telemetry.observable_gauge(schema.LEDGER_QUEUE, self._observe_queue)
        telemetry.observable_gauge(schema.LEDGER_LAG, lambda: [Observation(ledger.lag_seconds)])
        telemetry.observable_counter(
            schema.LEDGER_RECOVERED, lambda: [Observation(ledger.recovered)]
        )

    async def begin(self, begun: Begun, most: int) -> "Charge":
        """Reserve the most that a call can cost, in picodollars, where the current caller has
        budgets, and write down that it begins.

        Raises Problem: 429 `insufficient_quota` for a budget that hasn't got that much, 503 where
        budgets can't be checked or nothing can be written down.
        """
        budgets = budget.current()
        reservation = None
        if budgets and most:
            try:
                reservation = await self._ledger.accounts.reserve(budgets, most)
            except BudgetExceeded as exceeded:
                raise self.refusal("budget", _exceeded(exceeded, self._bounded_by)) from None
            except StoreUnavailable as error:
                raise unavailable("budgets can't be checked: the database is away") from error
        try:
            self._ledger.begin(begun)
        except OSError as error:
            if reservation:
                reservation.settle(0)
            raise unavailable("the ledger can't be written") from error
        return Charge(self._ledger, begun, reservation)

    def _observe_queue(self) -> list[Observation]:
        self._ledger.told.collected()  # a reader collects all metrics now
        return [Observation(self._ledger.waiting)]

    def refusal(self, reason: str, problem: Problem) -> Problem:
        """The problem of a call that is refused for this reason, which is counted."""
        tenant = self._tenants.label(identity.tenant())
        self._refused.add(1, {schema.LABEL_REASON: reason, schema.LABEL_TENANT: tenant})
        return problem


class Charge:
    """The charge of one call; it ends once, by `settle` or `void`."""

    def __init__(self, ledger: Ledger, begun: Begun, reservation: Reservation | None) -> None:
        self._ledger = ledger
        self.begun = begun
        self._reservation = reservation

    def settle(self, row: Row) -> None:
        """Charge what the row says."""
        self._free(row.cost or 0)
        self._ledger.end(row)

    def add(self, cost: int) -> None:
        """Charge so many picodollars more, when the call has been settled."""
        more = msgspec.structs.replace(self.begun, id=token_hex(16))
        self._ledger.end(row(more, cost, {}, response_model=more.model, status=REMAINDER))

    def void(self) -> None:
        """Charge nothing: nobody bills it."""
        self._free(0)
        self._ledger.void(self.begun.id)

    def _free(self, cost: int) -> None:
        if self._reservation:
            self._reservation.settle(cost)


def begun(
    operation: str, provider: str, model: str, input_tokens: int, max_output_tokens: int | None
) -> Begun:
    """The beginning of a call of the current caller, in the current trace."""
    who = identity.attributes()
    trace_id = trace.get_current_span().get_span_context().trace_id
    return Begun(
        token_hex(16),
        time.time(),
        operation,
        provider,
        model,
        input_tokens,
        max_output_tokens,
        who.get(schema.TENANT_ID),
        who.get(schema.KEY_ID),
        who.get(schema.USER_ID),
        format(trace_id, "032x") if trace_id else None,
    )


def row(
    begun: Begun,
    cost: int | None,
    tokens: Mapping[str, int],
    *,
    response_model: str | None = None,
    estimated: bool = False,
    status: str = OK,
) -> Row:
    """The row of a call that has begun; `tokens` by the names that the row has for them."""
    return Row(
        id=begun.id,
        time=begun.time,
        operation=begun.operation,
        provider=begun.provider,
        model=begun.model,
        response_model=response_model,
        tenant=begun.tenant,
        key_id=begun.key_id,
        user_id=begun.user_id,
        trace_id=begun.trace_id,
        **tokens,
        cost=cost,
        estimated=estimated,
        status=status,
    )


def _exceeded(exceeded: BudgetExceeded, bounded_by: str) -> Problem:
    """429 as OpenAI has it; the gateway makes it 402 on its own routes."""
    which, now = exceeded.budget, datetime.now(UTC)
    resets = budget.resets_at(which.period, now)
    when = f"it is filled again at {resets:%Y-%m-%dT%H:%M:%SZ}" if resets else "it is never filled"
    name = "in all" if which.period == "total" else f"of a {which.period}"
    detail = (
        f"the {which.scope}'s budget {name}, {dollars(which.limit):f} USD, has "
        f"{dollars(exceeded.left):f} USD left, and the call may cost "
        f"{dollars(exceeded.needed):f} USD ({bounded_by} bounds that); {when}"
    )
    headers = {BUDGET_HEADER: f"{which.scope}/{which.period}", "x-should-retry": "false"}
    if resets:
        headers["Retry-After"] = str(int((resets - now).total_seconds()) + 1)
    return Problem(429, detail, code=NO_QUOTA, headers=headers)
