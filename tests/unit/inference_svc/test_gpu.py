"""GPU metrics: what NVML tells is shown, what it doesn't is absent, and nothing fails for it."""

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, NumberDataPoint, Sum
from opentelemetry.sdk.metrics.export import Metric as ReadMetric
from prometheus_client.openmetrics.exposition import generate_latest
from pynvml import (
    NVML_ERROR_GPU_IS_LOST,
    NVML_ERROR_NO_PERMISSION,
    NVML_ERROR_NOT_SUPPORTED,
)

from inference_svc import gpu
from inference_svc.gpu import Gpus, Nvml
from inference_svc.machine import Machine as WorkMachine
from inference_svc.settings import Settings
from o11y.telemetry import schema
from o11y.telemetry.schema import Metric
from o11y.telemetry.signals import Telemetry
from tests.support.nvml import (
    FIRST,
    GIB,
    PART,
    SECOND,
    FakeGpu,
    FakeNvml,
    mine,
    old_driver,
    part_of,
)

GPU_METRICS = [*gpu.GAUGES, *gpu.SUMS, *gpu.TOTALS]


class Machine:
    """The metrics of a process on a machine with these GPUs; its model runs on the first."""

    def __init__(self, nvml: FakeNvml, *uuids: str) -> None:
        self.nvml = nvml
        self.now = 0.0
        self._reader = InMemoryMetricReader()
        self.telemetry = Telemetry("inference-svc", Settings(), metric_readers=[self._reader])
        devices = {f"cuda:{number}": uuid for number, uuid in enumerate(uuids)}
        self.gpus = Gpus("cuda:0", devices, nvml, lambda: self.now)
        self.gpus.observe(self.telemetry)

    def read(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """The labels and the value of each point, by metric, as an exporter gets them."""
        return {
            metric.name: [
                (dict(point.attributes or {}), point.value)
                for point in metric.data.data_points
                if isinstance(point, NumberDataPoint)
            ]
            for metric in self._metrics()
            if metric.name.startswith(("gpu_", "hw."))
        }

    def kind(self, name: str) -> tuple[type, bool | None]:
        """How an exporter gets the metric, and for a sum whether it only goes up."""
        [data] = [metric.data for metric in self._metrics() if metric.name == name]
        return type(data), data.is_monotonic if isinstance(data, Sum) else None

    def text(self) -> dict[str, float]:
        """The lines of /metrics."""
        exposed: bytes = generate_latest(self.telemetry.registry)
        lines = [line for line in exposed.decode().splitlines() if not line.startswith("#")]
        return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}

    def _metrics(self) -> list[ReadMetric]:
        data = self._reader.get_metrics_data()
        assert data
        scopes = data.resource_metrics[0].scope_metrics
        return [metric for scope in scopes for metric in scope.metrics]


@pytest.fixture
def one() -> FakeGpu:
    return FakeGpu(f"GPU-{FIRST}", processes=mine(2 * GIB))


@pytest.fixture
def machine(one: FakeGpu) -> Iterator[Machine]:
    machine = Machine(FakeNvml(one), FIRST)
    yield machine
    machine.gpus.close()
    machine.telemetry.shutdown()


def test_every_value_has_its_name_and_unit(machine: Machine) -> None:
    found = machine.read()
    assert {name: value for name, [(_, value)] in found.items()} == {
        "hw.gpu.memory.usage": 3 * GIB,
        "hw.gpu.memory.limit": 24 * GIB,
        "hw.gpu.memory.utilization": 0.125,
        "hw.gpu.utilization": 0.4,
        "hw.temperature": 61,
        "hw.power": 71.5,
        "hw.energy": 9000.5,
        "gpu_memory_used": 3 * GIB,
        "gpu_memory_total": 24 * GIB,
        "gpu_utilization": 40,
        "gpu_temperature": 61,
        "gpu_power": 71.5,
        "gpu_process_memory_used": 2 * GIB,
    }
    assert set(found) == {metric.name for metric in GPU_METRICS}


@pytest.mark.parametrize("metric", GPU_METRICS, ids=lambda metric: metric.name)
def test_labels_are_those_of_the_schema(metric: Metric, machine: Machine) -> None:
    [(labels, _)] = machine.read()[metric.name]
    assert set(metric.labels) - {schema.HW_PARENT} == set(labels)


def test_the_conventions_say_which_hardware_it_is(machine: Machine) -> None:
    [(labels, _)] = machine.read()["hw.gpu.utilization"]
    assert labels == {
        "hw.id": f"GPU-{FIRST}",
        "hw.name": "NVIDIA L4",
        "hw.type": "gpu",
        "hw.vendor": "NVIDIA",
        "hw.gpu.task": "general",
    }


