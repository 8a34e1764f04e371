"""NVML as a machine with certain GPUs would have it, with pynvml's own errors."""

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pynvml import (
    NVML_ERROR_FUNCTION_NOT_FOUND,
    NVML_ERROR_LIBRARY_NOT_FOUND,
    NVML_ERROR_NOT_FOUND,
    NVML_ERROR_NOT_SUPPORTED,
    NVMLError,
)

GIB = 2**30
FIRST = "11111111-0000-0000-0000-000000000000"
SECOND = "22222222-0000-0000-0000-000000000000"
PART = "33333333-0000-0000-0000-000000000000"


@dataclass
class FakeGpu:
    """What one GPU answers; `refuses` has the error for each function that gives none."""

    id: str
    name: str = "NVIDIA L4"
    parent: "FakeGpu | None" = None
    used: int = 3 * GIB
    total: int = 24 * GIB
    utilization: int = 40
    millijoules: int = 9_000_500
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    refuses: dict[str, int] = field(default_factory=dict)
    lost: int | None = None


def part_of(parent: FakeGpu) -> FakeGpu:
    """An instance as MIG makes it: with memory of its own, without utilization, heat and power."""
    none = (
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption",
    )
    return FakeGpu(
        f"MIG-{PART}",
        f"{parent.name} MIG 1g.5gb",
        parent,
        used=GIB,
        total=5 * GIB,
        refuses=dict.fromkeys(none, NVML_ERROR_NOT_SUPPORTED),
    )


class FakeNvml:
    """Implements `inference_svc.gpu.Nvml`; `open` counts inits without a shutdown."""

    def __init__(self, *gpus: FakeGpu, library: bool = True) -> None:
        self.gpus = {gpu.id: gpu for gpu in gpus}
        self.library = library
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.library:
            raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        if uuid not in self.gpus:
            raise NVMLError(NVML_ERROR_NOT_FOUND)
        return self.gpus[uuid]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: FakeGpu) -> FakeGpu:
        assert migDevice.parent
        return migDevice.parent

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:
        return handle.id

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> Any:
        self._ask(handle, "nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=handle.used, total=handle.total)

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> Any:
        self._ask(handle, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=handle.utilization, memory=7)

    def nvmlDeviceGetTemperatureV(self, handle: FakeGpu, sensor: int) -> int:
        self._ask(handle, "nvmlDeviceGetTemperatureV")
        return 61

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:
        self._ask(handle, "nvmlDeviceGetTemperature")
        return 62

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:
        self._ask(handle, "nvmlDeviceGetPowerUsage")
        return 71_500

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        self._ask(handle, "nvmlDeviceGetEnforcedPowerLimit")
        return 72_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:
        self._ask(handle, "nvmlDeviceGetTotalEnergyConsumption")
        return handle.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[Any]:
        self._ask(handle, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in handle.processes]

    def _ask(self, gpu: FakeGpu, function: str) -> None:
        if gpu.lost is not None:
            raise NVMLError(gpu.lost)
        if function in gpu.refuses:
            raise NVMLError(gpu.refuses[function])


def old_driver(gpu: FakeGpu) -> FakeGpu:
    """One whose driver has only the older way to ask for the temperature."""
    gpu.refuses["nvmlDeviceGetTemperatureV"] = NVML_ERROR_FUNCTION_NOT_FOUND
    return gpu


def mine(used: int | None) -> list[tuple[int, int | None]]:
    """The processes of a GPU, this one among them."""
    return [(1, GIB), (os.getpid(), used)]
