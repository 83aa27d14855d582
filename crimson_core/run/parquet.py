"""Rows of Parquet files, with limits: a file can unpack to a thousand times its size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Any, NamedTuple

from crimson_core.errors import InputError
from crimson_core.run.delimited import ROWS_AT_ONCE, Opened

# A large file may be a single group of rows, whose columns do not fit into the memory.
_BUFFER = 2**20  # bytes of a column that are read at once
_LARGE, _FEW_AT_ONCE = 2**24, 64  # bytes of a group, and rows


class Limits(NamedTuple):
    """Limits of an unpacked Parquet file: rows, and characters of all cells together."""

    rows: int
    characters: int


MOST = Limits(rows=100_000_000, characters=2**34)


def parquet(
    opened: Opened, source: str, limits: Limits = MOST
) -> tuple[list[str], Callable[[], Iterator[list[dict[str, Any]]]]]:
    """The columns of a table, and what reads its rows in blocks.

    Columns of lists are left out: their rows can have any number of values, and no reports. What a file stores once, in a dictionary,
    stays one object, however often it comes out. Large dictionaries are not kept; few rows are read at once instead.

    Raises:
        InputError: The file is not a Parquet file, is damaged or exceeds the limits.
    """
    with _read(opened, source) as file:
        _check_stated_sizes(source, file.metadata, limits)
        flat = [c for c in (file.schema.column(n) for n in range(len(file.schema))) if not c.max_repetition_level]
        heads = {head for column in flat for head in accumulate(column.path.split("."), "{}.{}".format)}
        names = [name for name in file.schema_arrow.names if name in heads]
        large = max(_sizes(file.metadata), default=0) > _LARGE
    texts = [column.path for column in flat if column.physical_type == "BYTE_ARRAY" and not large]
    paths = [column.path for column in flat]
    at_once = _FEW_AT_ONCE if large else ROWS_AT_ONCE

    def blocks() -> Iterator[list[dict[str, Any]]]:
        number = characters = 0
        with _read(opened, source, read_dictionary=texts) as file:
            for batch in file.iter_batches(at_once, columns=paths):
                cells = [_cells(column) for column in batch.columns]
                number += batch.num_rows
                characters += sum(map(_length, chain.from_iterable(cells)))
                if characters > limits.characters:
                    raise InputError(f"{source} unpacks to too much; {_most(limits)} are accepted.")
                if number > limits.rows:
                    raise InputError(f"{source} has too many rows; at most {limits.rows:,} are accepted.")
                yield [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*cells, strict=True)]

    return names, blocks


@contextmanager
def _read(opened: Opened, source: str, **options: Any) -> Iterator[Any]:
    """A Parquet file, whose columns are read in pieces; every problem is an `InputError`."""
    try:
        import pyarrow.parquet

        with opened() as file, pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, **options) as table:
            yield table
    except (InputError, ImportError, GeneratorExit):
        raise
    except Exception as error:  # a damaged file raises many kinds; their messages may contain cells
        raise InputError(f"{source} is not a Parquet file that can be read ({type(error).__name__}).") from None


def _check_stated_sizes(source: str, about: Any, limits: Limits) -> None:
    """Check the sizes in the file's own metadata, which may be too low."""
    if about.num_rows > limits.rows:
        raise InputError(f"{source} has {about.num_rows:,} rows; at most {limits.rows:,} are accepted.")
    size = sum(_sizes(about))
    if size > limits.characters:
        raise InputError(f"{source} unpacks to {size / 2**20:,.0f} MB; {_most(limits)} are accepted.")


def _sizes(about: Any) -> list[int]:
    """Unpacked bytes of each group of rows. (To ask for those of a column kills the process if the file is damaged.)"""
    return [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]


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
