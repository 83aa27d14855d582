"""Rows of Parquet files, with limits: a file can unpack to a thousand times its size."""

from itertools import chain
from typing import Any, NamedTuple

from crimson_core.errors import InputError

_AT_ONCE = 1_000  # rows


class Limits(NamedTuple):
    """Limits of an unpacked Parquet file: rows, and characters of all cells together."""

    rows: int
    characters: int


MOST = Limits(rows=100_000_000, characters=2**34)


def read_parquet(data: bytes, source: str, limits: Limits = MOST) -> list[dict[str, Any]]:
    """The rows, read in batches. Columns of lists are left out: their rows can have any number of values, and no
    reports.

    Values that the file stores once, in a dictionary, stay one object, so that even a batch takes little memory.

    Raises:
        InputError: The file is not a Parquet file, is damaged or exceeds the limits.
    """
    try:
        import pyarrow
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)) as file:
            _check_said(source, file.metadata, limits)
            flat = [c for c in (file.schema.column(n) for n in range(len(file.schema))) if not c.max_repetition_level]
        texts = [column.path for column in flat if column.physical_type == "BYTE_ARRAY"]
        rows: list[dict[str, Any]] = []
        characters = 0
        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data), read_dictionary=texts) as file:
            for batch in file.iter_batches(_AT_ONCE, columns=[column.path for column in flat]):
                cells = [_cells(column) for column in batch.columns]
                characters += sum(map(_length, chain.from_iterable(cells)))
                if characters > limits.characters:
                    raise InputError(f"{source} unpacks to too much; {_most(limits)} are accepted.")
                rows += [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*cells, strict=True)]
                if len(rows) > limits.rows:
                    raise InputError(f"{source} has too many rows; at most {limits.rows:,} are accepted.")
        return rows
    except (InputError, ImportError):
        raise
    except Exception as error:  # a damaged file raises many kinds; their messages may contain cells
        raise InputError(f"{source} is not a Parquet file that can be read ({type(error).__name__}).") from None


def _check_said(source: str, about: Any, limits: Limits) -> None:
    """Check the sizes in the file's own metadata, which may be too low."""
    if about.num_rows > limits.rows:
        raise InputError(f"{source} has {about.num_rows:,} rows; at most {limits.rows:,} are accepted.")
    size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    if size > limits.characters:
        raise InputError(f"{source} unpacks to {size / 2**20:,.0f} MB; {_most(limits)} are accepted.")


def _most(limits: Limits) -> str:
    return f"at most {limits.characters / 2**20:,.0f} MB"


def _length(cell: Any) -> int:
    if isinstance(cell, dict):
        return sum(map(_length, cell.values()))
    return len(cell) if isinstance(cell, (str, bytes)) else 1


def _cells(column: Any) -> list[Any]:
    """The cells of a column; equal cells of a dictionary column are one object."""
    if hasattr(column, "dictionary"):
        values = column.dictionary.to_pylist()
        return [None if place is None else values[place] for place in column.indices.to_pylist()]
    if column.type.num_fields and hasattr(column, "flatten"):  # a record
        names = [column.type.field(number).name for number in range(column.type.num_fields)]
        rows = zip(*map(_cells, column.flatten()), strict=True)
        there = column.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if valid else None for row, valid in zip(rows, there, strict=True)]
    return column.to_pylist()
