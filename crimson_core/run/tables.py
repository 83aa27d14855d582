"""Report pairs from a file: CSV, TSV, JSONL, JSON or Parquet."""

import codecs
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from crimson_core.errors import InputError, InputWarning
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair, is_missing, make_pairs, parse_context
from crimson_core.run.delimited import decoded, is_usual, rows_of
from crimson_core.run.parquet import MOST, Limits, read_parquet

Rows = list[dict[str, Any]]
BY_OPTION = "Name the right one with --{role}-column."  # the advice in errors about a missing column
_NO_REPORT = frozenset({"nan", "<na>", "na", "n/a", "#n/a", "none", "null"})
_MOST_LISTED = 5  # rows that an error names
_LONG, _MOST_NAMES = 40, 20  # characters of a column name, and column names, that an error shows


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=3)


def read_rows(
    path: Path,
    separator: str | None = None,
    encoding: str | None = None,
    tell: Callable[[str], None] = _warn,
    limits: Limits = MOST,
) -> Rows:
    """The rows of a file, as mappings from column name to cell; the file's ending determines the format.

    Cells of CSV and TSV are strings, or None if empty.

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
        raise InputError(f"{path} has an unknown ending. Give a file that ends in {', '.join(READABLE)}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file. Check the path.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    return parse_rows(data, path.suffix.lower(), str(path), separator, encoding, tell, limits)


def parse_rows(
    data: bytes,
    ending: str,
    source: str,
    separator: str | None = None,
    encoding: str | None = None,
    tell: Callable[[str], None] = _warn,
    limits: Limits = MOST,
) -> Rows:
    """The rows in a file's content; like `read_rows`, with the ending and the name of the file given."""
    try:
        if ending in _DELIMITED:
            text = decoded(data, source, encoding, tell)
            rows = rows_of(text, source, separator, _DELIMITED[ending], tell)
        elif separator or encoding:
            raise InputError(f"separator and encoding are for CSV and TSV, which {source} is not. Leave them out.")
        elif ending == ".parquet":
            rows = read_parquet(data, source, limits)
        else:
            rows = _READERS[ending](data, source)
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except InputError:
        raise
    except (RecursionError, OverflowError, ValueError) as error:  # JSON nested too deeply, a number too long
        raise InputError(
            f"{source} cannot be read: {type(error).__name__}. Check that it is a table of reports."
        ) from None
    if not rows:
        raise InputError(f"{source} has no rows: there is nothing to score.")
    return rows


def guess_ending(data: bytes) -> str:
    """The usual ending of a file with this content."""
    if data.startswith(b"PAR1"):
        return ".parquet"
    return {b"[": ".json", b"{": ".jsonl"}.get(data.removeprefix(codecs.BOM_UTF8).lstrip()[:1], ".csv")


def column_names(rows: Rows) -> list[str]:
    """The columns of all rows, in order; a JSON row may lack some of them."""
    return list(dict.fromkeys(key for row in rows for key in row))


def told_columns(have: Sequence[str]) -> str:
    """The columns of a table for errors. Without a header the names are the first row's cells, which may be reports."""
    if not any(map(is_usual, have)):
        return f"It has {len(have)}, none with a usual name. Check that its first row, or its keys, are the names."
    shown = [name for name in map(str, have) if len(name) <= _LONG][:_MOST_NAMES]
    left = len(have) - len(shown)
    return f"It has: {', '.join(map(repr, shown))}{f' and {left:,} more' if left else ''}."


def match_columns(rows: Rows, wanted: Iterable[str], source: str, tell: Callable[[str], None] = _warn) -> Rows:
    """Rename columns that differ from a wanted name only in letter case or blanks.

    Raises:
        InputError: Two columns match the same name.
    """
    have = column_names(rows)
    renamed: dict[str, str] = {}
    for name in dict.fromkeys(wanted):
        alike = [column for column in have if name not in have and _plain(column) == _plain(name)]
        if len(alike) > 1:
            raise InputError(
                f"{source}: {' and '.join(repr(column[:_LONG]) for column in alike)} could both be {name!r}. Rename one of them."
            )
        for column in alike:
            tell(f"{source}: column {column!r} taken for {name!r}.")
            renamed[column] = name
    return [{renamed.get(column, column): cell for column, cell in row.items()} for row in rows] if renamed else rows


def _plain(name: Any) -> str:
    return "".join(str(name).split()).casefold()


def without_blank_rows(rows: Rows) -> Rows:
    """The rows with at least one cell that is not blank."""
    return [row for row in rows if not _is_blank(row)]