def test_instruments_are_those_of_the_conventions(machine: Machine) -> None:
    assert machine.kind("hw.gpu.memory.usage") == (Sum, False)
    assert machine.kind("hw.gpu.memory.limit") == (Sum, False)
    assert machine.kind("hw.energy") == (Sum, True)
    assert machine.kind("hw.gpu.utilization") == machine.kind("hw.power") == (Gauge, None)


def test_prometheus_shows_the_names_its_users_know(machine: Machine) -> None:
    own = f'{{device="cuda:0",hw_id="GPU-{FIRST}",hw_name="NVIDIA L4",runs_model="true"}}'
    same = f'{{hw_id="GPU-{FIRST}",hw_name="NVIDIA L4",hw_type="gpu",hw_vendor="NVIDIA"}}'
    shown = machine.text()
    assert {
        f"gpu_memory_used_bytes{own}": 3 * GIB,
        f"gpu_memory_total_bytes{own}": 24 * GIB,
        f"gpu_utilization_percent{own}": 40,
        f"gpu_temperature_celsius{own}": 61,
        f"gpu_power_watts{own}": 71.5,
        f"gpu_process_memory_used_bytes{own}": 2 * GIB,
        f"hw_gpu_memory_usage_bytes{same}": 3 * GIB,
        f"hw_energy_joules_total{same}": 9000.5,
    }.items() <= shown.items()


def test_of_two_gpus_the_one_with_the_model_is_marked() -> None:
    nvml = FakeNvml(FakeGpu(f"GPU-{FIRST}"), FakeGpu(f"GPU-{SECOND}", used=GIB))
    machine = Machine(nvml, SECOND, FIRST)  # CUDA_VISIBLE_DEVICES=1,0
    points = machine.read()["gpu_memory_used"]
    assert [(p["device"], p["hw.id"], p["runs_model"], value) for p, value in points] == [
        ("cuda:0", f"GPU-{SECOND}", "true", GIB),
        ("cuda:1", f"GPU-{FIRST}", "false", 3 * GIB),
    ]
    assert len(machine.read()["hw.power"]) == 2
    assert machine.gpus.stats() == {
        "name": "NVIDIA L4",
        "memory_used_bytes": GIB,
        "memory_total_bytes": 24 * GIB,
    }


def test_an_instance_of_mig_has_its_own_memory_and_no_utilization() -> None:
    whole = FakeGpu(f"GPU-{FIRST}", "NVIDIA A100")
    machine = Machine(FakeNvml(whole, part_of(whole)), PART)
    found = machine.read()
    assert {name for name in found if name.startswith("gpu_")} == {
        "gpu_memory_used",
        "gpu_memory_total",
    }
    [(labels, value)] = found["hw.gpu.memory.limit"]
    assert (labels["hw.id"], labels["hw.parent"]) == (f"MIG-{PART}", f"GPU-{FIRST}")
    assert (labels["hw.name"], value) == ("NVIDIA A100 MIG 1g.5gb", 5 * GIB)


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        (
            "nvmlDeviceGetMemoryInfo",
            {"gpu_memory_used", "gpu_memory_total"}
            | {f"hw.gpu.memory.{name}" for name in ("usage", "limit", "utilization")},
        ),
        ("nvmlDeviceGetUtilizationRates", {"gpu_utilization", "hw.gpu.utilization"}),
        ("nvmlDeviceGetTemperatureV", {"gpu_temperature", "hw.temperature"}),
        ("nvmlDeviceGetPowerUsage", {"gpu_power", "hw.power"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"hw.energy"}),
        ("nvmlDeviceGetComputeRunningProcesses", {"gpu_process_memory_used"}),
    ],
)
@pytest.mark.parametrize("error", [NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION])
def test_what_a_gpu_does_not_tell_is_absent(
    function: str, absent: set[str], error: int, one: FakeGpu, machine: Machine
) -> None:
    one.refuses[function] = error
    machine.gpus.sample()
    assert {metric.name for metric in GPU_METRICS} - set(machine.read()) == absent


def test_an_older_driver_tells_the_temperature_too(one: FakeGpu, machine: Machine) -> None:
    old_driver(one)
    machine.gpus.sample()
    assert machine.read()["gpu_temperature"][0][1] == 62


@pytest.mark.parametrize("processes", [[], [(1, GIB)], mine(None)])
def test_a_share_that_is_not_known_is_absent(
    processes: list[tuple[int, int | None]], one: FakeGpu, machine: Machine
) -> None:
    one.processes = processes
    machine.gpus.sample()
    assert "gpu_process_memory_used" not in machine.read()


def test_a_gpu_that_is_lost_takes_only_its_own_values(caplog: pytest.LogCaptureFixture) -> None:
    lost = FakeGpu(f"GPU-{FIRST}")
    machine = Machine(FakeNvml(lost, FakeGpu(f"GPU-{SECOND}")), FIRST, SECOND)
    assert len(machine.read()["gpu_memory_used"]) == 2
    lost.lost = NVML_ERROR_GPU_IS_LOST
    for _ in range(3):
        machine.gpus.sample()
    for points in machine.read().values():
        assert [labels["hw.id"] for labels, _ in points] == [f"GPU-{SECOND}"]
    assert machine.gpus.stats() == {"name": "NVIDIA L4"}
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings.count(f"GPU-{FIRST}: no memory: GPU is lost") == 1


