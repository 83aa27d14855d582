"""Report pairs from a file: CSV, TSV, JSONL, JSON or Parquet."""

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crimson_core.errors import InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair, make_pairs

Rows = list[dict[str, Any]]
BY_OPTION = "Name the right one with --{role}-column."  # what an error about a missing column says can be done


def read_rows(path: Path) -> Rows:
    """The rows of a file, by column name; the format is told by the file's ending.

    Cells of CSV and TSV are strings; nothing is taken for a missing value but an empty cell, which is an empty string.

    Raises:
        InputError: The file is missing, empty, unreadable or of another format.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path} has an unknown ending. Give a file that ends in {', '.join(_READERS)}.")
    if not path.is_file():
        raise InputError(f"{path} is no file. Check the path.")
    try:
        rows = read(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except (
        RecursionError,
        OverflowError,
        ValueError,
    ) as error:  # JSON that is too deep, a number of thousands of digits
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be read: {type(error).__name__}. Check that it is a table of reports."
        ) from None
    if not rows:
        raise InputError(f"{path} holds no rows: there is nothing to score.")
    return rows


def column_names(rows: Rows) -> list[str]:
    """The columns of rows, in order; of JSON, where a row may lack a key, those of any row."""
    return list(dict.fromkeys(key for row in rows for key in row))


def pairs_from_rows(rows: Rows, columns: Mapping[str, str], source: str, how: str = BY_OPTION) -> list[ReportPair]:
    """Report pairs from rows.

    Args:
        rows: As `read_rows` gives them.
        columns: Column names under the keys `prediction` and `reference`, and optionally id, age, sex and indication.
        source: What to call the rows in an error.
        how: What an error about a missing column says can be done.

    Raises:
        InputError: A column is missing, or a cell is no report or context; names the row (from 1) and the column.
    """
    have = column_names(rows)
    for role, column in columns.items():
        if column not in have:
            raise InputError(
                f"{source} has no column {column!r} for the {role}. It has: {', '.join(map(repr, have))}. "
                + how.format(role=role)
            )
    for number, row in enumerate(rows, 1):
        for column in (columns["prediction"], columns["reference"]):
            if column not in row:
                raise InputError(f"{source} row {number} has no {column!r}. Every row needs a {column!r}.")
    context_columns = {field: columns[field] for field in CONTEXT_FIELDS if field in columns}

    def where(argument: str, row: int) -> str:
        role = {"predictions": "prediction", "references": "reference", "ids": "id"}.get(argument)
        return f"{source} row {row + 1}" + (f", column {columns[role]!r}" if role else ", context")

    return make_pairs(
        [row[columns["prediction"]] for row in rows],
        [row[columns["reference"]] for row in rows],
        [{field: row.get(column) for field, column in context_columns.items()} for row in rows],
        [row.get(columns["id"]) for row in rows] if "id" in columns else None,
        where=where,
    )


def align_systems(systems: Mapping[str, Sequence[ReportPair]], *, by_id: bool) -> dict[str, list[ReportPair]]:
    """Check that several systems were run on the same references, and put their pairs in the first system's order.

    Args:
        systems: Name of a system -> its report pairs.
        by_id: Join the pairs by their ids; else the rows must be in the same order.

    Raises:
        InputError: The systems differ in their pairs, or a pair's reference or patient context differs; names the place.
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
        for name, theirs in by_ids.items():
            for one, here, other, there in ((first, by_ids[first], name, theirs), (name, theirs, first, by_ids[first])):
                lacking = [i for i in here if i not in there]
                if lacking:
                    shown = ", ".join(repr(i[:40]) for i in lacking[:3]) + (", …" if len(lacking) > 3 else "")
                    raise InputError(
                        f"{other} lacks {len(lacking)} of the ids of {one}: {shown}. Give the same pairs for all systems."
                    )
        ordered = {name: [theirs[i] for i in by_ids[first]] for name, theirs in by_ids.items()}
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


def write_parquet(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write results (`PairResult.as_dict`) as a Parquet file; what is nested is JSON in a string."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"index": pyarrow.int64(), "crimson_score": pyarrow.float64(), "from_store": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in records[0]])
    rows = [{name: parquet_cell(value) for name, value in record.items()} for record in records]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)


def parquet_cell(value: Any) -> Any:
    """The value, or its JSON if it is nested: files of one and the same schema, whatever an evaluation holds."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def check_parquet_size(path: Path, max_rows: int, max_bytes: int) -> None:
    """Refuse a Parquet file that would unpack to too much, before it is unpacked.

    Raises:
        InputError: It has more rows or bytes, or is no Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        about = pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError):
        raise InputError(f"{path} is not a Parquet file.") from None
    if about.num_rows > max_rows:
        raise InputError(f"{path} has {about.num_rows:,} rows; at most {max_rows:,} are taken here.")
    size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    if size > max_bytes:
        raise InputError(
            f"{path} unpacks to {size / 2**20:,.0f} MB; at most {max_bytes / 2**20:,.0f} MB are taken here."
        )


def _by_id(name: str, pairs: Sequence[ReportPair]) -> dict[str, ReportPair]:
    found: dict[str, ReportPair] = {}
    for row, pair in enumerate(pairs, 1):
        if not pair.id:
            raise InputError(f"{name} row {row} has no id. Every row needs one to be joined by.")
        if pair.id in found:
            raise InputError(f"{name} row {row} has the id {pair.id[:40]!r} of an earlier row. Give each row its own.")
        found[pair.id] = pair
    return found


def _read_delimited(delimiter: str) -> Callable[[Path], Rows]:
    def read(path: Path) -> Rows:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses reports beyond 128 KiB
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            rows: Rows = []
            try:
                names = reader.fieldnames or []
                rows.extend(reader)
            except csv.Error as error:
                raise InputError(
                    f"{path} cannot be read beyond row {len(rows)}: {error}. Check the quotation marks."
                ) from None
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{path} has two columns {name!r}. Rename one of them.")
        for number, row in enumerate(rows, 1):
            if None in row or None in row.values():
                raise InputError(
                    f"{path} row {number} has another number of cells than the header. Quote reports that hold the separator."
                )
        return rows

    return read


def _read_jsonl(path: Path) -> Rows:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{path} line {number} is not JSON: {error.msg}.") from None
    return _records(rows, path)


def _read_json(path: Path) -> Rows:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: line {error.lineno}, {error.msg}.") from None
    if not isinstance(rows, list):
        raise InputError(f"{path} must hold a list of objects, one per report pair.")
    return _records(rows, path)


def _records(rows: list[Any], path: Path) -> Rows:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path} row {number} is no object. Give one object per report pair.")
    return rows


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid:
        raise InputError(f"{path} is not a Parquet file.") from None


_READERS = {
    ".csv": _read_delimited(","),
    ".tsv": _read_delimited("\t"),
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
READABLE = tuple(_READERS)  # endings
