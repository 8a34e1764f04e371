"""The money of attempts: reserved before one is sent, settled after it, and written down."""

from collections.abc import Iterable
from decimal import Decimal

from accounting import budget, charges
from accounting.charges import Charges
from accounting.ledger import Ledger
from accounting.money import picodollars
from accounting.posting import Typical
from accounting.records import INTERRUPTED, OK, Begun, Row
from llm_proxy.bound import most_usd
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.tokens import Tokens, expected_output, guess
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem, unavailable

MAX_MODELS = 1000


class Spending:
    """Lets attempts spend, within the budgets of the caller's key and tenant.

    Without a ledger nothing is written down, and calls with budgets are refused. With `passes`, a
    call whose price isn't known may be made where a budget holds. What the local service does is
    charged there.
    """

    def __init__(self, ledger: Ledger | None, telemetry: Telemetry, *, passes: bool) -> None:
        self._charges = Charges(ledger, telemetry, "max_tokens") if ledger else None
        self._passes = passes
        self._answered: dict[tuple[str, str], str] = {}
        """The model that answered last, by provider and the model that was asked for."""

    async def begin(self, request: Request, provider: Provider, model: str) -> "Charge":
        """Reserve the most that an attempt can cost, and write down that it begins.

        Raises Problem: 429 `insufficient_quota` for a budget that hasn't got that much, 422 for a
        price that isn't known, 503 where budgets can't be checked.
        """
        if provider.charges:
            return Charge()
        is_limited = bool(budget.current())
        if self._charges is None:
            if is_limited:
                raise unavailable("budgets need DATABASE_URL at llm-proxy")
            return Charge()
        most = self._most(self._charges, request, provider, model) if is_limited else 0
        sent = guess(request.input_bytes, 0).input
        operation = request.operation.name
        most_output = None if request.max_tokens is None else request.max_tokens * request.answers
        begun = charges.begun(operation, provider.name, model, sent, most_output)
        return Charge(self, await self._charges.begin(begun, most))

    def learn(self, provider: str, model: str, answered: str) -> None:
        """Note which model answers where one is asked for: its price is what counts."""
        if len(self._answered) >= MAX_MODELS:  # names come from callers
            self._answered.clear()
        self._answered[provider, model] = answered

    def _most(self, charges: Charges, request: Request, provider: Provider, model: str) -> int:
        """Picodollars."""
        answered = self._answered.get((provider.name, model), model)
        known = [most_usd(request, provider, each) for each in {model, answered}]
        most = max((usd for usd in known if usd is not None), default=None)
        if most is None and not self._passes:
            detail = f"model: no price is known for it at {provider.name}, and a budget holds"
            unknown = Problem(422, detail, code="unknown_price", field="model")
            raise charges.refusal("unknown_price", unknown)
        return picodollars(most or Decimal(0))


class Charge:
    """The charge of one attempt, if it has any here; it ends once, by `settle`."""

    def __init__(
        self, spending: Spending | None = None, charge: charges.Charge | None = None
    ) -> None:
        self._spending = spending
        self._charge = charge

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
        if self._spending is None or self._charge is None:
            return
        begun = self._charge.begun
        if tokens is None:
            self._charge.void()
        else:
            self._charge.settle(_row(begun, tokens, usd, response_model, error or OK))
        if response_model and response_model != begun.model:
            self._spending.learn(begun.provider, begun.model, response_model)


def estimate(providers: Iterable[Provider], begun: Begun, typical: Typical) -> Row:
    """The row of a call that ended with its process. Nobody knows how much was answered: as much as
    the model's answers have on average, as far as anything is known of it.
    """
    output = expected_output(typical.output_tokens, begun.max_output_tokens)
    tokens = Tokens(begun.input_tokens, output, estimated=True)
    usd = None
    for provider in providers:
        if provider.name == begun.provider:
            usd = provider.prices.cost_usd(begun.model, tokens, None)
    return _row(begun, tokens, usd, None, INTERRUPTED)


def _row(
    begun: Begun, tokens: Tokens, usd: Decimal | None, response_model: str | None, status: str
) -> Row:
    return charges.row(
        begun,
        None if usd is None else picodollars(usd),
        {
            "input_tokens": tokens.input,
            "output_tokens": tokens.output,
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
            "reasoning_tokens": tokens.reasoning,
            "input_audio_tokens": tokens.input_audio,
            "output_audio_tokens": tokens.output_audio,
        },
        response_model=response_model,
        estimated=tokens.estimated,
        status=status,
    )
