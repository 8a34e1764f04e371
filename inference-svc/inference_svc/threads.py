"""The threads that compute: how they wait for each other, and how they end.

PyTorch computes an operation in several threads of libgomp. A token is many hundred operations, and
after each of them a thread looks again and again whether the next one has begun before it sleeps.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

SPINS = 5_000
"""Times that a thread looks for more to do before it sleeps, unless GOMP_SPINCOUNT or
OMP_WAIT_POLICY say otherwise. libgomp's default, 300,000, takes about a millisecond. It costs
nothing while the cores are free; but where another process has one of them, the thread that waits
keeps its core from the one it waits for, at each operation. `make bench-neighbours` measures it.
"""


def share_the_cores() -> None:
    """Let computing threads wait for SPINS looks. To be called before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def submit(name: str, work: Callable[[], T]) -> Future[T]:
    """Start the work in a new thread that ends after it.

    libgomp gives each thread that computes in parallel a pool of workers for as long as it lives.
    As soon as all pools together have more threads than the machine has cores, every worker sleeps
    between two operations almost at once, and a token takes a third longer. So only the engine's
    thread may live on.
    """
    executor = ThreadPoolExecutor(1, name)
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future
