"""The GPU's metrics beside what CUDA itself says; runs only where there is one."""

from collections.abc import Iterator

import pytest
import torch

from inference_svc import allocator, gpu
from inference_svc.gpu import Gpus
from tests.support.recorded import Recorded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

MIB = 2**20
BLOCK = 512 * MIB


@pytest.fixture
def gpus(recorded: Recorded) -> Iterator[Gpus]:
    gpus = Gpus("cuda:0", gpu.visible("cuda:0"))
    gpus.observe(recorded.telemetry)
    yield gpus
    gpus.close()


def own(recorded: Recorded, metric: str) -> float:
    """The value of the GPU with the model."""
    [value] = [p.value for p in recorded.points(metric) if p.labels["runs_model"] == "true"]
    return value


def test_memory_is_what_cuda_says(recorded: Recorded, gpus: Gpus) -> None:
    torch.cuda.init()
    free, total = torch.cuda.mem_get_info("cuda:0")
    gpus.sample()
    assert own(recorded, "gpu_memory_total") == pytest.approx(total, rel=0.05)
    assert own(recorded, "gpu_memory_used") == pytest.approx(total - free, abs=1024 * MIB)


def test_memory_that_is_taken_is_seen(recorded: Recorded, gpus: Gpus) -> None:
    allocator.observe("cuda:0", recorded.telemetry)
    torch.zeros(1, device="cuda:0")
    gpus.sample()
    before = own(recorded, "gpu_memory_used")
    block = torch.zeros(BLOCK, dtype=torch.uint8, device="cuda:0")
    gpus.sample()
    assert own(recorded, "gpu_memory_used") - before >= BLOCK
    held = {p.labels["state"]: p.value for p in recorded.points("torch_memory")}
    assert BLOCK <= held["allocated"] <= held["reserved"]
    del block
    torch.cuda.empty_cache()


def test_every_gpu_cuda_shows_is_known_to_nvml(recorded: Recorded, gpus: Gpus) -> None:
    points = recorded.points("gpu_memory_used")
    assert len(points) == torch.cuda.device_count()
    [name] = [p.labels["hw.name"] for p in points if p.labels["device"] == "cuda:0"]
    assert str(name).startswith(torch.cuda.get_device_name(0).split(" MIG ")[0])
