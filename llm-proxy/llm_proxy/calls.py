"""A call to the provider under its GenAI span, with duration, tokens and cost counted."""

import time
from typing import Any

from opentelemetry.util.genai.invocation import EmbeddingInvocation, InferenceInvocation

from llm_proxy.pricing import Flavor
from llm_proxy.provider import Provider, Upstream
from o11y import schema
from o11y.telemetry import Telemetry


class Calls:
    """Runs calls and tells telemetry: one CLIENT span a call, ended when its answer is here."""

    def __init__(self, provider: Provider, telemetry: Telemetry) -> None:
        self.provider = provider
        self._genai = telemetry.genai
        self._duration = telemetry.histogram(schema.OPENAI_API_DURATION)
        self._cost = telemetry.counter(schema.OPENAI_COST)
        self._unpriced = telemetry.counter(schema.OPENAI_UNPRICED)
        self._tokens = telemetry.counter(schema.OPENAI_TOKENS)

    async def chat(self, body: dict[str, Any]) -> Upstream:
        return await self._inference("chat", "/chat/completions", body)

    async def complete(self, body: dict[str, Any]) -> Upstream:
        return await self._inference("text_completion", "/completions", body)

    async def embed(self, body: dict[str, Any]) -> Upstream:
        body = {**body, "model": body.get("model") or (await self.provider.models()).embedding}
        invocation = self._genai.embedding(
            self.provider.name,
            request_model=str(body["model"]),
            server_address=self.provider.address,
            server_port=self.provider.port,
        )
        return await self._run("embeddings", "/embeddings", body, "embeddings", invocation)

    async def _inference(self, operation: str, path: str, body: dict[str, Any]) -> Upstream:
        body = {**body, "model": body.get("model") or (await self.provider.models()).chat}
        invocation = self._genai.inference(
            self.provider.name,
            request_model=str(body["model"]),
            server_address=self.provider.address,
            server_port=self.provider.port,
            operation_name=operation,
        )
        invocation.temperature = _number(body.get("temperature"))
        asked = _number(body.get("max_completion_tokens") or body.get("max_tokens"))
        invocation.max_tokens = None if asked is None else int(asked)
        return await self._run(operation, path, body, "chat", invocation)

    async def _run(
        self,
        operation: str,
        path: str,
        body: dict[str, Any],
        flavor: Flavor,
        invocation: InferenceInvocation | EmbeddingInvocation,
    ) -> Upstream:
        labels = {
            schema.LABEL_PROVIDER: self.provider.name,
            schema.LABEL_MODEL: str(body["model"]),
            schema.LABEL_OPERATION: operation,
        }
        started = time.perf_counter()
        status = "error"
        with invocation:
            try:
                upstream = await self.provider.post(path, body, flavor)
                status = "ok"
            finally:
                seconds = time.perf_counter() - started
                self._duration.record(seconds, {**labels, schema.LABEL_STATUS: status})
            self._account(upstream, labels, invocation)
        return upstream

    def _account(
        self,
        upstream: Upstream,
        labels: dict[str, str],
        invocation: InferenceInvocation | EmbeddingInvocation,
    ) -> None:
        prompt, completion = _tokens(upstream.body)
        if upstream.replica:
            invocation.attributes[schema.SERVER_ADDRESS] = upstream.replica
        invocation.response_model_name = _text(upstream.body.get("model"))
        invocation.input_tokens = prompt
        invocation.attributes[schema.PROMPT_TOKENS_ORIGINAL] = prompt
        if isinstance(invocation, InferenceInvocation):
            invocation.output_tokens = completion
            invocation.response_id = _text(upstream.body.get("id"))
            choices = upstream.body.get("choices")
            invocation.finish_reasons = [
                str(choice.get("finish_reason"))
                for choice in (choices if isinstance(choices, list) else [])
                if isinstance(choice, dict)
            ]
            invocation.attributes[schema.COMPLETION_TOKENS_ORIGINAL] = completion
        by_model = {key: labels[key] for key in (schema.LABEL_PROVIDER, schema.LABEL_MODEL)}
        self._tokens.add(prompt, {**by_model, schema.LABEL_TYPE: "input"})
        if completion:
            self._tokens.add(completion, {**by_model, schema.LABEL_TYPE: "output"})
        if upstream.cost_usd is None:
            self._unpriced.add(1, labels)
        else:
            invocation.attributes[schema.COST_USD] = upstream.cost_usd
            self._cost.add(upstream.cost_usd, labels)


def _tokens(body: dict[str, Any]) -> tuple[int, int]:
    """Prompt and completion tokens of an answer's usage; 0 for what it doesn't say."""
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (
        _number(counts.get(f"{kind}_tokens")) for kind in ("prompt", "completion")
    )
    return int(prompt or 0), int(completion or 0)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None