def test_a_gpu_nvml_does_not_know_is_named_and_the_others_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(FakeNvml(FakeGpu(f"GPU-{SECOND}")), FIRST, SECOND)
    assert len(machine.read()["gpu_memory_used"]) == 1
    assert machine.gpus.stats() is None
    assert f"no metrics of cuda:0 ({FIRST}): NVML: Not Found" in caplog.messages


def test_without_nvml_there_is_one_line_and_no_metric(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inference_svc")
    machine = Machine(FakeNvml(library=False), FIRST)
    machine.gpus.start()
    assert machine.read() == {}
    assert caplog.messages == ["no metrics of the GPU: NVML: NVML Shared Library Not Found"]
    machine.gpus.close()
    assert machine.nvml.open == 0


def test_a_model_on_the_cpu_does_not_touch_nvml() -> None:
    machine = Machine(FakeNvml())
    assert gpu.visible("cpu") == {}
    assert machine.nvml.open == 0
    assert machine.read() == {}


def test_the_power_of_the_models_gpu_comes_from_its_counter_of_energy(one: FakeGpu) -> None:
    other = FakeGpu(f"GPU-{SECOND}")
    process = Machine(FakeNvml(one, other), FIRST, SECOND)
    machine = WorkMachine(lambda: process.now)
    assert process.gpus.meter(machine) == 72
    process.now = 10
    one.millijoules += 500_000
    other.millijoules += 10_000_000
    process.gpus.sample()  # 50 W
    process.now = 11
    assert machine.idle().joules == 50


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetEnforcedPowerLimit"]
)
def test_energy_is_not_measured_where_nvml_does_not_tell_it_and_its_limit(
    function: str, one: FakeGpu
) -> None:
    one.refuses[function] = NVML_ERROR_NOT_SUPPORTED
    process = Machine(FakeNvml(one), FIRST)
    assert process.gpus.meter(WorkMachine()) is None
    process.gpus.sample()
    assert Machine(FakeNvml()).gpus.meter(WorkMachine()) is None


def test_nvml_is_let_go_of_once(machine: Machine) -> None:
    assert machine.nvml.open == 1
    machine.gpus.start()
    machine.gpus.close()
    machine.gpus.close()
    assert machine.nvml.open == 0
    assert machine.read() == {}


def test_collecting_does_not_wait_for_nvml(
    one: FakeGpu, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that has failed can hold NVML for ever: its values grow old and are absent then."""
    asked, answer = threading.Event(), threading.Event()

    def hang(handle: FakeGpu) -> int:
        asked.set()
        answer.wait(10)
        return 50_000

    monkeypatch.setattr(gpu, "SAMPLE_SECONDS", 0)
    monkeypatch.setattr(gpu, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(machine.nvml, "nvmlDeviceGetPowerUsage", hang)
    machine.gpus.start()
    assert asked.wait(5)
    [asking] = [thread for thread in threading.enumerate() if thread.name == "gpus"]
    assert machine.read()["hw.power"][0][1] == 71.5
    machine.now = gpu.STALE_SECONDS
    assert machine.read() == {}
    machine.gpus.close()
    assert machine.nvml.open == 1  # NVML must not be shut down under a call
    answer.set()
    asking.join(5)


def test_the_thread_asks_again(one: FakeGpu, machine: Machine, monkeypatch: Any) -> None:
    again = threading.Event()
    monkeypatch.setattr(gpu, "SAMPLE_SECONDS", 0)
    before, read = machine.gpus.sample, 0

    def sample() -> None:
        nonlocal read
        before()
        read += 1
        if read == 2:
            again.set()

    monkeypatch.setattr(machine.gpus, "sample", sample)
    one.used = 5 * GIB
    machine.gpus.start()
    assert again.wait(5)
    machine.gpus.sample = before  # type: ignore[method-assign]
    assert machine.read()["gpu_memory_used"][0][1] == 5 * GIB


def test_pynvml_has_every_function_and_error_that_is_used() -> None:
    functions = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert len(functions) == 14
    for name in functions:
        assert callable(getattr(pynvml, name))
        assert callable(getattr(FakeNvml, name))
    assert isinstance(pynvml.NVML_TEMPERATURE_GPU, int)
    for error in (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        assert issubclass(error, pynvml.NVMLError)


def test_the_devices_are_those_cuda_shows_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(uuid=(SECOND, FIRST)[index]),
    )
    assert gpu.visible("cuda:1") == {"cuda:0": SECOND, "cuda:1": FIRST}
    assert gpu.visible("mps") == {}
