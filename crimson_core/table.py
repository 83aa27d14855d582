"""Report pairs from a file: CSV, TSV, JSONL, JSON or Parquet."""

import csv
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crimson_core.errors import InputError
from crimson_core.report import CONTEXT_FIELDS, ReportPair, make_pairs

Rows = list[dict[str, Any]]


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


def pairs_from_rows(rows: Rows, columns: Mapping[str, str], source: str) -> list[ReportPair]:
    """Report pairs from rows.

    Args:
        rows: As `read_rows` gives them.
        columns: Column names under the keys `prediction` and `reference`, and optionally id, age, sex and indication.
        source: What to call the rows in an error.

    Raises:
        InputError: A column is missing, or a cell is no report or context; names the row (from 1) and the column.
    """
    have = column_names(rows)
    for role, column in columns.items():
        if column not in have:
            raise InputError(
                f"{source} has no column {column!r} for the {role}. It has: {', '.join(map(repr, have))}. "
                f"Name the right one with --{role}-column."
            )
    for number, row in enumerate(rows, 1):
        for column in (columns["prediction"], columns["reference"]):
            if column not in row:
                raise InputError(f"{source} row {number} has no {column!r}. Every row needs a {column!r}.")
    context_columns = {field: columns[field] for field in CONTEXT_FIELDS if field in columns}

    def where(argument: str, row: int) -> str:
        role = {"predictions": "prediction", "references": "reference"}.get(argument)
        return f"{source} row {row + 1}" + (f", column {columns[role]!r}" if role else ", context")

    return make_pairs(
        [row[columns["prediction"]] for row in rows],
        [row[columns["reference"]] for row in rows],
        [{field: row.get(column) for field, column in context_columns.items()} for row in rows],
        [row.get(columns["id"]) for row in rows] if "id" in columns else None,
        where=where,
    )


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
