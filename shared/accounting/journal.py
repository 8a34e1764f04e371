"""A journal: the durable queue between a call and the ledger, in a folder of its own.

A record is written before its call goes on and outlives the process that wrote it; the operating
system writes it to the disk in its own time. A folder belongs to the process that holds its lock,
and to nobody once that has ended: then another process takes it over.
"""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from accounting.records import Begun, Record, Row, decode, encode

logger = logging.getLogger(__name__)

MAX_FILE = 4_000_000
"""Bytes after which another file is begun; a file goes when all that it has is in the ledger."""

_LOCK = "lock"
_SUFFIX = ".jsonl"
_NAME = re.compile("[0-9a-f]{32}")
"""The names of journals' folders. Another folder beside them is another service's."""


class Taken(Exception):
    """Another process has this folder."""


class Folder:
    """A journal's folder, locked until it is closed. Raises Taken, and OSError."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Taken(str(path)) from None

    @property
    def replica(self) -> str:
        """The name of the replica whose journal it is."""
        return self.path.name

    def file(self, number: int) -> Path:
        return self.path / f"{number:08}{_SUFFIX}"

    def numbers(self) -> list[int]:
        """The numbers of its files, the oldest first."""
        return sorted(int(file.stem) for file in self.path.glob(f"*{_SUFFIX}"))

    @property
    def made(self) -> float:
        """The time of its making, in seconds since 1970."""
        return os.fstat(self._lock).st_mtime  # nobody writes to the lock

    def close(self) -> None:
        os.close(self._lock)

    def remove(self) -> None:
        """Remove a folder whose records are all in the ledger, and close it."""
        for file in sorted(self.path.iterdir(), key=lambda each: each.name == _LOCK):
            file.unlink(missing_ok=True)
        self.path.rmdir()
        self.close()


def abandoned(directory: Path, mine: str) -> Iterator[Folder]:
    """Take over the folders that nobody holds, but for one's own."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name == mine or not _NAME.fullmatch(path.name):
            continue
        try:
            folder = Folder(path)
        except Taken:
            continue
        if (path / _LOCK).exists():
            yield folder
        else:  # removed by another one, just before it was ours
            folder.close()


class Journal:
    """Writes records to the end of the newest file; one write to the system for each."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._number = 0
        self._open()

    def write(self, record: Record) -> None:
        """Write a record. Raises OSError, and then nothing of it is there."""
        line = encode(record) + b"\n"
        written = os.write(self._file, line)
        if written < len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(f"only {written} bytes of {len(line)} could be written")
        self._size += written
        if self._size >= MAX_FILE:
            os.close(self._file)
            self._open()

    def _open(self) -> None:
        self._number += 1
        path = self._folder.file(self._number)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0

    def close(self) -> None:
        os.close(self._file)


class Reader:
    """Reads a journal's records, those that are still being written too, and removes its files
    when what it has read is in the ledger.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._number = next(iter(folder.numbers()), 1)
        self._offset = 0
        self._seen: dict[str, tuple[int, Begun]] = {}

    @property
    def running(self) -> list[Begun]:
        """Attempts that have begun and not ended, as far as was read."""
        return [begun for _, begun in self._seen.values()]

    def read(self, limit: int) -> list[Row]:
        """The next rows, so many at most; none when all was read."""
        found: list[Row] = []
        while len(found) < limit:
            path = self._folder.file(self._number)
            is_complete = self._folder.file(self._number + 1).exists()
            if not path.exists():
                break
            with path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # is being written, or was when the machine stopped
                    self._offset += len(line)
                    self._take(line, found)
                    if len(found) >= limit:
                        return found
            if not is_complete:
                break
            self._number, self._offset = self._number + 1, 0
        return found

    def forget(self) -> None:
        """Remove the files of which all that was read is in the ledger."""
        needed = min((number for number, _ in self._seen.values()), default=self._number)
        for number in self._folder.numbers():
            if number < min(needed, self._number):
                self._folder.file(number).unlink()

    def _take(self, line: bytes, found: list[Row]) -> None:
        try:
            record = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            logger.error("a record of the journal can't be read: %d bytes", len(line))
            return
        if isinstance(record, Begun):
            self._seen[record.id] = (self._number, record)
            return
        self._seen.pop(record.id, None)
        if isinstance(record, Row):
            found.append(record)
