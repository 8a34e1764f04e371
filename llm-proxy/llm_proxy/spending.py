"""The money of attempts: reserved before one is sent, settled after it, and written down."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from secrets import token_hex

from opentelemetry import trace
from opentelemetry.metrics import Observation

from accounting import budget
from accounting.accounts import BudgetExceeded, Reservation, StoreUnavailable
from accounting.budget import Budget
from accounting.ledger import Ledger
from accounting.money import dollars, picodollars
from accounting.records import INTERRUPTED, OK, Begun, Row
from llm_proxy.bound import most_usd
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.tokens import Tokens, guess
from o11y.contracts import BUDGET_HEADER
from o11y.telemetry import identity, schema
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import NO_QUOTA, Problem, unavailable

MAX_MODELS = 1000


class Spending:
    """Lets attempts spend, within the budgets of the caller's key and tenant.

    Without a ledger nothing is written down, and calls with budgets are refused. With `passes`, a
    call whose price isn't known may be made where a budget holds.
    """

    def __init__(self, ledger: Ledger | None, telemetry: Telemetry, *, passes: bool) -> None:
        self._ledger = ledger
        self._passes = passes
        self._answered: dict[tuple[str, str], str] = {}
        """The model that answered last, by provider and the model that was asked for."""
        self._refused = telemetry.counter(schema.ADMISSION_REFUSED)
        if ledger:
            _observe(ledger, telemetry)

    async def begin(self, request: Request, provider: Provider, model: str) -> "Charge":
        """Reserve the most that an attempt can cost, and write down that it begins.

        Raises Problem: 429 `insufficient_quota` for a budget that hasn't got that much, 422 for a
        price that isn't known, 503 where budgets can't be checked.
        """
        budgets = budget.current()
        if self._ledger is None:
            if budgets:
                raise unavailable("budgets need DATABASE_URL at llm-proxy")
            return Charge()
        reservation = None
        if budgets:
            reservation = await self._reserve(self._ledger, budgets, request, provider, model)
        begun = _begun(request, provider, model)
        try:
            self._ledger.begin(begun)
        except OSError as error:
            if reservation:
                reservation.settle(0)
            raise unavailable("the ledger can't be written") from error
        return Charge(self, self._ledger, begun, reservation)

    def learn(self, provider: str, model: str, answered: str) -> None:
        """Note which model answers where one is asked for: its price is what counts."""
        if len(self._answered) >= MAX_MODELS:  # names come from callers
            self._answered.clear()
        self._answered[provider, model] = answered

    async def _reserve(
        self,
        ledger: Ledger,
        budgets: tuple[Budget, ...],
        request: Request,
        provider: Provider,
        model: str,
    ) -> Reservation:
        answered = self._answered.get((provider.name, model), model)
        known = [most_usd(request, provider, each) for each in {model, answered}]
        most = max((usd for usd in known if usd is not None), default=None)
        if most is None and not self._passes:
            self._refused.add(1, {schema.LABEL_REASON: "unknown_price"})
            detail = f"model: no price is known for it at {provider.name}, and a budget holds"
            raise Problem(422, detail, code="unknown_price", field="model")
        try:
            return await ledger.accounts.reserve(budgets, picodollars(most or Decimal(0)))
        except BudgetExceeded as exceeded:
            self._refused.add(1, {schema.LABEL_REASON: "budget"})
            raise _refusal(exceeded) from None
        except StoreUnavailable as error:
            raise unavailable("budgets can't be checked: the database is away") from error


def _observe(ledger: Ledger, telemetry: Telemetry) -> None:
    telemetry.observable_gauge(schema.LEDGER_QUEUE, lambda: [Observation(ledger.waiting)])
    telemetry.observable_gauge(schema.LEDGER_LAG, lambda: [Observation(ledger.lag_seconds)])
    telemetry.observable_counter(schema.LEDGER_RECOVERED, lambda: [Observation(ledger.recovered)])


class Charge:
    """The charge of one attempt; it ends once, by `settle`."""

    def __init__(
        self,
        spending: Spending | None = None,
        ledger: Ledger | None = None,
        begun: Begun | None = None,
        reservation: Reservation | None = None,
    ) -> None:
        self._spending = spending
        self._ledger = ledger
        self._begun = begun
        self._reservation = reservation

    def settle(
        self,
        tokens: Tokens | None,
        usd: Decimal | None,
        response_model: str | None,
        error: str | None,
    ) -> None:
        """Charge what the provider bills: nothing where `tokens` is None; `usd` is None where no
        price is known.
        """
        ledger, begun = self._ledger, self._begun
        if ledger is None or begun is None:
            return
        cost = None if usd is None else picodollars(usd)
        if self._reservation:
            self._reservation.settle(cost or 0 if tokens else 0)
        if tokens is None:
            ledger.void(begun.id)
        else:
            ledger.end(_row(begun, tokens, cost, response_model, error or OK))
        if self._spending and response_model and response_model != begun.model:
            self._spending.learn(begun.provider, begun.model, response_model)


def estimate(providers: Iterable[Provider], begun: Begun, typical: int | None) -> Row:
    """The row of a call that ended with its process. Nobody knows how much was answered: as much as
    the model's answers have on average (`typical`), as far as anything is known of it.
    """
    asked = begun.max_output_tokens
    output = typical if typical is not None else asked or 0
    output = output if asked is None else min(output, asked)
    tokens = Tokens(begun.input_tokens, output, estimated=True)
    cost = None
    for provider in providers:
        if provider.name == begun.provider:
            usd = provider.prices.cost_usd(begun.model, tokens, None)
            usd = Decimal(0) if provider.is_free else usd
            cost = None if usd is None else picodollars(usd)
    return _row(begun, tokens, cost, None, INTERRUPTED)


def _begun(request: Request, provider: Provider, model: str) -> Begun:
    who = identity.attributes()
    trace_id = trace.get_current_span().get_span_context().trace_id
    return Begun(
        token_hex(16),
        time.time(),
        request.operation.name,
        provider.name,
        model,
        guess(request.input_bytes, 0).input,
        request.max_tokens,
        who.get(schema.TENANT_ID),
        who.get(schema.KEY_ID),
        who.get(schema.USER_ID),
        format(trace_id, "032x") if trace_id else None,
    )


def _row(
    begun: Begun,
    tokens: Tokens,
    cost: int | None,
    response_model: str | None,
    status: str,
) -> Row:
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
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cached_tokens=tokens.cached,
        cache_write_tokens=tokens.cache_write,
        reasoning_tokens=tokens.reasoning,
        input_audio_tokens=tokens.input_audio,
        output_audio_tokens=tokens.output_audio,
        cost=cost,
        estimated=tokens.estimated,
        status=status,
    )


def _refusal(exceeded: BudgetExceeded) -> Problem:
    """429 as OpenAI has it; the gateway makes it 402 on its own routes."""
    which, now = exceeded.budget, datetime.now(UTC)
    resets = budget.resets_at(which.period, now)
    when = f"it is filled again at {resets:%Y-%m-%dT%H:%M:%SZ}" if resets else "it is never filled"
    name = "in all" if which.period == "total" else f"of a {which.period}"
    detail = (
        f"the {which.scope}'s budget {name}, {dollars(which.limit):f} USD, has "
        f"{dollars(exceeded.left):f} USD left, and the call may cost "
        f"{dollars(exceeded.needed):f} USD (max_tokens bounds that); {when}"
    )
    headers = {BUDGET_HEADER: f"{which.scope}/{which.period}", "x-should-retry": "false"}
    if resets:
        headers["Retry-After"] = str(int((resets - now).total_seconds()) + 1)
    return Problem(429, detail, code=NO_QUOTA, headers=headers)
