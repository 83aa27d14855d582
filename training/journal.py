"""Files of a run that may be killed at any point: journals, whole files, locks, and the settings that it was begun with."""

import errno
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crimson_core.errors import CrimsonError, InputError
from crimson_core.run.files import opened_private, written_whole


class Journal:
    """JSON lines with an `id` each, added one by one and read back when a run continues; memory holds only their places.

    A later entry replaces an earlier one with the same id, but the tokens of both count.

    Args:
        path: The file, which may not exist yet. If a kill has cut the last line, that line is deleted.

    Attributes:
        usage: Token counts of all entries together.
        failures: Reasons by the ids of failed entries.

    Raises:
        InputError: The file cannot be read or written, or contains something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.usage: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self._places: dict[str, int] = {}
        try:
            self._file = opened_private(path)
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
        """The entry with an id, which must exist."""
        self._file.seek(self._places[entry_id])
        return json.loads(self._file.readline())

    def add(self, entry: dict[str, Any], *, paid: bool = False) -> None:
        """Write an entry; if it was paid for, wait until it is on the disk.

        Raises:
            CrimsonError: It cannot be written; earlier entries are kept.
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
            with_room = "Free some space" if error.errno == errno.ENOSPC else "Mend that"
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


def write_whole(path: Path, lines: Iterable[str], *, private: bool = False) -> None:
    """Write a file completely or not at all; a new `private` one can be read by its owner only.

    Raises:
        CrimsonError: It cannot be written.
    """
    try:
        with written_whole(path, private=private) as file:
            file.writelines(lines)
    except OSError as error:
        raise CrimsonError(f"{path} cannot be written: {error.strerror}.") from None


def write_json(path: Path, data: Any) -> None:
    """Like `write_whole`, for data as JSON."""
    write_whole(path, [json.dumps(data, indent=1) + "\n"])


def check_same_run(path: Path, settings: Mapping[str, Any], output: Path) -> None:
    """Refuse to continue a run that was begun with other settings, which are in the file `path` if it was begun.

    Raises:
        InputError: A setting differs, or the file cannot be read.
    """
    if not path.is_file():
        return
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'no JSON'}.") from None
    for key in settings:
        if begun.get(key) != settings[key]:
            raise InputError(f"The run in {output} was begun with another {key}. Give another output, or put it back.")


@contextmanager
def locked(folder: Path, name: str = "lock") -> Iterator[None]:
    """Lock a folder for this process; processes that share it use different names.

    Raises:
        InputError: Another process works in it, or it cannot be created.
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
