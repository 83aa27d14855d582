"""The store: one SQLite file of judgements, so that no pair is judged, or paid for, twice.

The file has two tables, which `_SCHEMA` describes column by column; `PRAGMA user_version` is the version of this
schema. WAL mode allows several processes to write at once. `judgement_key` makes a judgement's key of everything that
decides it: the judge's signature, both reports, and the patient context as the judge sees it. Another model, revision,
prompt or decoding option means another signature and thus another key. The consistency repair and the score are cheap
and not stored.

The file contains the reports. Without them it would still contain patient data, since an evaluation's findings quote
reports; with them, a judgement can be checked against its key and exported as a labelled report pair.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from crimson_core.errors import DamagedStoreError, InputError, StoreError
from crimson_core.judges.base import Judgement
from crimson_core.protocol.evaluation import Evaluation, check_evaluation
from crimson_core.protocol.pair import ReportPair
from crimson_core.version import __version__

_VERSION = 1  # of the schema
_MARK = 0x4352494D  # "CRIM", the SQLite application id of our files
_SCHEMA = (
    """CREATE TABLE judge (
        id INTEGER PRIMARY KEY,
        asked TEXT NOT NULL,         -- JSON object: the signature before the judge has answered, which is part of the key
        answered TEXT NOT NULL,      -- JSON object: the signature then, with what an API tells only in answers
        crimson_core TEXT NOT NULL,  -- the version that judged
        UNIQUE (asked, answered, crimson_core)
    )""",
    """CREATE TABLE judgement (
        key BLOB PRIMARY KEY,        -- SHA-256 of asked, reference, candidate and context
        judge INTEGER NOT NULL REFERENCES judge (id),
        reference TEXT NOT NULL,
        candidate TEXT NOT NULL,
        context TEXT NOT NULL,       -- JSON list of [key, value], as the judge sees them
        evaluation TEXT,             -- JSON object, before the consistency repair; NULL where the judge failed
        failure TEXT,                -- why there is no evaluation, without report text
        repairs TEXT NOT NULL,       -- JSON list: what had to be mended to read the output
        raw_output TEXT,             -- the model's text, where there is one
        usage TEXT NOT NULL,         -- JSON object: token counts where they are known, of failures before this one, too
        cost REAL,                   -- US dollars, where the server tells
        seconds REAL NOT NULL,       -- from the judge's judgement before to this one; those of a run add up to its time
        judged_at TEXT NOT NULL      -- UTC, as 2026-01-31T12:00:00+00:00
    )""",
    "CREATE INDEX judgement_judge ON judgement (judge)",
)
_COLUMNS = (
    *("key", "judge", "reference", "candidate", "context", "evaluation", "failure"),
    *("repairs", "raw_output", "usage", "cost", "seconds", "judged_at"),
)
_JSON_COLUMNS = ("asked", "answered", "context", "repairs", "usage")  # and evaluation, which may be NULL
_INSERT = f"""
    INSERT INTO judgement ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{column}" for column in _COLUMNS)})
    ON CONFLICT (key) DO UPDATE SET {", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])}
    WHERE judgement.evaluation IS NULL
"""
_JOINED = "judgement LEFT JOIN judge ON judge.id = judgement.judge"
_STATS = f"""
    SELECT answered, crimson_core, count(*), count(*) - count(evaluation), total(json_extract(usage, '$.prompt_tokens')),
        total(json_extract(usage, '$.completion_tokens')), sum(cost), total(seconds), min(judged_at), max(judged_at)
    FROM {_JOINED} GROUP BY answered, crimson_core ORDER BY min(judgement.rowid)
"""
OFF = "off"  # instead of a path
_WAIT = 60.0  # seconds to wait for another process's write
_AT_ONCE = 500  # rows per query
_LOG_PAGES = 10_000  # after which SQLite moves its log, here of 40 MB, into the file, and waits for the disk
_INSTEAD = "give another path (--store), or use no store (--no-store)"


class StoredJudgement(NamedTuple):
    """A judgement read from the store.

    Attributes:
        judgement: The judgement, with `from_store` set.
        signature: The judge's signature after its answer.
        judged_at: The time of the judgement, as `YYYY-MM-DDThh:mm:ss+00:00`.
    """

    judgement: Judgement
    signature: dict[str, str]
    judged_at: str


class Made(NamedTuple):
    """A judgement to be written, as text: the evaluation itself is of many small objects."""

    key: bytes
    row: dict[str, Any]  # the columns, except for the judge and the time of writing
    answered: Mapping[str, str]  # the judge's signature after it


class JudgeStats(NamedTuple):
    """Statistics of one judge's judgements.

    Attributes:
        signature: The judge's signature in one line, with the version of crimson_core.
        judgements: Number of evaluations and failures.
        failures: Number of failures.
        prompt_tokens: Total prompt tokens, as far as known.
        completion_tokens: Total output tokens, as far as known.
        cost: Total US dollars; None if no server reported any.
        seconds: Total time of judging.
        first: Time of the first judgement, as `YYYY-MM-DDThh:mm:ss+00:00`.
        last: Time of the last judgement.
    """

    signature: str
    judgements: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    seconds: float
    first: str
    last: str


class Soundness(NamedTuple):
    """The result of a check of the store."""

    judgements: int  # that were checked
    damaged: list[str]  # keys (hex) of judgements that cannot be read or do not fit their key
    file: list[str]  # SQLite's messages about damage of the file


@dataclass(frozen=True)
class Selection:
    """A selection of judgements; all given conditions must hold.

    Attributes:
        signature: Fields of the judge's signature, joined by | (`judge:offline|lexicon:2`), or the whole line that is
            printed with a score.
        failures: True for failures only, False for evaluations only.
        before: Only judgements made before this time.
        keys: Only judgements with one of these keys (hex).
    """

    signature: str | None = None
    failures: bool | None = None
    before: datetime | None = None
    keys: frozenset[str] | None = None


EVERYTHING = Selection()


def default_path() -> Path | None:
    """The default store: CRIMSON_STORE, else a file in the user's cache folder; None if CRIMSON_STORE is `off`."""
    named = os.environ.get("CRIMSON_STORE")
    if named:
        return None if named == OFF else Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("crimson", appauthor=False) / "judgements.sqlite"


def judgement_key(asked: Mapping[str, str], pair: ReportPair) -> bytes:
    """SHA-256 of everything that decides a judgement; the pair's id does not count."""
    return _hash(asked, pair.reference, pair.candidate, _context(pair))


def _hash(asked: Mapping[str, str], reference: str, candidate: str, context: list[Any]) -> bytes:
    """The key: of the JSON of all four as a list, of which the first is the same for all pairs of a run."""
    rest = f"{_text(reference)},{_text(candidate)},{_json(context) if context else '[]'}]"
    return hashlib.sha256(f"{_start(tuple(asked.items()))}{rest}".encode()).digest()


def made_now(key: bytes, pair: ReportPair, judgement: Judgement, answered: Mapping[str, str], seconds: float) -> Made:
    """A judgement to be written; `key` is its `judgement_key`, `seconds` the time of judging."""
    raw_output = judgement.raw_output
    row = {
        "key": key,
        "reference": pair.reference,
        "candidate": pair.candidate,
        "context": _json(_context(pair)) if pair.context else "[]",
        "evaluation": None if judgement.evaluation is None else judgement.evaluation.model_dump_json(),
        "failure": judgement.failure,
        "repairs": _json(judgement.repairs) if judgement.repairs else "[]",
        # UTF-8 cannot encode a lone surrogate
        "raw_output": raw_output and raw_output.encode(errors="replace").decode(),
        "usage": _json(judgement.usage) if judgement.usage else "{}",
        "cost": judgement.cost,
        "seconds": seconds,
    }
    return Made(key, row, answered)


@lru_cache(8)
def _start(asked: tuple[tuple[str, str], ...]) -> str:
    return f"[{_json(sorted(asked))},"


def _context(pair: ReportPair) -> list[Any]:
    """Keys and values in their order, as they appear in a model's prompt."""
    return list(pair.context.as_dict().items()) if pair.context else []


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_text = json.encoder.encode_basestring  # what the encoder does with a text, after it has looked for what it is


def make_private(path: Path) -> None:
    """Create an empty file, readable by its owner only; an existing file is not changed."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


class Store:
    """An open store; a context manager that closes it.

    Args:
        path: The file. A new file, and a new folder, can be read by their owner only.
        create: Create a missing file. If False, a file that cannot be written is opened read-only.

    Raises:
        StoreError: The store cannot be used. All methods raise this; the message says what to do.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(os.path.abspath(os.path.expanduser(path)))
        self._judges: dict[tuple[str, str], int] = {}
        if self.path.is_dir():
            raise self._error("is a folder", f"Give the path of a file, {_INSTEAD}")
        if not self.path.exists():
            if not create:
                raise StoreError(f"There is no store {self.path}. Give its path with --store.")
            self._make_file()
        with self._translated():
            try:
                self._connect()
            except sqlite3.OperationalError as error:
                log = self.path.with_name(self.path.name + "-wal")  # if it exists, it is part of the content
                if create or log.exists() or _code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                    raise
                self._connect(read_only=True)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):  # everything is written; on a full disk SQLite cannot clean up
            self._db.close()

    def check_writable(self) -> None:
        """Check that the store can be written, by a write that changes nothing."""
        with self._translated():
            self._write(f"PRAGMA user_version = {_VERSION}")

    def read(self, keys: Iterable[bytes], *, failures: bool = True) -> Iterator[tuple[bytes, StoredJudgement]]:
        """Yield (key, judgement) for the keys in the store.

        Args:
            keys: Keys as `judgement_key` makes them.
            failures: Whether to include failures.
        """
        keys = iter(keys)
        condition = "" if failures else "AND evaluation IS NOT NULL"
        while some := list(islice(keys, _AT_ONCE)):
            marks = ", ".join("?" * len(some))
            with self._translated():
                rows = self._db.execute(
                    "SELECT key, answered, judged_at, evaluation, failure, repairs, raw_output, usage, cost "
                    f"FROM {_JOINED} WHERE key IN ({marks}) {condition}",
                    some,
                ).fetchall()
            for key, answered, judged_at, evaluation, failure, repairs, raw_output, usage, cost in rows:
                try:
                    _check_text((evaluation, failure, repairs, raw_output, usage))
                    if evaluation is None and failure is None:
                        raise ValueError("neither an evaluation nor a failure")
                    judgement = Judgement(
                        None if evaluation is None else Evaluation.model_validate_json(evaluation),
                        failure,
                        json.loads(repairs),
                        raw_output,
                        json.loads(usage),
                        cost,
                        from_store=True,
                    )
                    yield key, StoredJudgement(judgement, json.loads(answered), judged_at)
                except (ValueError, TypeError):  # the message may contain report text
                    raise self._damaged(f"a judgement ({key.hex()[:12]}…)") from None

    def add(self, asked: Mapping[str, str], made: Sequence[Made]) -> list[bool]:
        """Write judgements in one transaction.

        A stored failure is replaced, and its usage is added. A stored evaluation is kept: another process was faster.

        Args:
            asked: The judge's signature before any answer.
            made: The judgements, each with another key.

        Returns:
            Whether each was written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._translated(), self._transaction():
            judge = lru_cache(1)(lambda answered: self._judge(_json(asked), _json(dict(answered))))
            before: dict[bytes, tuple[str, float | None]] = {}
            for start in range(0, len(made), _AT_ONCE):
                keys = [own.key for own in made[start : start + _AT_ONCE]]
                marks = ", ".join("?" * len(keys))
                found = self._db.execute(f"SELECT key, usage, cost FROM judgement WHERE key IN ({marks})", keys)
                before.update((key, (usage, cost)) for key, usage, cost in found)
            rows = []
            for own in made:
                row = own.row | {"judge": judge(tuple(own.answered.items())), "judged_at": now}
                if own.key in before:
                    usage, cost = before[own.key]
                    used = Counter(json.loads(row["usage"]))
                    used.update(self._usage(usage))
                    row["usage"] = _json(used)
                    row["cost"] = row["cost"] if cost is None else cost + (row["cost"] or 0.0)
                rows.append(row)
            self._db.executemany(_INSERT, (row for row in rows if row["key"] not in before))
            return [row["key"] not in before or self._db.execute(_INSERT, row).rowcount > 0 for row in rows]

    def _usage(self, text: str) -> dict[str, int]:
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError):
            raise self._damaged("a judgement") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._write("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._judges.clear()  # a new judge may have been rolled back
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise

    def entries(self, selection: Selection = EVERYTHING) -> Iterator[dict[str, Any]]:
        """Yield the selected judgements as records, in the order in which they were made.

        Their keys are the columns of the schema, with `asked`, `answered` and `crimson_core` instead of `judge`. `key`
        is hex, and JSON is parsed.
        """
        for row in self._rows(selection):
            try:
                yield _entry(row)
            except (ValueError, TypeError):
                raise self._damaged(f"a judgement ({row['key'][:12]}…)") from None

    def stats(self) -> list[JudgeStats]:
        """Statistics of each judge, in the order of their first judgements."""
        with self._translated():
            rows = self._db.execute(_STATS).fetchall()
        return [
            JudgeStats(self._judge_line(answered, version), n, failures, int(prompt), int(completion), *rest)
            for answered, version, n, failures, prompt, completion, *rest in rows
        ]

    def usage(self) -> dict[str, int]:
        """Token counts of all judgements together, by their names."""
        with self._translated():
            rows = self._db.execute(
                "SELECT each.key, total(each.value) FROM judgement, json_each(usage) AS each GROUP BY 1"
            )
            return {name: int(count) for name, count in rows}

    def verify(self) -> Soundness:
        """Check the file, that every evaluation can be read, and that every judgement fits its key."""
        with self._translated():
            lines = [line for (line,) in self._db.execute("PRAGMA integrity_check")]
        count, damaged = 0, []
        file = [] if lines == ["ok"] else lines
        try:
            for row in self._rows(EVERYTHING):
                count += 1
                if not _is_sound(row):
                    damaged.append(row["key"])
        except DamagedStoreError as error:
            file.append(f"no further judgement can be read: {error.__context__}")
        return Soundness(count, damaged, file)

    def prune(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Delete the selected judgements, and their text from the file.

        Returns:
            Their number.
        """
        with self._translated():
            where, values = self._where(selection)
            if dry_run:
                return self._db.execute(f"SELECT count(*) FROM judgement WHERE {where}", values).fetchone()[0]
            count = self._write(f"DELETE FROM judgement WHERE {where}", values).rowcount
            self._write("VACUUM")  # else the text would stay in the file until its space is reused
            self._write("PRAGMA wal_checkpoint(TRUNCATE)")
            return count

    def _connect(self, *, read_only: bool = False) -> None:
        # immutable: SQLite creates no files beside it
        place = f"{self.path.as_uri()}?mode=ro&immutable=1" if read_only else self.path
        # check_same_thread: a generator may move to another thread, but never runs in two at once
        self._db = sqlite3.connect(place, timeout=_WAIT, isolation_level=None, check_same_thread=False, uri=read_only)
        # SQLite's own error quotes text that is not UTF-8, which may be report text; see `_check_text`
        self._db.text_factory = lambda text: text.decode(errors="surrogateescape")
        try:
            self._set_up(read_only)
        except BaseException:
            self._db.close()
            raise

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_private(self.path)
        except OSError as error:
            raise self._error(f"cannot be created: {error.strerror}", _INSTEAD) from None

    def _make_private(self) -> None:
        """Make an existing empty file readable by its owner only; SQLite gives its other files the same mode."""
        try:
            self.path.chmod(0o600)
        except OSError as error:
            raise self._error(f"cannot be made private: {error.strerror}", _INSTEAD) from None

    def _set_up(self, read_only: bool) -> None:
        """Check that the file is a store, or initialise an empty one."""
        tables, version, mark = self._identity()
        if mark == _MARK and version > _VERSION:
            raise self._error(
                f"was created by a newer crimson-metric (its schema is {version}, this one knows {_VERSION})",
                f"Update crimson-metric, {_INSTEAD}",
            )
        if mark != _MARK and (mark or version or tables):
            raise self._error("is another kind of SQLite database", _INSTEAD)
        if read_only:
            return
        if mark != _MARK:
            self._make_private()
        if self._write("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise self._error("is in a place where SQLite cannot share it, perhaps a network drive", _INSTEAD)
        self._db.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut may lose the last moments
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        self._db.execute("PRAGMA foreign_keys = ON")
        if mark != _MARK:
            self._write("BEGIN IMMEDIATE")
            if not any(self._identity()):  # else another process has initialised it meanwhile
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_MARK}")
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            self._db.execute("COMMIT")

    def _identity(self) -> tuple[int, int, int]:
        """The number of tables and indices, the version of the schema, and the mark.

        The mark is read last: if another process is initialising the file, it is set if the others are.
        """
        queries = ("SELECT count(*) FROM sqlite_master", "PRAGMA user_version", "PRAGMA application_id")
        return tuple(self._db.execute(query).fetchone()[0] for query in queries)

    def _judge(self, asked: str, answered: str) -> int:
        """The id of a judge, which is added if it is new."""
        if (asked, answered) not in self._judges:
            row = (asked, answered, __version__)
            self._write("INSERT OR IGNORE INTO judge (asked, answered, crimson_core) VALUES (?, ?, ?)", row)
            (self._judges[asked, answered],) = self._db.execute(
                "SELECT id FROM judge WHERE (asked, answered, crimson_core) = (?, ?, ?)", row
            ).fetchone()
        return self._judges[asked, answered]

    def _rows(self, selection: Selection) -> Iterator[dict[str, Any]]:
        names = ["key", *_COLUMNS[2:], "asked", "answered", "crimson_core"]
        with self._translated():
            where, values = self._where(selection)
            rows = self._db.execute(
                f"SELECT lower(hex(key)), {', '.join(names[1:])} FROM {_JOINED} WHERE {where} ORDER BY judgement.rowid",
                values,
            )
            while some := rows.fetchmany(_AT_ONCE):
                for row in some:
                    yield dict(zip(names, row, strict=True))

    def _where(self, selection: Selection) -> tuple[str, list[Any]]:
        """A selection in SQL."""
        conditions, values = ["true"], []
        if selection.signature is not None:
            # the scorer's fields of a whole line say nothing about the judge
            parts = (part.strip() for part in selection.signature.split("|"))
            wanted = {part for part in parts if part not in ("", "crimson") and not part.startswith("repair:")}
            if not wanted:  # it would match every judge
                raise InputError(
                    f"signature {selection.signature!r} names no field of a judge. Give one as `crimson store stats` shows "
                    "them, or leave it out."
                )
            judges = self._db.execute(
                "SELECT id, answered, crimson_core FROM judge WHERE id IN (SELECT judge FROM judgement)"
            ).fetchall()
            meant = [
                i for i, answered, version in judges if wanted <= set(self._judge_line(answered, version).split("|"))
            ]
            conditions.append(f"judge IN ({', '.join(map(str, meant))})")
        if selection.failures is not None:
            conditions.append("evaluation IS NULL" if selection.failures else "evaluation IS NOT NULL")
        if selection.before is not None:
            conditions.append("judged_at < ?")
            values.append(selection.before.astimezone(UTC).isoformat(timespec="seconds"))
        if selection.keys is not None:
            conditions.append("lower(hex(key)) IN (SELECT value FROM json_each(?))")
            values.append(_json(sorted(selection.keys)))
        return " AND ".join(conditions), values

    def _write(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        """Execute a statement; retry if SQLite gives up at once because another process is busy."""
        deadline = time.monotonic() + _WAIT
        while True:
            try:
                return self._db.execute(statement, values)
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except UnicodeDecodeError:  # of SQLite's own message, which quotes what it cannot read
            raise DamagedStoreError(
                f"The store {self.path} is damaged. Move it away; its pairs are judged again."
            ) from None
        except sqlite3.Error as error:
            code = _code(error)
            if code == sqlite3.SQLITE_NOTADB:
                raise self._error("is not a SQLite database", _INSTEAD) from None
            if code == sqlite3.SQLITE_CORRUPT:
                raise DamagedStoreError(
                    f"The store {self.path} is damaged: {error}. Move it away; its pairs are judged again."
                ) from None
            if str(error) == "malformed JSON":
                raise self._damaged("a judgement") from None
            if code == sqlite3.SQLITE_BUSY:
                raise self._error(f"has been in use by another process for {_WAIT:.0f} s", "Run again") from None
            raise self._error(
                f"cannot be read or written: {error}",
                f"Check that the disk has space and that file and folder are writable, {_INSTEAD}",
            ) from None

    def _judge_line(self, answered: Any, version: Any) -> str:
        """A judge's signature in one line."""
        try:
            return _line(json.loads(answered), version)
        except (ValueError, TypeError):
            raise self._damaged("judgements of a judge") from None

    def _damaged(self, what: str) -> StoreError:
        return self._error(
            f"holds {what} that cannot be read",
            "`crimson store verify` counts damaged judgements, `crimson store prune --damaged` deletes them",
        )

    def _error(self, what: str, remedy: str) -> StoreError:
        return StoreError(f"The store {self.path} {what}. {remedy[0].upper()}{remedy[1:]}.")


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its JSON parsed.

    Raises:
        ValueError: A column is not JSON or not UTF-8, or there is neither an evaluation nor a failure.
        TypeError: A column is not text; the judge's columns are NULL if there is no such judge.
    """
    _check_text(row.values())
    evaluation = row["evaluation"]
    if evaluation is None and row["failure"] is None:
        raise ValueError("neither an evaluation nor a failure")
    parsed = {column: json.loads(row[column]) for column in _JSON_COLUMNS}
    return row | parsed | {"evaluation": None if evaluation is None else json.loads(evaluation)}


def _check_text(values: Iterable[Any]) -> None:
    """Raise UnicodeEncodeError, a ValueError, for text whose bytes in the file are not UTF-8."""
    for value in values:
        if isinstance(value, str):
            value.encode()


def _is_sound(row: dict[str, Any]) -> bool:
    try:
        entry = _entry(row)
        if entry["evaluation"] is not None:
            check_evaluation(entry["evaluation"])
        _line(entry["answered"], entry["crimson_core"])
        made = _hash(entry["asked"], entry["reference"], entry["candidate"], entry["context"])
    except (ValueError, TypeError, AttributeError):  # unexpected content of a column
        return False
    return made.hex() == entry["key"]


def _line(signature: Mapping[str, str], version: str) -> str:
    return "|".join(f"{field}:{value}" for field, value in {**signature, "crimson_core": version}.items())


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; errors of Python's own module have none."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
