"""Bounds of the engine: those in the settings, or else those that suit the device."""

import math
from typing import Any

import torch
from transformers.generation.continuous_batching.utils import (
    find_head_dim,
    find_num_key_value_heads,
)

from inference_svc.engine import PAGE_SIZE, EngineLimits
from inference_svc.model import LanguageModel
from inference_svc.settings import Settings

REQUESTS = {"cpu": 32, "mps": 64, "cuda": 256}
"""Sequences in a batch, by kind of device."""

BATCH_TOKENS = {"cpu": 512, "mps": 1024, "cuda": 2048}
BLOCKS = {"cpu": 128, "mps": 256}

SHARE = 0.5
"""Largest share of the cache in the CUDA memory that is free when the model is loaded."""


def limits(settings: Settings, language_model: LanguageModel) -> EngineLimits:
    """The bounds of the engine. The cache takes one sequence of full length at least, and on CUDA
    no more than a full batch of them needs.
    """
    kind = torch.device(language_model.device).type
    requests = settings.engine_max_requests or REQUESTS[kind]
    tokens = settings.engine_max_batch_tokens or BATCH_TOKENS[kind]
    longest = math.ceil(min(language_model.window, settings.engine_max_context) / PAGE_SIZE) + 1
    blocks = settings.engine_cache_blocks
    if blocks is None and kind == "cuda":
        free, _ = torch.cuda.mem_get_info(language_model.device)
        cost = block_bytes(language_model.model.config.get_text_config(), tokens)
        blocks = max(longest, min(requests * longest, int(free * SHARE / cost)))
    return EngineLimits(
        max_context=settings.engine_max_context,
        max_requests=requests,
        max_batch_tokens=tokens,
        cache_blocks=blocks or max(longest, BLOCKS[kind]),
        max_waiting=settings.engine_max_waiting,
        stall_seconds=settings.engine_stall_seconds,
    )


def block_bytes(config: Any, batch_tokens: int, itemsize: int = 2) -> int:
    """Bytes that a block of the cache costs: keys and values of PAGE_SIZE tokens in all layers,
    their copies for one layer's attention, and their columns of two attention masks.
    """
    head, pairs = find_head_dim(config), find_num_key_value_heads(config)
    stored = config.num_hidden_layers * 2 * pairs * head
    read = (2 * config.num_attention_heads + pairs) * head
    return int(PAGE_SIZE * itemsize * (stored + read + 2 * batch_tokens))
