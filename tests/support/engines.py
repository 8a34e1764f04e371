"""Requests for an engine with the tiny model, and waits for what it holds."""

import asyncio

import torch

from inference_svc.engine import Engine, GenerationRequest
from inference_svc.model import LanguageModel


def greedy(prompt: list[int], new: int = 12, stop: tuple[str, ...] = ()) -> GenerationRequest:
    return GenerationRequest(prompt, new, 0.0, stop)


def reference(language_model: LanguageModel, prompt: list[int], new: int) -> list[int]:
    """What plain `generate` gives, as token ids after the prompt."""
    output = language_model.model.generate(
        torch.tensor([prompt]), max_new_tokens=new, do_sample=False
    )
    return list(output[0, len(prompt) :].tolist())


async def idle(engine: Engine, callers: int = 0) -> None:
    """Returns once the engine holds no request; fails when it doesn't get there."""
    async with asyncio.timeout(10):
        while True:
            processor = engine.manager.batch_processor
            if processor is not None and not processor.has_pending_requests():
                assert engine.admission.inside == callers
                assert engine.running + engine.waiting == callers
                return
            await asyncio.sleep(0.01)


async def queued(engine: Engine, sequences: int) -> None:
    """Returns once so many sequences are with the engine."""
    async with asyncio.timeout(10):
        while True:
            if engine.running + engine.waiting == sequences:
                return
            await asyncio.sleep(0)