def pairs_from_rows(
    rows: Rows,
    columns: Mapping[str, str],
    source: str,
    how: str = BY_OPTION,
    *,
    fill_missing: bool = False,
    tell: Callable[[str], None] = _warn,
) -> list[ReportPair]:
    """Report pairs from rows. An unreadable age is reported through `tell` and treated as unknown.

    Args:
        rows: Rows as `read_rows` returns them.
        columns: Column names with the keys `prediction` and `reference`, and optionally id, age, sex and indication.
        source: The name of the rows in errors.
        how: The advice in errors about a missing column; may be empty.
        fill_missing: Treat a missing report as an empty one.
        tell: Called with a message about unreadable ages.

    Raises:
        InputError: A column or a report is missing, a cell is not a report or context, or an id is not unique; the
            message names the row (from 1) and the column.
    """
    have = column_names(rows)
    for role, column in columns.items():
        if column not in have:
            raise InputError(
                f"{source} has no column {column!r} for the {role}. {told_columns(have)} " + how.format(role=role)
            )
    for number, row in enumerate(rows, 1):
        for column in (columns["prediction"], columns["reference"]):
            if column not in row:
                raise InputError(f"{source} row {number} has no {column!r}. Every row needs a {column!r}.")
    if not fill_missing:
        _check_missing(rows, dict.fromkeys((columns["reference"], columns["prediction"])), source, how)
    if "id" in columns:
        _check_ids(rows, columns["id"], source)
    context_columns = {field: columns[field] for field in CONTEXT_FIELDS if field in columns}
    contexts = [{field: row.get(column) for field, column in context_columns.items()} for row in rows]
    unread = [n for n, context in enumerate(contexts, 1) if not _is_age(context.get("age"))]
    for number in unread:
        contexts[number - 1]["age"] = None
    if unread:
        tell(
            f"{source}, column {columns['age']!r}: the age can't be read in {_listed(unread)}, and is taken as unknown."
        )

    def where(argument: str, row: int) -> str:
        role = {"predictions": "prediction", "references": "reference", "ids": "id"}.get(argument)
        return f"{source} row {row + 1}" + (f", column {columns[role]!r}" if role else ", context")

    return make_pairs(
        ["" if _is_no_report(row[columns["prediction"]]) else row[columns["prediction"]] for row in rows],
        ["" if _is_no_report(row[columns["reference"]]) else row[columns["reference"]] for row in rows],
        contexts,
        [row.get(columns["id"]) for row in rows] if "id" in columns else None,
        where=where,
    )


def _check_missing(rows: Rows, columns: Iterable[str], source: str, how: str) -> None:
    """Refuse rows without a report: a judge would read placeholders as a normal report."""
    if blank := [number for number, row in enumerate(rows, 1) if _is_blank(row)]:
        raise InputError(
            f"{source}: {_listed(blank)} {_are(blank)} blank. Delete {'it' if len(blank) == 1 else 'them'}."
        )
    for column in columns:
        if missing := [number for number, row in enumerate(rows, 1) if _is_no_report(row[column])]:
            raise InputError(
                f"{source}, column {column!r}: the report is missing in {_listed(missing)}. Fill it in or delete the row"
                + (", or treat missing reports as empty ones with --fill-missing." if how == BY_OPTION else ".")
            )


def _check_ids(rows: Rows, column: str, source: str) -> None:
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        cell = row.get(column)
        if is_missing(cell) or cell == "":
            continue
        if str(cell) in seen:
            raise InputError(
                f"{source} row {number} has the id {str(cell)[:40]!r} of an earlier row. Give each row its own."
            )
        seen.add(str(cell))


def _is_no_report(cell: Any) -> bool:
    """Whether a cell is missing, or holds a usual placeholder for missing values."""
    return is_missing(cell) or (isinstance(cell, str) and cell.strip().casefold() in _NO_REPORT)


def _is_blank(row: Mapping[str, Any]) -> bool:
    return all(is_missing(cell) or (isinstance(cell, str) and not cell.strip()) for cell in row.values())


def _is_age(cell: Any) -> bool:
    """Whether a cell is a readable age, is missing, or has a type that `make_pairs` refuses anyway."""
    if not isinstance(cell, (str, int, float)):
        return True
    try:
        parse_context({"age": cell}, "")
    except InputError:
        return False
    return True


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_LISTED]))
    more = len(numbers) - _MOST_LISTED
    return f"row{'s' * (len(numbers) > 1)} {shown}" + (f" and {more} more" if more > 0 else "")


