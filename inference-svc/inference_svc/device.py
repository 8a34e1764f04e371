"""The device that models run on (CUDA, else Apple MPS, else the CPU) and their number format."""

from dataclasses import dataclass
from typing import Literal

import torch

from o11y.web.service import StartError

DType = Literal["bfloat16", "float16", "float32"]
"""The number formats a model can be loaded in."""


@dataclass(frozen=True)
class Device:
    """A torch device (`cuda:0`, `mps`, `cpu`) and the dtype models are loaded in there."""

    name: str
    dtype: torch.dtype


def choose(use_gpu: bool, gpu_device_id: int, dtype: DType | None = None) -> Device:
    """Choose the best device, with the number format `dtype` or else the fastest it has.

    Without an accelerator `use_gpu` falls back to the CPU. Raises StartError for a CUDA GPU number
    that doesn't exist, since the person meant a certain card.
    """
    if use_gpu and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if gpu_device_id >= count:
            raise StartError(f"GPU_DEVICE_ID={gpu_device_id}: this machine has {count} GPU(s)")
        bfloat = torch.cuda.is_bf16_supported(including_emulation=False)
        name, fastest = f"cuda:{gpu_device_id}", torch.bfloat16 if bfloat else torch.float16
    elif use_gpu and torch.backends.mps.is_available():
        name, fastest = "mps", torch.float16
    else:
        bfloat = torch.cpu.get_capabilities().get("avx512_bf16", False)
        name, fastest = "cpu", torch.bfloat16 if bfloat else torch.float32
    return Device(name, getattr(torch, dtype) if dtype else fastest)
