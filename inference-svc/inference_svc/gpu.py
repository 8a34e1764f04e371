"""The NVIDIA GPUs this process may use, as NVML sees them: memory, work, heat and power.

A value that a GPU doesn't report, or doesn't report any more, is absent. The values and the GPUs
that have them: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pynvml
import torch
from opentelemetry.metrics import Observation
from pynvml import NVMLError, NVMLError_FunctionNotFound, NVMLError_NotSupported

from inference_svc.machine import Machine, Meter
from o11y.telemetry import schema
from o11y.telemetry.schema import Metric
from o11y.telemetry.signals import Telemetry

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.5
STALE_SECONDS = 10.0
"""Age from which a sample is no longer reported: NVML can hang when a GPU fails."""

CLOSE_SECONDS = 1.0

SUMS = (schema.HW_GPU_MEMORY_USAGE, schema.HW_GPU_MEMORY_LIMIT)
TOTALS = (schema.HW_ENERGY,)
GAUGES = (
    schema.HW_GPU_MEMORY_UTILIZATION,
    schema.HW_GPU_UTILIZATION,
    schema.HW_TEMPERATURE,
    schema.HW_POWER,
    schema.GPU_MEMORY_USED,
    schema.GPU_MEMORY_TOTAL,
    schema.GPU_UTILIZATION,
    schema.GPU_TEMPERATURE,
    schema.GPU_POWER,
    schema.GPU_PROCESS_MEMORY,
)

Values = dict[Metric, float]


class Nvml(Protocol):
    """The part of `pynvml` in use here. A handle is NVML's own; every function raises NVMLError."""

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...
    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: Any) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetTemperatureV(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...


def visible(model_device: str) -> dict[str, str]:
    """PyTorch's name and the UUID of each GPU that CUDA_VISIBLE_DEVICES leaves to this process.

    Empty for a model that runs elsewhere: its process has no business with a GPU.
    """
    devices = range(torch.cuda.device_count()) if model_device.startswith("cuda") else ()
    return {f"cuda:{i}": str(torch.cuda.get_device_properties(i).uuid) for i in devices}


class Gpu:
    """One GPU, or a MIG instance of one, to be read. Raises NVMLError when NVML doesn't know it."""

    def __init__(self, nvml: Nvml, device: str, uuid: str, runs_model: bool) -> None:
        self._nvml = nvml
        self.runs_model = runs_model
        self._refused: set[str] = set()
        try:
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            self.id, parent = f"GPU-{uuid}", None
        except NVMLError:  # CUDA gives the UUID of the MIG instance it computes on
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
            whole = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self._handle)
            self.id, parent = f"MIG-{uuid}", nvml.nvmlDeviceGetUUID(whole)
        self.name = nvml.nvmlDeviceGetName(self._handle)
        hardware = {schema.HW_ID: self.id, schema.HW_NAME: self.name}
        self._own = {
            schema.LABEL_DEVICE: device,
            schema.LABEL_RUNS_MODEL: str(runs_model).lower(),
            **hardware,
        }
        self._semconv = {
            **hardware,
            schema.HW_TYPE: "gpu",
            schema.HW_VENDOR: "NVIDIA",
            **({schema.HW_PARENT: parent} if parent else {}),
        }

    def labels(self, metric: Metric) -> Mapping[str, str]:
        if metric is schema.HW_GPU_UTILIZATION:
            return {**self._semconv, schema.HW_GPU_TASK: "general"}
        return self._semconv if metric.name.startswith("hw.") else self._own

    def read(self) -> Values:
        """The values this GPU reports at this moment."""
        values: Values = {}
        for ask in (
            self._memory,
            self._utilization,
            self._temperature,
            self._power,
            self._energy,
            self._share,
        ):
            try:
                values |= ask()
            except NVMLError as error:
                self._log(f"{ask.__name__.strip('_')}: {error}", error)
        return values

    def most_watts(self) -> float | None:
        """The limit of its power; None where it isn't told."""
        try:
            return self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1000
        except NVMLError as error:
            self._log(f"power limit: {error}", error)
            return None

    def _log(self, refusal: str, error: NVMLError) -> None:
        """Log each refusal once: some GPUs never report some values."""
        if refusal not in self._refused:
            self._refused.add(refusal)
            usual = isinstance(error, NVMLError_NotSupported)
            log.log(logging.DEBUG if usual else logging.WARNING, "%s: no %s", self.id, refusal)

    def _memory(self) -> Values:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return {
            schema.HW_GPU_MEMORY_USAGE: memory.used,
            schema.HW_GPU_MEMORY_LIMIT: memory.total,
            schema.HW_GPU_MEMORY_UTILIZATION: memory.used / memory.total,
            schema.GPU_MEMORY_USED: memory.used,
            schema.GPU_MEMORY_TOTAL: memory.total,
        }

    def _utilization(self) -> Values:
        percent = self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu
        return {schema.HW_GPU_UTILIZATION: percent / 100, schema.GPU_UTILIZATION: percent}

    def _temperature(self) -> Values:
        sensor = pynvml.NVML_TEMPERATURE_GPU
        try:
            degrees = self._nvml.nvmlDeviceGetTemperatureV(self._handle, sensor)
        except NVMLError_FunctionNotFound:  # an older driver
            degrees = self._nvml.nvmlDeviceGetTemperature(self._handle, sensor)
        return {schema.HW_TEMPERATURE: degrees, schema.GPU_TEMPERATURE: degrees}

    def _power(self) -> Values:
        watts = self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000
        return {schema.HW_POWER: watts, schema.GPU_POWER: watts}

    def _energy(self) -> Values:
        return {
            schema.HW_ENERGY: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000
        }

    def _share(self) -> Values:
        """The GPU memory of this process; none in a container where NVML lists the host's ids."""
        for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return {schema.GPU_PROCESS_MEMORY: process.usedGpuMemory}
        return {}


