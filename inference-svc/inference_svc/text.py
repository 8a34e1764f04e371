"""Text out of tokens as they come, without any that would have to be taken back."""

from collections.abc import Sequence

import transformers

_INCOMPLETE = "\ufffd"
"""Character that a tokenizer writes for bytes that are not a whole character yet."""


class TextStream:
    """Decodes the tokens of one sequence as they come, up to the first of the `stops`.

    A token may be part of a character, and its text may depend on the one before it, so tokens are
    decoded from the last clean border on. Text that could be the beginning of a stop text is held
    back until it is clear that it isn't one.
    """

    def __init__(
        self, tokenizer: transformers.PreTrainedTokenizerBase, stops: Sequence[str] = ()
    ) -> None:
        self.stopped = False
        """True once a stop text was found; the text ends before it."""
        self._tokenizer = tokenizer
        self._stops = stops
        self._ids: list[int] = []
        self._border = 0
        self._read = 0
        self._held = ""

    def add(self, ids: Sequence[int]) -> str:
        """The text that these tokens make certain."""
        if self.stopped:
            return ""
        self._ids.extend(ids)
        before = self._decode(self._ids[self._border : self._read])
        after = self._decode(self._ids[self._border :])
        if len(after) <= len(before) or after.endswith(_INCOMPLETE):
            return ""
        self._border, self._read = self._read, len(self._ids)
        return self._release(after[len(before) :])

    def end(self) -> str:
        """The text that was held back, when no more tokens come."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._border : self._read])
        text = self._release(self._decode(self._ids[self._border :])[len(before) :])
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return certain

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _overlap(text: str, stop: str) -> int:
    """Number of characters at the end of the text that could be the beginning of the stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
