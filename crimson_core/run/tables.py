"""Tables in files, read in blocks: CSV, TSV, JSONL, JSON or Parquet; and results written as Parquet."""

import codecs
import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from crimson_core.errors import InputError, InputWarning
from crimson_core.run.delimited import (
    CHARACTERS_AT_ONCE,
    ROWS_AT_ONCE,
    Opened,
    delimited,
    first_fault,
    is_usual,
    text_of,
)
from crimson_core.run.parquet import MOST, Limits, parquet

Rows = list[dict[str, Any]]
Blocks = Callable[[], Iterator[Rows]]
_LONG, _MOST_NAMES = 40, 20  # characters of a column name, and column names, that an error shows


@dataclass(frozen=True)
class Table:
    """A table whose rows are read when they are needed, since a million of them may not fit into the memory."""

    source: str  # its name in errors
    columns: list[str]  # the column names, in order; a row of JSON may lack some of them
    # reads the rows from the start, some at a time; cells of CSV and TSV are strings, or None if empty
    blocks: Blocks = field(repr=False)

    @property
    def rows(self) -> Rows:
        """All rows.

        Raises:
            InputError: There are none, or they cannot be read.
        """
        return list(chain.from_iterable(self.blocks()))


def warn(text: str) -> None:
    """Warn of input that is not taken literally."""
    warnings.warn(text, InputWarning, stacklevel=3)


def open_table(
    path: Path,
    separator: str | None = None,
    encoding: str | None = None,
    tell: Callable[[str], None] = warn,
    limits: Limits = MOST,
) -> Table:
    """The table in a file, whose ending determines the format. A file of one JSON value is held in memory.

    Args:
        path: The file.
        separator: Separator of CSV and TSV cells; None detects it.
        encoding: Encoding of CSV and TSV; None detects it. The other formats are UTF-8.
        tell: Called with a message if an unusual separator or encoding is detected.
        limits: Limits of a Parquet file; the other formats do not unpack to more than their size.

    Raises:
        InputError: The file is missing, empty, unreadable, in another format or beyond the limits.
    """
    if path.suffix.lower() not in READABLE:
        raise InputError(
            f"{path} has an unknown ending. Give a file that ends in {', '.join(READABLE)}; save a spreadsheet as CSV."
        )
    if not path.is_file():
        raise InputError(f"{path} is not a file. Check the path.")
    return _table(_opener(path), path.suffix.lower(), str(path), separator, encoding, tell, limits)


def parse_table(data: bytes, ending: str, source: str, **options: Any) -> Table:
    """The table in a file's content; like `open_table`, with the ending and the name of the file given."""
    return _table(partial(io.BytesIO, data), ending, source, **options)


def table_of(rows: Rows, source: str) -> Table:
    """The table of rows that are in memory."""
    return Table(source, column_names(rows), lambda: iter([rows]))


def _opener(path: Path) -> Opened:
    """Opens a file, as often as needed, and refuses one that has changed meanwhile."""

    def opened() -> IO[bytes]:
        try:
            file = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from None
        if _identity(os.fstat(file.fileno())) != seen:
            file.close()
            raise InputError(f"{path} was changed while it was read. Run again.")
        return file

    try:
        seen = _identity(path.stat())
    except OSError as error:
        raise _unreadable(path, error) from None
    return opened


def _identity(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror or type(error).__name__}.")


def _table(
    opened: Opened,
    ending: str,
    source: str,
    separator: str | None = None,
    encoding: str | None = None,
    tell: Callable[[str], None] = warn,
    limits: Limits = MOST,
) -> Table:
    with _errors_translated(source):
        if ending in _DELIMITED:
            columns, blocks = delimited(opened, source, separator, encoding, _DELIMITED[ending], tell)
        elif separator or encoding:
            raise InputError(f"separator and encoding are for CSV and TSV, which {source} is not. Leave them out.")
        elif ending == ".parquet":
            columns, blocks = parquet(opened, source, limits)
        else:
            columns, blocks = _READERS[ending](opened, source)

    def checked() -> Iterator[Rows]:
        empty = True
        with _errors_translated(source):
            for rows in blocks():
                empty = False
                yield rows
        if empty:
            raise InputError(f"{source} has no rows: there is nothing to score.")

    if not columns:
        next(checked())  # a file without rows has no columns either, and this raises the right error
    return Table(source, columns, checked)


@contextmanager
def _errors_translated(source: str) -> Iterator[None]:
    """Turn the errors of a table's content into ours."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or type(error).__name__}.") from None
    except RecursionError:
        raise InputError(f"{source} cannot be read: its JSON is nested too deeply for a table of reports.") from None
    except (OverflowError, ValueError) as error:  # a number too long
        raise InputError(
            f"{source} cannot be read: {type(error).__name__}. Check that it is a table of reports."
        ) from None


def guess_ending(data: bytes) -> str:
    """The usual ending of a file with this content."""
    if data.startswith(b"PAR1"):
        return ".parquet"
    return {b"[": ".json", b"{": ".jsonl"}.get(data.removeprefix(codecs.BOM_UTF8).lstrip()[:1], ".csv")


def column_names(rows: Rows) -> list[str]:
    """The columns of all rows, in order; a JSON row may lack some of them."""
    return list(dict.fromkeys(key for row in rows for key in row))


def describe_columns(have: Sequence[str]) -> str:
    """The columns of a table for errors. Without a header the names are the first row's cells, which may be reports."""
    if not any(map(is_usual, have)):
        also = " Check the separator, too." * (len(have) == 1)
        return (
            f"It has {len(have)}, none with a usual name. Check that its first row, or its keys, are the names.{also}"
        )
    shown = [name for name in map(str, have) if len(name) <= _LONG][:_MOST_NAMES]
    left = len(have) - len(shown)
    if not shown:
        return f"It has {left:,}, whose names are long. Check its first row and the separator."
    return f"It has: {', '.join(map(repr, shown))}{f' and {left:,} more' if left else ''}."


