"""inference-svc as a process under thousands of calls of all kinds: its memory."""

from pathlib import Path
from statistics import median

import psutil

from tests import mixed_calls, tiny_model
from tests.processes import service

WINDOWS = 12
CALLS = 400
"""In a window."""

FILLING = 4
"""Windows in which pools and caches may fill. A leak goes on after them."""

LEAK_BYTES = 2_000
"""Of a call, at the most: a request whose objects are kept takes ten times as much."""


async def test_memory_does_not_grow_with_the_calls(tmp_path: Path) -> None:
    settings = {name.upper(): str(value) for name, value in mixed_calls.SETTINGS.items()}
    with service(
        "inference_svc",
        tmp_path,
        LOCAL_MODEL_NAME=str(tiny_model.save(tmp_path / "tiny")),
        USE_GPU="false",
        **settings,
    ) as running:
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
