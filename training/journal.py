"""Append-only files of JSON lines that survive a kill: what has been paid for is on the disk before anything else happens."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crimson_core.errors import CrimsonError, InputError
from crimson_core.run.files import written_whole


class Journal:
    """Entries with an `id` each, added one by one and read back when a run goes on; only their places are kept in memory.

    A later entry replaces an earlier one with the same id, but what both have used counts.

    Args:
        path: The file; it is made where it does not exist. A last line without an end, which a kill in the middle of a
            write leaves behind, is taken away.

    Attributes:
        usage: Token counts of all entries together.
        failures: Id -> reason, of the entries that hold one.

    Raises:
        InputError: The file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.usage: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self._places: dict[str, int] = {}
        try:
            self._file = path.open("a+b")
            self._mend()
            self._read()
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error.strerror}.") from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._places

    def get(self, entry_id: str) -> dict[str, Any]:
        """The entry with an id.

        Raises:
            KeyError: There is none.
        """
        self._file.seek(self._places[entry_id])
        return json.loads(self._file.readline())

    def add(self, entry: dict[str, Any], *, paid: bool = False) -> None:
        """Write an entry; one that was paid for is forced to the disk.

        Raises:
            CrimsonError: It cannot be written; what stands in the file stays.
        """
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        try:
            # One write, so that a kill leaves the whole line or none.
            end = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            if paid:
                os.fsync(self._file.fileno())
        except OSError as error:
            with_room = "Free some space" if error.errno == 28 else "Mend that"
            with suppress(OSError):  # else the next start does it
                os.ftruncate(self._file.fileno(), end)
            raise CrimsonError(
                f"{self.path} cannot be written any further: {error.strerror}. {with_room} and run the same command "
                "again: it goes on where it stopped."
            ) from None
        self._note(entry, end)

    def _note(self, entry: dict[str, Any], place: int) -> None:
        self._places[entry["id"]] = place
        self.usage.update(entry.get("usage") or {})
        self.failures.pop(entry["id"], None)
        if entry.get("failure"):
            self.failures[entry["id"]] = entry["failure"]

    def _read(self) -> None:
        self._file.seek(0)
        place = 0
        for number, line in enumerate(self._file, 1):
            try:
                self._note(json.loads(line), place)
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{self.path} line {number} is no entry. Take this line out, and run again.") from None
            place += len(line)

    def _mend(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        step = 1 << 16
        end = size
        while end:
            start = max(0, end - step)
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            self._file.truncate(end)


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        CrimsonError: It cannot be written.
    """
    try:
        with written_whole(path) as file:
            file.writelines(lines)
    except OSError as error:
        raise CrimsonError(f"{path} cannot be written: {error.strerror}.") from None


@contextmanager
def locked(folder: Path, name: str = "lock") -> Iterator[None]:
    """Keep a folder for this process; processes that work in it together have a lock of their own name each.

    Raises:
        InputError: Another process works in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("a+")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}. Give another output folder.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            who = lock.read().strip()
            raise InputError(
                f"Another run works in {folder}{f' (process {who})' if who.isdecimal() else ''}. Wait for it or end it, or give "
                "another output folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
