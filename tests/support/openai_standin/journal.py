"""What the stand-in was asked, and how each request ended."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from tests.support.openai_standin.step import Script, Step

Outcome = Literal["answered", "client_left", "hung_then_left", "cut", "server_stopped"]


@dataclass(eq=False)
class Received:
    """One request. Times are of `time.monotonic`; what it ended with is None until it ends."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    """Parsed; None where it is no JSON."""
    arrived: float
    id: str | None = None
    step: Step | None = None
    status: int | None = None
    """What was sent; None while there is no first byte."""
    chunks: int = 0
    """Content chunks of a stream sent so far."""
    outcome: Outcome | None = None
    ended_at: float | None = None


class Journal:
    """The requests in order of arrival; every change of one wakes those who wait."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._requests: list[Received] = []
        self._played: Counter[str] = Counter()

    def requests(self) -> list[Received]:
        with self._changed:
            return list(self._requests)

    def add(self, received: Received) -> None:
        with self._changed:
            self._requests.append(received)
            self._changed.notify_all()

    def play(self, received: Received, script: Script | None, default: Step) -> Step:
        """The step that this request plays."""
        with self._changed:
            step = default
            if script:
                received.id = script.id
                if script.script:
                    played = self._played[script.id]
                    step = script.script[min(played, len(script.script) - 1)]
                self._played[script.id] += 1
            received.step = step
            self._changed.notify_all()
        return step

    def started(self, received: Received, status: int) -> None:
        with self._changed:
            received.status = status
            self._changed.notify_all()

    def sent(self, received: Received, chunks: int) -> None:
        with self._changed:
            received.chunks = chunks
            self._changed.notify_all()

    def ended(self, received: Received, outcome: Outcome) -> None:
        """The first outcome counts: who has got all may leave as it likes."""
        with self._changed:
            if received.outcome is None:
                received.outcome = outcome
                received.ended_at = time.monotonic()
                self._changed.notify_all()
