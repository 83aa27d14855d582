"""CSV and TSV files, with detection of the separator and the encoding."""

import codecs
import csv
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from crimson_core.errors import InputError

_SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}


def decoded(data: bytes, source: str, encoding: str | None, tell: Callable[[str], None]) -> str:
    """The text of a file: in the given encoding, else in UTF-8, UTF-16 with a byte order mark, or Windows-1252.

    Raises:
        InputError: The file is not text in that encoding.
    """
    named = encoding or ("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8")
    try:
        name = codecs.lookup(named).name
        text = data.decode("utf-8-sig" if name == "utf-8" else name)
    except LookupError:
        raise InputError(
            f"encoding is {encoding!r}, which is unknown. Give utf-8, cp1252 or utf-16, for example."
        ) from None
    except UnicodeDecodeError as error:
        if encoding or b"\0" in data:
            raise InputError(f"{source} is not text in {named} (byte {error.start}). Name its encoding.") from None
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise InputError(f"{source} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
        tell(f"{source} is not UTF-8: read as Windows-1252, which spreadsheet programs write.")
    else:
        if not encoding and name != "utf-8":
            tell(f"{source}: encoding {name} found.")
    return text


def rows_of(
    text: str, source: str, separator: str | None, usual: str, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The rows of a table; an empty or blank cell is None.

    Args:
        text: The file's text.
        source: The file's name in errors.
        separator: Separator of cells; None detects the one that splits the header into the most cells.
        usual: The usual separator of this file type.
        tell: Called with a message if another separator is detected.

    Raises:
        InputError: The text is not a table: a column name is not unique, or a row has a different number of cells.
    """
    given = separator
    separator = _NAMED.get(given.lower(), given) if given else _separator(text, usual)
    if len(separator) != 1:
        raise InputError(f"separator is {separator!r}. Give one character, or tab.")
    if not given and separator != usual:
        tell(f"{source}: separator {_SEPARATORS.get(separator, repr(separator))} found.")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses reports beyond 128 KiB
    reader = csv.DictReader(_lines(text), delimiter=separator, strict=True)
    rows: list[dict[str, Any]] = []
    try:
        names = reader.fieldnames or []
        rows.extend(reader)
    except csv.Error as error:
        raise InputError(
            f"{source} cannot be read beyond row {len(rows)}: {error}. Check the quotation marks."
        ) from None
    places: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if places.setdefault(name, place) != place:
            told = f"two columns {name!r}" if is_usual(name) else "two columns of the same name"
            raise InputError(f"{source} has {told}, {places[name]} and {place}. Rename one of them.")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(
                f"{source} row {number} has a different number of cells than the header, with the separator "
                f"{_SEPARATORS.get(separator, repr(separator))}. Quote reports that contain the separator."
            )
    return [{name: cell if cell.strip() else None for name, cell in row.items()} for row in rows]


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, with their ends; `io.StringIO` would copy it whole, with four bytes for each character."""
    return (match[0] for match in _LINE.finditer(text))


def _separator(text: str, usual: str) -> str:
    def cells(separator: str) -> int:
        try:
            return len(next(csv.reader(_lines(text), delimiter=separator), []))
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
