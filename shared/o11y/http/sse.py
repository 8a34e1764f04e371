"""Server-sent events as bytes (WHATWG HTML 9.2): split at their ends and otherwise untouched."""

import re

MAX_EVENT = 16 << 20
"""Longest event in bytes."""

_END = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?!\n|\Z))|\r(?!\n)\r\n?")
"""Two ends of lines, in any mix; a CR that nothing follows yet may be the half of one."""

_BOM = b"\xef\xbb\xbf"


class TooLong(Exception):
    """An event has no end."""


class Splitter:
    """Puts the pieces of a stream together again, event by event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that end in this piece, each with the blank line that ends it.

        Raises TooLong.
        """
        usual = b"\r" not in chunk  # as nearly all write it, and found much faster
        if usual and not self._rest and chunk.endswith(b"\n\n") and chunk.count(b"\n\n") == 1:
            return [chunk]
        seen = max(0, len(self._rest) - 3)  # an end may have begun, of at most 4 bytes
        self._rest += chunk
        if usual and b"\r" not in self._rest:
            events = []
            if self._rest.find(b"\n\n", seen) >= 0:
                *events, self._rest = self._rest.split(b"\n\n")
                events = [each + b"\n\n" for each in events]
        else:
            events = self._split(seen)
        if len(self._rest) > MAX_EVENT:
            raise TooLong
        return events

    def _split(self, seen: int) -> list[bytes]:
        events: list[bytes] = []
        at = 0
        for end in _END.finditer(self._rest, seen):
            events.append(self._rest[at : end.end()])
            at = end.end()
        self._rest = self._rest[at:]
        return events

    def rest(self) -> bytes:
        """The bytes that are left when the stream has ended: an event without its blank line."""
        return self._rest


def data(event: bytes) -> bytes | None:
    """The data of an event; None for a comment, or anything else without data."""
    if event.startswith(b"data:") and event.find(b"\n") >= len(event) - 2:  # the usual form
        return event[5:].strip()
    lines = event.removeprefix(_BOM).splitlines()
    lines = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
