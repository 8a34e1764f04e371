"""The allocator's metrics, from figures as PyTorch gives them."""

import pytest
import torch

from inference_svc import allocator
from tests.support.recorded import Recorded


def memory(recorded: Recorded) -> dict[tuple[object, object], float]:
    points = recorded.points("torch_memory")
    return {(point.labels["device"], point.labels["state"]): point.value for point in points}


def counted(recorded: Recorded, metric: str) -> list[float]:
    return [point.value for point in recorded.points(metric)]


def test_cuda_has_what_is_allocated_reserved_and_failed(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    stats = {
        "allocated_bytes.all.current": 300,
        "reserved_bytes.all.current": 500,
        "num_alloc_retries": 2,
        "num_ooms": 1,
    }
    monkeypatch.setattr(torch.cuda, "memory_stats", {"cuda:1": stats}.__getitem__)
    allocator.observe("cuda:1", recorded.telemetry)
    assert memory(recorded) == {("cuda:1", "allocated"): 300, ("cuda:1", "reserved"): 500}
    assert counted(recorded, "torch_allocation_retries") == [2]
    assert counted(recorded, "torch_out_of_memory") == [1]


def test_before_cuda_is_used_nothing_is_told(recorded: Recorded) -> None:
    assert torch.cuda.memory_stats("cuda:0") == {}
    allocator.observe("cuda:0", recorded.telemetry)
    assert memory(recorded) == {}
    assert counted(recorded, "torch_out_of_memory") == []


def test_mps_has_what_is_allocated_reserved_and_the_limit(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 3)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 9)
    allocator.observe("mps", recorded.telemetry)
    assert memory(recorded) == {
        ("mps", "allocated"): 3,
        ("mps", "reserved"): 5,
        ("mps", "limit"): 9,
    }
    assert counted(recorded, "torch_allocation_retries") == []


def test_the_cpu_has_none_of_it(recorded: Recorded) -> None:
    allocator.observe("cpu", recorded.telemetry)
    assert memory(recorded) == {}
