"""The service's own calls: /local-inference, /health, /stats."""

import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from fastapi import APIRouter

from inference_svc.embedder import Embedder
from inference_svc.engine import GenerationRequest
from inference_svc.generation import Generator
from inference_svc.gpu import Gpus
from inference_svc.prompt import Prompts
from inference_svc.running import Running
from o11y.contracts import LocalInferenceAnswer, LocalInferenceRequest, ServiceHealth
from o11y.http import deadline
from o11y.web import problems
from o11y.web.events import EventStream, Last, LastError, event
from o11y.web.openapi import EVENT_STREAM, errors
from o11y.web.problems import Problem, details


async def _events(running: Running) -> AsyncGenerator[bytes, None]:
    """Text as it comes, at last an event `metadata`, or `error` with a problem."""
    try:
        async for index, text in running.pieces():
            yield event({"index": index, "text": text})
    except Problem as problem:
        problems.report(problem)
        yield LastError(event(details(problem), "error"))
        return
    outcome = running.outcome
    reasons = [generation.finish_reason for generation in outcome.generations]
    summary = {**outcome.metadata.model_dump(), "finish_reasons": reasons}
    yield Last(event(summary, "metadata"))


def router(
    generator: Generator,
    embedder: Embedder,
    prompts: Prompts,
    gpus: Gpus,
    stream_timeout_seconds: float,
) -> APIRouter:
    api = APIRouter(responses=errors(400, 429))
    engine = generator.engine
    model = engine.language_model
    started = time.monotonic()

    @api.post(
        "/local-inference",
        response_model=LocalInferenceAnswer,
        tags=["generation"],
        responses=EVENT_STREAM,
    )
    async def local_inference(
        body: LocalInferenceRequest,
    ) -> LocalInferenceAnswer | EventStream:
        request = GenerationRequest(
            prompt_ids=await prompts.text(body.prompt),
            max_new_tokens=body.max_length,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            seed=body.seed,
        )
        requests = request.choices(body.num_sequences)
        run = partial(generator.run, "text_completion", requests, turns=[("user", body.prompt)])
        if body.stream:
            deadline.stream(stream_timeout_seconds)
            running = Running(run)
            await running.begin()
            return EventStream(_events(running), running.close)
        outcome = await run()
        texts = [generation.text for generation in outcome.generations]
        return LocalInferenceAnswer(generated_texts=texts, metadata=outcome.metadata)

    def load() -> dict[str, Any]:
        return {
            "running": engine.running,
            "waiting": engine.waiting,
            "cache_used": round(engine.cache_used / engine.cache_blocks, 4),
        }

    @api.get(
        "/health",
        tags=["operations"],
        response_model=ServiceHealth,
        response_model_exclude_unset=True,
    )
    async def health() -> dict[str, Any]:
        failure = engine.failure()
        return {
            "status": "unavailable" if failure else "available",
            **({"reason": failure} if failure else {}),
            "model_name": model.name,
            "embedding_model": embedder.name,
            "device": model.device,
            **load(),
        }

    @api.get("/stats", tags=["operations"])
    async def stats() -> dict[str, Any]:
        return {
            "model_name": model.name,
            "embedding_model": embedder.name,
            "device": model.device,
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "parameters": model.parameters,
            "context_window": engine.window,
            **load(),
            "uptime_seconds": time.monotonic() - started,
            **({"gpu": gpu} if (gpu := gpus.stats()) else {}),
        }

    return api
