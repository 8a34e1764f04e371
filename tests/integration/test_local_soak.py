"""inference-svc as a process under thousands of calls of all kinds: its memory."""

from pathlib import Path
from statistics import median

import psutil

from tests.support import mixed_calls, tiny_model
from tests.support.processes import service, trace_store

WINDOWS = 12
CALLS = 400
"""In a window."""

FILLING = 4
"""Windows in which pools and caches may fill. A leak goes on after them."""

LEAK_BYTES = 1_000
"""Of a call, at the most. A call of which anything is kept, its span or its prompt, takes more."""


async def test_memory_does_not_grow_with_the_calls(tmp_path: Path) -> None:
    """In float32: in bfloat16 the library that multiplies keeps a kernel for each of up to 1,024
    shapes of a batch, a pool that takes thousands of calls to fill.
    """
    with (
        trace_store(tmp_path) as (_, otlp),
        service(
            "inference_svc",
            tmp_path,
            LOCAL_MODEL_NAME=str(tiny_model.save(tmp_path / "tiny")),
            USE_GPU="false",
            LOCAL_MODEL_DTYPE="float32",
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            ENGINE_MAX_CONTEXT=str(mixed_calls.MAX_CONTEXT),
            ENGINE_MAX_WAITING=str(mixed_calls.MAX_WAITING),
        ) as running,
    ):
        process = psutil.Process(running.process.pid)
        used = []
        async with mixed_calls.client(running.url) as http:
            for number in range(WINDOWS):
                await mixed_calls.calls(http, CALLS, seed=number)
                await mixed_calls.rest(http)
                used.append(process.memory_full_info().uss)
    late = used[FILLING:]
    half = len(late) // 2
    grown = median(late[half:]) - median(late[:half])
    told = ", ".join(f"{each / 1e6:.1f}" for each in used)
    assert grown < half * CALLS * LEAK_BYTES, f"MB after each window: {told}"
