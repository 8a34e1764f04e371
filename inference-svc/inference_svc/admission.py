"""Admission of calls: as many as there is room and time for, of lengths the engine can serve."""

from collections.abc import Mapping

from inference_svc.pace import Pace
from o11y.http import deadline
from o11y.web.problems import Problem


class Rejected(Problem):
    """The error of a call that was refused before anything of it was computed."""


class Admission:
    """Counts the sequences in the engine and refuses calls beyond its bounds. Lengths in tokens.

    `window` is the longest sequence of the model `name`, `capacity` that of the cache, `most` the
    number of sequences that may run and wait together.
    """

    def __init__(self, name: str, window: int, capacity: int, most: int) -> None:
        self._name = name
        self._window = window
        self._capacity = capacity
        self._most = most
        self.inside = 0
        """Sequences running or waiting."""
        self.stopping = False
        self.pace = Pace()

    def enter(self, lengths: list[tuple[int, int]], failure: str | None) -> None:
        """Let a call in; `lengths` are each sequence's tokens of prompt and, at most, of answer.

        Raises Rejected: 422 for a sequence that is too long, 503 when the engine stops or has a
        `failure`, 504 when the deadline has passed, 429 when too many are inside.
        """
        for prompt, answer in lengths:
            self._check_length(prompt, answer)
        if self.stopping:
            raise _unavailable("this service is stopping", "stopping")
        if failure:
            raise _unavailable(failure, "unavailable")
        if deadline.remaining() == 0:
            raise Rejected(
                504, "the deadline had passed before it was looked at", code="out_of_time"
            )
        if self.inside + len(lengths) > self._most:
            raise Rejected(
                429,
                f"{self.inside} sequences are running or waiting; at most {self._most} may",
                code="busy",
                headers=self._retry_after(len(lengths)),
            )
        self.inside += len(lengths)

    def leave(self, sequences: int) -> None:
        self.inside -= sequences

    def _retry_after(self, sequences: int) -> Mapping[str, str]:
        return {"Retry-After": str(self.pace.seconds_for(sequences))}

    def _check_length(self, prompt: int, answer: int) -> None:
        asked = f"the prompt has {prompt} tokens and {answer} new ones are asked for; "
        if prompt == 0:
            raise Rejected(422, "the prompt has no tokens", code="empty_prompt", field="prompt")
        if prompt + answer > self._window:
            raise Rejected(
                422,
                f"{asked}{self._name} takes {self._window} together",
                code="context_length_exceeded",
                field="prompt",
            )
        if prompt + answer > self._capacity:
            raise Rejected(
                422,
                f"{asked}the cache holds {self._capacity} together (ENGINE_CACHE_BLOCKS)",
                code="cache_exceeded",
                field="prompt",
            )


def _unavailable(detail: str, code: str) -> Rejected:
    return Rejected(503, detail, code=code, headers={"Retry-After": "1"})