def with_names(table: Table, wanted: Iterable[str]) -> Table:
    """The table with columns renamed that differ from a wanted name only in letter case or blanks.

    Raises:
        InputError: Two columns match the same name.
    """
    renamed: dict[str, str] = {}
    plain: dict[str, list[str]] = {}
    for column in table.columns:
        plain.setdefault(_plain(column), []).append(column)
    for name in dict.fromkeys(wanted):
        alike = plain.get(_plain(name), [])
        if name in alike:
            continue
        if len(alike) > 1:
            raise InputError(
                f"{table.source}: {' and '.join(repr(column[:_LONG]) for column in alike)} could both be {name!r}. Rename one of them."
            )
        for column in alike:
            warn(f"{table.source}: column {column!r} taken for {name!r}.")
            renamed[column] = name
    if not renamed:
        return table

    def blocks() -> Iterator[Rows]:
        for rows in table.blocks():
            yield [{renamed.get(column, column): cell for column, cell in row.items()} for row in rows]

    return replace(table, columns=[renamed.get(column, column) for column in table.columns], blocks=blocks)


def _plain(name: Any) -> str:
    return "".join(str(name).split()).casefold()


def first_rows(table: Table, count: int) -> Table:
    """The table with its first rows only."""

    def blocks() -> Iterator[Rows]:
        left = count
        for rows in table.blocks():
            yield rows[:left]
            left -= len(rows)
            if left <= 0:
                return

    return replace(table, blocks=blocks)


def write_parquet(records: Iterable[Mapping[str, Any]], file: IO[bytes], kinds: Mapping[str, str]) -> int:
    """Write records with the same keys as a Parquet file, some at a time, and return their number.

    Columns contain strings, but for those in `kinds`. Nested values become JSON, so the schema does not depend on them.
    """
    import pyarrow
    import pyarrow.parquet

    left = iter(records)
    count, some = 0, list(islice(left, ROWS_AT_ONCE))
    schema = pyarrow.schema([(name, kinds.get(name, "string")) for record in some[:1] for name in record])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some:
            rows = [{name: _parquet_cell(value) for name, value in record.items()} for record in some]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            count += len(some)
            some = list(islice(left, ROWS_AT_ONCE))
    return count


def _parquet_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _jsonl(opened: Opened, source: str) -> tuple[list[str], Blocks]:
    if (place := first_fault(opened, "utf-8-sig")) is not None:
        raise _not_utf8(source, place)

    def blocks() -> Iterator[Rows]:
        count, characters, rows = 0, 0, []
        with text_of(opened, "utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line, object_pairs_hook=_object)
                except json.JSONDecodeError as error:
                    raise InputError(f"{source} line {number} is not JSON: {error.msg}.") from None
                except _KeyTwice:
                    raise InputError(f"{source} line {number} has a key twice. Give each key once.") from None
                count += 1
                rows.append(_record(row, count, source))
                characters += len(line)
                if len(rows) == ROWS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
                    yield rows
                    characters, rows = 0, []
        if rows:
            yield rows

    columns = dict.fromkeys(
        key for rows in blocks() for row in rows for key in row
    )  # of all, since a row may lack some
    return list(columns), blocks


def _json(opened: Opened, source: str) -> tuple[list[str], Blocks]:
    try:
        with opened() as file:
            data = json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise _not_utf8(source, error.start) from None
    except _KeyTwice:
        raise InputError(f"{source} has a key twice in one object. Give each key once.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON: line {error.lineno}, {error.msg}.") from None
    if not isinstance(data, list):
        raise InputError(
            f"{source} must hold a list of objects, one per report pair: what pandas writes with to_json(orient='records')."
        )
    rows = [_record(row, number, source) for number, row in enumerate(data, 1)]
    return column_names(rows), lambda: iter([rows] if rows else [])


class _KeyTwice(Exception):
    """JSON readers silently keep the last of two values of a key."""


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) < len(items):
        raise _KeyTwice
    return made


def _record(row: Any, number: int, source: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{source} row {number} is not an object. Give one object per report pair.")
    return row


def _not_utf8(source: str, place: int) -> InputError:
    return InputError(f"{source} is not UTF-8 text (byte {place}). Save it as UTF-8.")


_DELIMITED = {".csv": ",", ".tsv": "\t"}
_READERS: dict[str, Callable[[Opened, str], tuple[list[str], Blocks]]] = {".jsonl": _jsonl, ".json": _json}
READABLE = (*_DELIMITED, *_READERS, ".parquet")  # endings
