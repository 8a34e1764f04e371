"""One attempt of a call to a model, at one provider: what it is billed.

Its span is the HTTP client's. It is told there, and counted, once, however the attempt ends.
"""

from decimal import Decimal

import httpx2
from msgspec.structs import replace

from llm_proxy.answers import ResponseInfo
from llm_proxy.inference import Inference
from llm_proxy.meters import Attributes, Meters
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.spending import Charge
from llm_proxy.tokens import Tokens, expected_output, guess
from o11y.http import attempts
from o11y.http.attempts import Call
from o11y.telemetry import identity, schema


class Attempt:
    """Begins before its request is sent and ends once, whoever ends it."""

    def __init__(
        self,
        meters: Meters,
        inference: Inference,
        request: Request,
        provider: Provider,
        model: str,
        charge: Charge,
    ) -> None:
        self.inference = inference
        inference.attempts += 1
        self._meters = meters
        self._request = request
        self.provider = provider
        self.model = model
        self._charge = charge
        self._tenant = identity.tenant()
        self._call: Call | None = None
        self._status: int | None = None
        self._number = inference.attempts
        self._ended = False
        self.has_arrived = False
        """True once an event of a stream has come."""
        self.answer = inference.listener()
        meters.running[provider.name] += 1

    def call(self, seconds: float) -> Call:
        """The call as the HTTP client knows it, with the seconds that its head may take."""
        provider = self.provider
        self._call = Call(
            path=provider.path(self._request.operation.path),
            url=provider.shown_url(self._request.operation.path),
            seconds=seconds,
            idle_seconds=provider.settings.idle_seconds,
            attributes={
                schema.PROVIDER: provider.kind,
                schema.LLM_PROVIDER: provider.name,
                schema.REQUEST_MODEL: self.model,
                schema.LLM_ATTEMPT: self._number,
            },
            labels={schema.LABEL_PROVIDER: provider.name},
            internal=provider.is_local,
            billed=True,
        )
        return self._call

    def answered(self, response: httpx2.Response) -> None:
        """The head of a response has come."""
        self._status = response.status_code

    @property
    def _http(self) -> attempts.Attempt | None:
        return self._call.last if self._call else None

    @property
    def accepted(self) -> bool:
        """The provider took the call and began its answer."""
        return self._status == 200

    def arrived(self) -> None:
        """Events of a stream have come."""
        self.has_arrived = True
        self.inference.arrivals.append(self.inference.elapsed())

    def complete(self, seconds: float) -> None:
        """The answer is complete. The end of the HTTP response is still waited for, so many seconds
        at most, and an error in it counts no more.
        """
        if self._http:
            self._http.end()
            self._http.idle_seconds = seconds

    @property
    def unanswered(self) -> Tokens | None:
        """The tokens of an attempt that was sent, and whose answer nobody waited for: a provider
        bills the prompt, and an answer that it writes whole whoever is there to read it.
        """
        if self.provider.charges:
            return None
        request = self._request
        tokens = guess(request.input_bytes, 0)
        if not request.operation.generates or request.stream:
            return tokens
        typical = self.provider.typical.of(request.operation.name, self.model)
        choice = expected_output(typical, request.max_tokens)
        return replace(tokens, output=choice * request.answers)

    def end(self, info: ResponseInfo, tokens: Tokens | None, error: str | None = None) -> None:
        """`tokens` is what is billed, None when nothing is; `error` the `error.type`."""
        if self._ended:
            return
        self._ended = True
        self._meters.running[self.provider.name] -= 1
        self.inference.hears(info)
        billed: Attributes = {}
        usd = None
        if tokens:
            if not tokens.estimated:
                request = self._request
                choice = tokens.output / request.answers
                self.provider.typical.learn(request.operation.name, self.model, choice)
            usd, source = self._price(info, tokens)
            billed = self._bill(info, tokens, usd, source)
        self._charge.settle(tokens, usd, info.model, error)
        if self._http:
            self._http.settle(billed, error)

    def _bill(
        self, info: ResponseInfo, tokens: Tokens, usd: Decimal | None, source: str
    ) -> Attributes:
        """Count the tokens and what they cost; the attributes that tell it."""
        context = self.inference.context
        bills = self._meters.bills(
            self._request,
            self.provider,
            self.model,
            info.model,
            tokens.estimated,
            self._tenant,
        )
        for total, count in zip(bills.tokens, tokens.by_type(), strict=True):
            if count:
                total.add(count)
        billed: Attributes = {schema.ATTEMPT_INPUT_TOKENS: tokens.input}
        if self.inference.generates:
            billed[schema.ATTEMPT_OUTPUT_TOKENS] = tokens.output
        if tokens.estimated:
            billed[schema.USAGE_ESTIMATED] = True
        if usd is None:
            bills.unpriced.add(1, context)
        else:
            billed[schema.ATTEMPT_COST_USD] = float(usd)
            bills.cost.add(float(usd), context)
        self.inference.bill(tokens, usd, source)
        return billed

    def _price(self, info: ResponseInfo, tokens: Tokens) -> tuple[Decimal | None, str]:
        """USD, None when the price isn't known; and where the price is from."""
        if self.provider.charges:
            if info.usd is not None:
                return info.usd, schema.COST_MACHINE
            return Decimal(0), schema.COST_FREE
        model, prices = info.model or self.model, self.provider.prices
        return prices.cost_usd(model, tokens, info.service_tier), prices.source(model)