class Gpus:
    """The GPUs of this process, and the thread that samples them.

    NVML may take its time, and for ever when a GPU fails, so metrics come from the last sample.
    `devices` are PyTorch's names and UUIDs, as `visible` returns them.
    """

    def __init__(
        self,
        model_device: str,
        devices: Mapping[str, str],
        nvml: Nvml = pynvml,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._gpus: list[Gpu] = []
        self._sample: list[tuple[Gpu, Values]] = []
        self._meter: Meter | None = None
        self._sampled = clock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpus", daemon=True)
        self._started = False
        if not devices:
            return
        try:
            nvml.nvmlInit()
        except NVMLError as error:
            log.info("no metrics of the GPU: NVML: %s", error)
            return
        self._started = True
        for device, uuid in devices.items():
            try:
                self._gpus.append(Gpu(nvml, device, uuid, device == model_device))
            except NVMLError as error:
                log.warning("no metrics of %s (%s): NVML: %s", device, uuid, error)
        self.sample()

    def sample(self) -> None:
        """Read every GPU; blocks for as long as NVML does."""
        sample = [(gpu, gpu.read()) for gpu in self._gpus]
        self._sample, self._sampled = sample, self._clock()
        if self._meter:
            self._meter.read(self._energy(), self._sampled)

    def meter(self, machine: Machine) -> float | None:
        """Tell the machine, with each sample from now on, the power of the GPU that its models run
        on. Returns the most it may be, in watts; None where NVML doesn't know it or the energy.
        """
        limits = [gpu.most_watts() for gpu in self._gpus if gpu.runs_model]
        most = limits[0] if limits else None
        if most is None or self._energy() is None:
            return None
        self._meter = Meter(machine, most)
        self._meter.read(self._energy(), self._sampled)
        return most

    def observe(self, telemetry: Telemetry) -> None:
        """Register the metrics, whose values come from the last sample."""
        for register, metrics in (
            (telemetry.observable_gauge, GAUGES),
            (telemetry.observable_up_down_counter, SUMS),
            (telemetry.observable_counter, TOTALS),
        ):
            for metric in metrics:
                register(metric, partial(self._points, metric))

    def stats(self) -> dict[str, str | float] | None:
        """Name and memory of the GPU the model runs on, as far as NVML reports them."""
        shown = {
            "memory_used_bytes": schema.GPU_MEMORY_USED,
            "memory_total_bytes": schema.GPU_MEMORY_TOTAL,
        }
        for gpu, values in self._newest():
            if gpu.runs_model:
                readings = {
                    name: values[metric] for name, metric in shown.items() if metric in values
                }
                return {"name": gpu.name, **readings}
        return None

    def start(self) -> None:
        """Start the thread that samples every SAMPLE_SECONDS; nothing to do without a GPU."""
        if self._gpus:
            self._thread.start()

    def close(self) -> None:
        """End the thread and shut NVML down, unless a call to it hangs."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
        if self._started and not self._thread.is_alive():
            self._started = False
            self._sample = []
            self._nvml.nvmlShutdown()

    def _watch(self) -> None:
        while not self._closing.wait(SAMPLE_SECONDS):
            self.sample()

    def _energy(self) -> float | None:
        """Joules that the model's GPU had used at the last sample."""
        used = [values.get(schema.HW_ENERGY) for gpu, values in self._sample if gpu.runs_model]
        return used[0] if used else None

    def _newest(self) -> list[tuple[Gpu, Values]]:
        return self._sample if self._clock() - self._sampled < STALE_SECONDS else []

    def _points(self, metric: Metric) -> list[Observation]:
        return [
            Observation(values[metric], gpu.labels(metric))
            for gpu, values in self._newest()
            if metric in values
        ]
