"""One call to the gateway, what was expected of it, and what came of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import BaseModel

from gateway.contracts import ChatAnswer, EmbedAnswer, PipelineAnswer, SearchAnswer
from o11y.contracts import LocalInferenceAnswer, Usage
from o11y.web.problems import TRACE_HEADER


@dataclass(frozen=True)
class Reading:
    """The reading of an answer, and a sentence for each thing that is not as it should be."""

    failures: list[str]
    answer: BaseModel | None = None


Judge = Callable[[httpx2.Response], Reading]


@dataclass(frozen=True)
class Call:
    """One request; `judge` looks at its response."""

    path: str
    judge: Judge
    json: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    content: bytes | None = None
    method: str = "POST"


@dataclass(frozen=True)
class Outcome:
    """A call that is over; the cost is None when the price isn't known."""

    call: Call
    seconds: float
    failures: list[str]
    trace_id: str | None = None
    answer: BaseModel | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0


async def send(http: httpx2.AsyncClient, gateway_url: str, call: Call) -> Outcome:
    """Make the call; whatever goes wrong is among the outcome's failures."""
    started = time.perf_counter()
    headers = None if call.content is None else {"content-type": "application/json"}
    try:
        response = await http.request(
            call.method,
            gateway_url + call.path,
            json=call.json,
            params=call.params,
            content=call.content,
            headers=headers,
        )
    except httpx2.HTTPError as error:
        reason = f"no answer came ({error or type(error).__name__})"
        return Outcome(call, time.perf_counter() - started, [reason])
    seconds = time.perf_counter() - started
    verdict = call.judge(response)
    usages, cost = spent(verdict.answer)
    return Outcome(
        call,
        seconds,
        verdict.failures,
        response.headers.get(TRACE_HEADER),
        verdict.answer,
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        cost,
    )


def spent(answer: BaseModel | None) -> tuple[list[Usage], float | None]:
    """The tokens an answer accounts for and what it cost in US dollars."""
    match answer:
        case ChatAnswer() | EmbedAnswer():
            return [answer.metadata.usage], answer.metadata.cost_usd
        case LocalInferenceAnswer():
            return [answer.metadata.usage], 0.0
        case SearchAnswer():
            return [], answer.metadata.query_embedding_cost_usd
        case PipelineAnswer(results=results):
            parts = (results.openai_response, results.embeddings, results.local_model_response)
            return [part.metadata.usage for part in parts if part], answer.summary.total_cost_usd
    return [], 0.0
