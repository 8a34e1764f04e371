"""Metrics of the GPU memory that PyTorch's allocator holds, on CUDA and Apple MPS.

States: `allocated` by tensors; `reserved` from the driver, which contains what is allocated; on MPS
also the `limit` that Metal recommends. The CPU has no such allocator.
"""

from collections.abc import Callable

import torch
from opentelemetry.metrics import Observation

from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry


def observe(device: str, telemetry: Telemetry) -> None:
    """Register the allocator's metrics for this device: `cuda:0`, `mps`; none for `cpu`."""
    if device.startswith("cuda"):
        _observe_cuda(device, telemetry)
    elif device == "mps":
        _observe_mps(device, telemetry)


def _observe_cuda(device: str, telemetry: Telemetry) -> None:
    """Register metrics read from `torch.cuda.memory_stats`, which is empty until CUDA is used."""
    states = {"allocated_bytes.all.current": "allocated", "reserved_bytes.all.current": "reserved"}

    def memory() -> list[Observation]:
        stats = torch.cuda.memory_stats(device)
        return [_point(stats[key], device, state) for key, state in states.items() if key in stats]

    def count(key: str) -> Callable[[], list[Observation]]:
        def read() -> list[Observation]:
            stats = torch.cuda.memory_stats(device)
            return [Observation(stats[key], {schema.LABEL_DEVICE: device})] if key in stats else []

        return read

    telemetry.observable_gauge(schema.TORCH_MEMORY, memory)
    telemetry.observable_counter(schema.TORCH_RETRIES, count("num_alloc_retries"))
    telemetry.observable_counter(schema.TORCH_OUT_OF_MEMORY, count("num_ooms"))


def _observe_mps(device: str, telemetry: Telemetry) -> None:
    telemetry.observable_gauge(
        schema.TORCH_MEMORY,
        lambda: [
            _point(torch.mps.current_allocated_memory(), device, "allocated"),
            _point(torch.mps.driver_allocated_memory(), device, "reserved"),
            _point(torch.mps.recommended_max_memory(), device, "limit"),
        ],
    )


def _point(value: int, device: str, state: str) -> Observation:
    return Observation(value, {schema.LABEL_DEVICE: device, schema.LABEL_STATE: state})
