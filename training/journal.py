"""Files of a run that may be killed at any point: journals, whole files, locks, and the settings that it was begun with."""

import fcntl
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crimson_core.errors import CrimsonError, InputError
from crimson_core.run.files import written_whole
from crimson_core.run.store import make_private


class Journal:
    """Entries with an `id` each, written one by one to a SQLite file and read back when a run continues.

    A later entry replaces an earlier one with the same id, but the tokens of both count. This is not a store: a store finds
    a judgement by the reports that were judged, a journal finds what a run has made, whatever it is, by its place in the run.

    Args:
        path: The file, which may not exist yet; a new one is readable by its owner only.

    Attributes:
        usage: Token counts of all entries together.
        failures: Reasons by the ids of failed entries.

    Raises:
        InputError: The file cannot be opened, is damaged, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.usage: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self._ids: set[str] = set()
        try:
            make_private(path)
            # a generator may move to another thread
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(
                "PRAGMA synchronous = NORMAL"
            )  # a kill loses nothing; a power cut may lose the last moments
            self._db.execute("CREATE TABLE IF NOT EXISTS entry (id TEXT NOT NULL, content TEXT NOT NULL)")
            self._db.execute("CREATE INDEX IF NOT EXISTS entry_id ON entry (id)")
            for (content,) in self._db.execute("SELECT content FROM entry ORDER BY rowid"):
                self._note(json.loads(content))
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error.strerror}.") from None
        except sqlite3.Error as error:
            raise InputError(f"{path} cannot be used: {error}. Move it away to begin anew.") from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._ids

    def get(self, entry_id: str) -> dict[str, Any]:
        """The entry with an id, which must exist."""
        query = "SELECT content FROM entry WHERE id = ? ORDER BY rowid DESC LIMIT 1"
        return json.loads(self._db.execute(query, (entry_id,)).fetchone()[0])

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry.

        Raises:
            CrimsonError: It cannot be written; earlier entries are kept.
        """
        try:
            self._db.execute("INSERT INTO entry VALUES (?, ?)", (entry["id"], json.dumps(entry)))
        except sqlite3.Error as error:
            raise CrimsonError(
                f"{self.path} cannot be written any further: {error}. Mend that (on a full disk, free some space) and run the "
                "same command again: it goes on where it stopped."
            ) from None
        self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        self._ids.add(entry["id"])
        self.usage.update(entry.get("usage") or {})
        self.failures.pop(entry["id"], None)
        if entry.get("failure"):
            self.failures[entry["id"]] = entry["failure"]


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
