"""The service's own calls: /local-inference, /health, /stats."""

import time
from typing import Any

from fastapi import APIRouter

from inference_svc import prompt
from inference_svc.embedder import Embedder
from inference_svc.engine import GenerationRequest
from inference_svc.generation import Generator
from o11y.contracts import LocalInferenceAnswer, LocalInferenceRequest


def router(generator: Generator, embedder: Embedder) -> APIRouter:
    api = APIRouter()
    engine = generator.engine
    model = engine.language_model
    started = time.monotonic()

    @api.post("/local-inference")
    async def local_inference(body: LocalInferenceRequest) -> LocalInferenceAnswer:
        request = GenerationRequest(
            prompt_ids=prompt.encode(model.tokenizer, body.prompt),
            max_new_tokens=body.max_length,
            temperature=body.temperature,
        )
        outcome = await generator.run("text_completion", [request] * body.num_sequences)
        texts = [generation.text for generation in outcome.generations]
        return LocalInferenceAnswer(generated_texts=texts, metadata=outcome.metadata)

    @api.get("/health")
    async def health() -> dict[str, Any]:
        failure = engine.failure()
        return {
            "status": "unavailable" if failure else "available",
            **({"reason": failure} if failure else {}),
            "model_name": model.name,
            "embedding_model": embedder.name,
            "device": model.device,
        }

    @api.get("/stats")
    async def stats() -> dict[str, Any]:
        return {
            "model_name": model.name,
            "embedding_model": embedder.name,
            "device": model.device,
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "parameters": model.parameters,
            "context_window": engine.window,
            "uptime_seconds": time.monotonic() - started,
        }

    return api
