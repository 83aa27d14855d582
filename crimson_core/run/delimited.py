"""CSV and TSV files, read in blocks, with detection of the separator and the encoding."""

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from crimson_core.errors import InputError

Opened = Callable[[], IO[bytes]]  # opens the content of a file from its start, as often as needed

_SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
_CHUNK = 2**20  # bytes
ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 1_000, 2**20  # of a block of rows, whichever comes first


def found_encoding(opened: Opened, source: str, encoding: str | None, tell: Callable[[str], None]) -> str:
    """The codec of a file: the given encoding, else UTF-8, UTF-16 with a byte order mark, or Windows-1252.

    Raises:
        InputError: The file is not text in that encoding.
    """
    with opened() as file:
        mark = file.read(2)
    named = encoding or ("utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8")
    try:
        name = codecs.lookup(named).name
        io.TextIOWrapper(io.BytesIO(), encoding=name)  # refuses codecs that are not of text
    except LookupError:
        raise InputError(
            f"encoding is {encoding!r}, which is unknown. Give utf-8, cp1252 or utf-16, for example."
        ) from None
    codec = "utf-8-sig" if name == "utf-8" else name
    place = first_fault(opened, codec)
    if place is not None:
        if encoding or _holds_nul(opened):
            raise InputError(f"{source} is not text in {named} (byte {place}). Name its encoding.")
        if first_fault(opened, "cp1252") is not None:
            raise InputError(f"{source} is not UTF-8 text (byte {place}). Save it as UTF-8.")
        tell(f"{source} is not UTF-8: read as Windows-1252, which spreadsheet programs write.")
        return "cp1252"
    if not encoding and name != "utf-8":
        tell(f"{source}: encoding {name} found.")
    return codec


def first_fault(opened: Opened, codec: str) -> int | None:
    """The position of the first byte that is not text in this codec; None if there is none."""
    decoder = codecs.getincrementaldecoder(codec)()
    read = 0
    with opened() as file:
        while True:
            data = file.read(_CHUNK)
            waiting = len(decoder.getstate()[0])  # bytes of a character that the last chunk has cut
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                return read - waiting + error.start
            if not data:
                return None
            read += len(data)


def _holds_nul(opened: Opened) -> bool:
    with opened() as file:
        return any(b"\0" in data for data in iter(lambda: file.read(_CHUNK), b""))


@contextmanager
def text_of(opened: Opened, codec: str, newline: str = "") -> Iterator[io.TextIOWrapper]:
    """A file's text; its lines keep their ends."""
    with opened() as file, io.TextIOWrapper(file, encoding=codec, newline=newline) as text:
        yield text


def delimited(
    opened: Opened,
    source: str,
    separator: str | None,
    encoding: str | None,
    usual: str,
    tell: Callable[[str], None],
) -> tuple[list[str], Callable[[], Iterator[list[dict[str, Any]]]]]:
    """The columns of a table, and what reads its rows in blocks; an empty or blank cell is None.

    Args:
        opened: Opens the file.
        source: The file's name in errors.
        separator: Separator of cells; None detects the one that splits the header into the most cells.
        encoding: Encoding; None detects it.
        usual: The usual separator of this file type.
        tell: Called with a message if an unusual separator or encoding is detected.

    Raises:
        InputError: The file is not a table: a column name is not unique, or a row has a different number of cells.
    """
    codec = found_encoding(opened, source, encoding, tell)
    given = separator
    found = _NAMED.get(given.lower(), given) if given else _separator(opened, codec, usual)
    if len(found) != 1:
        raise InputError(f"separator is {found!r}. Give one character, or tab.")
    if not given and found != usual:
        tell(f"{source}: separator {_name_of(found)} found.")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses reports beyond 128 KiB

    def blocks() -> Iterator[list[dict[str, Any]]]:
        number, characters, rows = 0, 0, []
        with text_of(opened, codec) as text:
            lines = _rows(text, found)
            try:
                names = next(lines, [])
                for cells in lines:
                    number += 1
                    if len(cells) != len(names):
                        raise InputError(
                            f"{source} row {number} has a different number of cells than the header, with the separator "
                            f"{_name_of(found)}. Quote reports that contain the separator."
                        )
                    rows.append({name: cell if cell.strip() else None for name, cell in zip(names, cells, strict=True)})
                    characters += sum(map(len, cells))
                    if len(rows) == ROWS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
                        yield rows
                        characters, rows = 0, []
            except csv.Error as error:
                raise _unreadable(source, number, error) from None
        if rows:
            yield rows

    with text_of(opened, codec) as text:
        try:
            columns = next(_rows(text, found), [])
        except csv.Error as error:
            raise _unreadable(source, 0, error) from None
    places: dict[str, int] = {}
    for place, name in enumerate(columns, 1):
        if places.setdefault(name, place) != place:
            what = f"two columns {name!r}" if is_usual(name) else "two columns of the same name"
            raise InputError(f"{source} has {what}, {places[name]} and {place}. Rename one of them.")
    return columns, blocks


def _rows(text: io.TextIOWrapper, separator: str) -> Iterator[list[str]]:
    """The cells of each row that is not an empty line; the first ones are the column names."""
    return filter(None, csv.reader(text, delimiter=separator, strict=True))


def _unreadable(source: str, row: int, error: csv.Error) -> InputError:
    place = f"beyond row {row}" if row else "from its first rows on"
    return InputError(f"{source} cannot be read {place}: {error}. Check the quotation marks.")


def _name_of(separator: str) -> str:
    return _SEPARATORS.get(separator, repr(separator))


def _separator(opened: Opened, codec: str, usual: str) -> str:
    def cells(separator: str) -> int:
        with text_of(opened, codec) as text:
            try:
                return len(next(filter(None, csv.reader(text, delimiter=separator)), []))
            except csv.Error:
                return 0

    return max(_SEPARATORS, key=lambda separator: (cells(separator), separator == usual))


def is_usual(name: Any) -> bool:
    """Whether a name is a usual column name. Any other may be a cell of a table without a header, and thus a report."""
    words = set(re.split(r"[\W_\d]+", name.strip().lower())) - {""} if isinstance(name, str) else set()
    return bool(words) and words <= _USUAL


_USUAL = frozenset(
    """
    reference ref prediction pred candidate report reports id uid age sex gender indication history findings
    impression text generated generation hypothesis hyp target label labels gt gold ground truth study patient
    subject split system model accession clinical
    """.split()
)
