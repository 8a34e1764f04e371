"""A generation whose text is read while it is written."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine

from inference_svc.engine import Emit
from inference_svc.generation import Outcome

Piece = tuple[int, str]
"""Number of the sequence, and some more of its text."""


class Running:
    """Runs a call in a task of its own; `close` ends it, and with it the work of the engine."""

    def __init__(self, run: Callable[[Emit], Coroutine[None, None, Outcome]]) -> None:
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._first: Piece | None = None
        self._task = asyncio.create_task(run(self._emit))
        self._task.add_done_callback(lambda _: self._pieces.put_nowait(None))

    @property
    def outcome(self) -> Outcome:
        """The result of the call, which has ended. Raises the error it ended with."""
        return self._task.result()

    async def begin(self) -> None:
        """Wait for the first text. Raises Problem when the call fails before there is any."""
        try:
            self._first = await self._pieces.get()
        except asyncio.CancelledError:
            self.close()
            raise
        if self._first is None:
            self._task.result()

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The text as it comes, once `begin` has returned. Raises Problem when the call fails."""
        piece = self._first
        while piece is not None:
            yield piece
            piece = await self._pieces.get()
        self._task.result()

    def close(self) -> None:
        self._task.cancel()

    def _emit(self, index: int, text: str) -> None:
        self._pieces.put_nowait((index, text))
