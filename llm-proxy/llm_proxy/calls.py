"""A call to a model: its attempts at the providers, one after the other, until one answers."""

import asyncio
import logging
from collections.abc import Iterable

from opentelemetry.metrics import Observation

from llm_proxy import admission, backoff
from llm_proxy.admission import NOT_SENT, Place
from llm_proxy.attempt import Attempt
from llm_proxy.failures import AttemptFailed, CallRejected, client_error, reason, refusal
from llm_proxy.inference import Inference
from llm_proxy.meters import Meters
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.routing import Candidate, Routing
from llm_proxy.sending import Sending, WholeResponse
from llm_proxy.spending import Charge, Spending
from llm_proxy.stream import Stream
from o11y.http import deadline
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem, out_of_time

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""Longest wait for a provider that asks to be left alone while another one could answer."""

LAST_PATIENCE_SECONDS = 30.0
"""Longest Retry-After honoured at the last provider; beyond it the 429 goes to the caller."""


class Calls:
    """Makes calls and tells telemetry of every attempt."""

    def __init__(
        self,
        routing: Routing,
        telemetry: Telemetry,
        spending: Spending,
        times_chunks: bool = False,
    ) -> None:
        self.routing = routing
        self._spending = spending
        self.meters = Meters(telemetry, routing.providers, times_chunks)
        self._retries = telemetry.counter(schema.OPENAI_RETRIES)
        self._fallbacks = telemetry.counter(schema.OPENAI_FALLBACKS)
        telemetry.observable_gauge(schema.OPENAI_CIRCUIT, self._observe_circuits)

    async def make(self, request: Request) -> WholeResponse | Stream:
        """The answer of the first provider that has one.

        Raises CallRejected when the call itself is wrong, as the first provider that reads it says,
        or every provider is too busy, and a Problem when none could answer.
        """
        candidates = await self.routing.candidates(request)
        inference = Inference(self.meters, request, *candidates[0])
        failures: list[AttemptFailed] = []
        provider, _ = candidates[0]
        try:
            for at, candidate in enumerate(candidates):
                if at:
                    self._fall_back(provider, candidate[0], failures[-1])
                provider, _ = candidate
                is_last = at + 1 == len(candidates)
                try:
                    answer = await self._ask(
                        candidate, request, inference, failures, is_last=is_last
                    )
                except CallRejected as rejected:
                    if all(failure.provider == provider.title for failure in failures):
                        raise
                    # one that was asked before might have taken it: the caller is told of that
                    failures.insert(0, refusal(provider.title, rejected))
                    continue
                if answer is not None:
                    return answer
            raise client_error(failures)
        except BaseException as error:
            if isinstance(error, CallRejected):
                error.provider = provider.name
            no_answer = isinstance(error, Problem) and failures
            inference.fail(failures[-1].error if no_answer else reason(error), str(error))
            inference.end()
            raise

    async def _ask(
        self,
        candidate: Candidate,
        request: Request,
        inference: Inference,
        failures: list[AttemptFailed],
        *,
        is_last: bool,
    ) -> WholeResponse | Stream | None:
        """Ask one provider, several times if need be; `is_last` where no other follows in the list.

        None when it has no answer: `failures` are told why.
        """
        provider, model = candidate
        inference.asks(provider, model)
        resends = 0
        while True:
            if deadline.remaining() == 0:
                late = out_of_time(f"no time left to call {provider.title}")
                raise client_error(failures) if failures else late
            try:
                place = await admission.admit(provider, is_last=is_last)
                charge = await self._charge(request, provider, model, place)
                attempt = Attempt(self.meters, inference, request, provider, model, charge)
                sending = Sending(request, attempt, place)
                return await sending.answer(_first_byte_seconds(provider, is_last), resends)
            except AttemptFailed as failure:
                failures.append(failure)
                if not failure.again or resends == provider.settings.retries:
                    return None
                wait = backoff.wait(resends, failure.headers)
                patience = LAST_PATIENCE_SECONDS if is_last else PATIENCE_SECONDS
                left = deadline.remaining()
                if (left is not None and wait >= left) or wait > patience:
                    return None
                await asyncio.sleep(wait)
                self._count_retry(provider, failure)
                resends += 1

    async def _charge(
        self, request: Request, provider: Provider, model: str, place: Place
    ) -> Charge:
        """The charge of an attempt that may be sent; its place is left when it may not."""
        try:
            return await self._spending.begin(request, provider, model)
        except BaseException:
            place.leave(NOT_SENT)
            raise

    def _fall_back(self, provider: Provider, following: Provider, failure: AttemptFailed) -> None:
        logger.warning("%s; trying %s", failure.detail, following.name)
        self._fallbacks.add(
            1,
            {
                schema.LABEL_PROVIDER: provider.name,
                schema.LABEL_NEXT: following.name,
                schema.LABEL_REASON: failure.error,
            },
        )

    def _count_retry(self, provider: Provider, failure: AttemptFailed) -> None:
        self._retries.add(
            1, {schema.LABEL_PROVIDER: provider.name, schema.LABEL_REASON: failure.error}
        )

    def _observe_circuits(self) -> Iterable[Observation]:
        for provider in self.routing.providers:
            yield Observation(provider.breaker.state, {schema.LABEL_PROVIDER: provider.name})


def _first_byte_seconds(provider: Provider, is_last: bool) -> float:
    """Longest wait for the head of an answer: at most half of the time that is left, where another
    provider may be asked.
    """
    seconds = deadline.limit(provider.settings.first_byte_seconds)
    left = None if is_last else deadline.remaining()
    return seconds if left is None else min(seconds, left / 2)