def _are(numbers: Sequence[int]) -> str:
    return "is" if len(numbers) == 1 else "are"


def align_systems(systems: Mapping[str, Sequence[ReportPair]], *, by_id: bool) -> dict[str, list[ReportPair]]:
    """Check that several systems have the same references, and sort their pairs like those of the first system.

    Args:
        systems: Name of a system -> its report pairs.
        by_id: Join the pairs by their ids; else the rows must be in the same order.

    Raises:
        InputError: The systems have different pairs, references or patient contexts; the message names the place.
    """
    (first, pairs), *others = systems.items()
    if not by_id:
        for name, theirs in others:
            if len(theirs) != len(pairs):
                raise InputError(
                    f"{name} has {len(theirs)} rows and {first} has {len(pairs)}. Choose an id column to join them by."
                )
        ordered = {name: list(theirs) for name, theirs in systems.items()}
    else:
        by_ids = {name: _by_id(name, theirs) for name, theirs in systems.items()}
        for name, found in by_ids.items():
            for one, here, other, there in ((first, by_ids[first], name, found), (name, found, first, by_ids[first])):
                lacking = [i for i in here if i not in there]
                if lacking:
                    shown = ", ".join(repr(i[:40]) for i in lacking[:3]) + (", …" if len(lacking) > 3 else "")
                    raise InputError(
                        f"{other} lacks {len(lacking)} of the ids of {one}: {shown}. Give the same pairs for all systems."
                    )
        ordered = {name: [found[i] for i in by_ids[first]] for name, found in by_ids.items()}
    for name, theirs in ordered.items():
        for row, (pair, own) in enumerate(zip(ordered[first], theirs, strict=True), 1):
            place = f"id {pair.id[:40]!r}" if by_id and pair.id else f"row {row}"
            if own.reference != pair.reference:
                raise InputError(
                    f"{name} {place}: the reference report is not that of {first}. "
                    "Give the same references" + ("." if by_id else " in the same order, or choose an id column.")
                )
            if (own.context and own.context.as_dict()) != (pair.context and pair.context.as_dict()):
                raise InputError(
                    f"{name} {place}: age, sex or indication is not that of {first}. Give the same context."
                )
    return ordered


def write_parquet(records: Sequence[Mapping[str, Any]], file: IO[bytes]) -> None:
    """Write results (`PairResult.as_dict`) as a Parquet file; nested values become JSON strings."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"index": pyarrow.int64(), "crimson_score": pyarrow.float64(), "from_store": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in records[0]])
    rows = [{name: parquet_cell(value) for name, value in record.items()} for record in records]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file)


def parquet_cell(value: Any) -> Any:
    """The value, or its JSON if it is nested, so that the schema does not depend on the evaluations."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _by_id(name: str, pairs: Sequence[ReportPair]) -> dict[str, ReportPair]:
    found: dict[str, ReportPair] = {}
    for row, pair in enumerate(pairs, 1):
        if not pair.id:
            raise InputError(f"{name} row {row} has no id. Every row needs one to be joined by.")
        if pair.id in found:
            raise InputError(f"{name} row {row} has the id {pair.id[:40]!r} of an earlier row. Give each row its own.")
        found[pair.id] = pair
    return found


def _read_jsonl(data: bytes, source: str) -> Rows:
    rows = []
    for number, line in enumerate(io.StringIO(data.decode("utf-8-sig")), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line, object_pairs_hook=_object))
        except json.JSONDecodeError as error:
            raise InputError(f"{source} line {number} is not JSON: {error.msg}.") from None
        except _KeyTwice:
            raise InputError(f"{source} line {number} has a key twice. Give each key once.") from None
    return _records(rows, source)


def _read_json(data: bytes, source: str) -> Rows:
    try:
        rows = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except _KeyTwice:
        raise InputError(f"{source} has a key twice in one object. Give each key once.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON: line {error.lineno}, {error.msg}.") from None
    if not isinstance(rows, list):
        raise InputError(f"{source} must hold a list of objects, one per report pair.")
    return _records(rows, source)


class _KeyTwice(Exception):
    """Of two values of one key JSON readers take the last one, without a word."""


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) < len(items):
        raise _KeyTwice
    return made


def _records(rows: list[Any], source: str) -> Rows:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{source} row {number} is not an object. Give one object per report pair.")
    return rows


_DELIMITED = {".csv": ",", ".tsv": "\t"}
_READERS = {".jsonl": _read_jsonl, ".json": _read_json}
READABLE = (*_DELIMITED, *_READERS, ".parquet")  # endings
