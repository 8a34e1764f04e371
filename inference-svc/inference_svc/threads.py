"""Threads that end with their work, for what computes beside the engine.

libgomp gives each thread that computes in parallel a pool of workers for as long as it lives. As
soon as all pools together have more threads than the machine has cores, every worker sleeps between
two operations instead of spinning, and a token of the engine, of many hundred small operations,
takes a third longer. So only the engine's thread may live on.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def submit(name: str, work: Callable[[], T]) -> Future[T]:
    """Start the work in a new thread that ends after it."""
    executor = ThreadPoolExecutor(1, name)
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future
