"""Report pairs from tables: all are checked before any is judged, and read again when they are."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from crimson_core.errors import InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair, is_missing, make_pairs, parse_context
from crimson_core.run.tables import Rows, Table, describe_columns, table_of, warn

BY_OPTION = "Name the right one with --{role}-column."  # the advice in errors about a missing column
_NO_REPORT = frozenset({"nan", "<na>", "na", "n/a", "#n/a", "none", "null"})
_LONGEST_NO_REPORT = max(map(len, _NO_REPORT))
_MOST_LISTED = 5  # rows that an error names
_ID_PARTS = 16


class TablePairs:
    """The report pairs of a table. They are checked once, and read anew whenever they are iterated over.

    An age that cannot be read counts as unknown, and a warning says so.

    Args:
        table: The table.
        columns: Column names with the keys `prediction` and `reference`, and optionally id, age, sex and indication.
        fill_missing: Treat a missing report as an empty one, and leave out blank rows.

    Attributes:
        n_blank: Blank rows that were left out.
        n_empty: Number of empty reports, by `reference` and `prediction`.

    Raises:
        InputError: A column or a report is missing, a cell is not a report or context, or an id is not unique; the
            message names the row (from 1) and the column.
    """

    def __init__(self, table: Table, columns: Mapping[str, str], *, fill_missing: bool = False) -> None:
        self._reading = _Reading(table, columns, BY_OPTION, fill_missing)
        self._count = sum(1 for _ in self._reading.pairs(warn))
        self.n_blank = self._reading.n_blank
        self.n_empty = self._reading.n_empty

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ReportPair]:
        count = 0
        for pair in self._reading.pairs(lambda message: None):
            count += 1
            yield pair
        if count != self._count:
            raise InputError(f"{self._reading.table.source} was changed while it was read. Run again.")


def pairs_from_rows(
    rows: Rows,
    columns: Mapping[str, str],
    source: str,
    how: str = BY_OPTION,
    *,
    fill_missing: bool = False,
    tell: Callable[[str], None] = warn,
) -> list[ReportPair]:
    """The report pairs of rows in memory; see `TablePairs`.

    Args:
        rows: The rows.
        columns: As for `TablePairs`.
        source: Name of the table in errors.
        how: The advice in errors about a missing column; may be empty.
        fill_missing: As for `TablePairs`.
        tell: Called with a message about ages that cannot be read.
    """
    return list(_Reading(table_of(rows, source), columns, how, fill_missing).pairs(tell))


def without_blank_rows(rows: Rows) -> Rows:
    """The rows with at least one cell that is not blank."""
    return [row for row in rows if any(map(_holds_something, row.values()))]


class _Reading:
    """Reads the pairs of a table, and checks them."""

    def __init__(self, table: Table, columns: Mapping[str, str], how: str, fill_missing: bool) -> None:
        self.table, self._columns, self._how, self._fill = table, columns, how, fill_missing
        have = set(table.columns)
        for role, column in columns.items():
            if column not in have:
                advice = how.format(role=role)
                raise InputError(
                    f"{table.source} has no column {column!r} for the {role}. {describe_columns(table.columns)} {advice}"
                )
        self._reports = {role: columns[role] for role in ("reference", "prediction")}
        self._context = {field: columns[field] for field in CONTEXT_FIELDS if field in columns}

    def pairs(self, tell: Callable[[str], None]) -> Iterator[ReportPair]:
        """Yield the pairs; problems of several rows are reported, or raised, at the end."""
        source, number = self.table.source, 0
        self.n_blank, self.n_empty = 0, Counter[str]()
        blank, unread = _Numbers(), _Numbers()
        missing = {column: _Numbers() for column in self._reports.values()}
        # Hashes of the ids, which may not fit into the memory themselves; in parts, since sorting takes five times as much.
        ids = [array("q") for _ in range(_ID_PARTS)]
        for rows in self.table.blocks():
            kept, numbers = [], []
            for row in rows:
                number += 1
                for column in missing:
                    if column not in row:
                        raise InputError(f"{source} row {number} has no {column!r}. Every row needs a {column!r}.")
                if not any(map(_holds_something, row.values())):
                    blank.add(number)
                    if self._fill:
                        continue
                kept.append(row)
                numbers.append(number)
            if not kept:
                continue
            texts = {column: _texts(kept, column, numbers, own) for column, own in missing.items()}
            for role, column in self._reports.items():
                self.n_empty[role] += sum(not _holds_something(text) for text in texts[column])
            given = [row.get(self._columns["id"]) for row in kept] if "id" in self._columns else None
            for one in given or ():
                if not is_missing(one) and one != "":
                    mark = hash(str(one))
                    ids[mark % _ID_PARTS].append(mark)
            yield from make_pairs(
                texts[self._reports["prediction"]],
                texts[self._reports["reference"]],
                self._contexts(kept, numbers, unread) if self._context else None,
                given,
                where=lambda argument, row, numbers=numbers: self._where(argument, numbers[row]),  # type: ignore[misc]
            )
        self.n_blank = blank.count if self._fill else 0
        if self._fill and blank.count == number:
            raise InputError(f"{source} has blank rows only: there is nothing to score.")
        if not self._fill:
            self._refuse(blank, missing)
        self._check_ids(ids)
        if unread.count:
            column = self._columns["age"]
            tell(f"{source}, column {column!r}: the age can't be read in {unread}, and is taken as unknown.")

    def _contexts(self, rows: Rows, numbers: Sequence[int], unread: "_Numbers") -> list[dict[str, Any]]:
        contexts = [{field: row.get(column) for field, column in self._context.items()} for row in rows]
        for number, context in zip(numbers, contexts, strict=True):
            if not _is_age(context.get("age")):
                unread.add(number)
                context["age"] = None
        return contexts

    def _where(self, argument: str, number: int) -> str:
        """The place of a cell, for an error."""
        role = {"predictions": "prediction", "references": "reference", "ids": "id"}.get(argument)
        return f"{self.table.source} row {number}" + (f", column {self._columns[role]!r}" if role else ", context")

    def _refuse(self, blank: "_Numbers", missing: Mapping[str, "_Numbers"]) -> None:
        """Refuse rows without a report: a judge would read placeholders as a normal report."""
        if blank.count:
            one = blank.count == 1
            raise InputError(
                f"{self.table.source}: {blank} {'is' if one else 'are'} blank. Delete {'it' if one else 'them'}."
            )
        for column, numbers in missing.items():
            if numbers.count:
                by_option = ", or treat missing reports as empty ones with --fill-missing" * (self._how == BY_OPTION)
                raise InputError(
                    f"{self.table.source}, column {column!r}: the report is missing in {numbers}. Fill it in or delete the "
                    f"row{by_option}."
                )

    def _check_ids(self, ids: "list[array[int]]") -> None:
        """Refuse an id that occurs twice; `ids` are hashes of them."""
        suspects = {one for part in ids for one, other in pairwise(sorted(part)) if one == other}
        if not suspects:
            return
        seen: set[str] = set()
        for number, row in enumerate(chain.from_iterable(self.table.blocks()), 1):
            cell = row.get(self._columns["id"])
            if hash(str(cell)) in suspects and not is_missing(cell):
                if str(cell) in seen:
                    raise InputError(
                        f"{self.table.source} row {number} has the id {str(cell)[:40]!r} of an earlier row. Give each row its own."
                    )
                seen.add(str(cell))


class _Numbers:
    """Row numbers for an error: the first ones, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[int] = []

    def add(self, number: int) -> None:
        self.count += 1
        if len(self._first) < _MOST_LISTED:
            self._first.append(number)

    def __str__(self) -> str:
        more = self.count - len(self._first)
        shown = ", ".join(map(str, self._first)) + (f" and {more} more" if more else "")
        return f"row{'s' * (self.count > 1)} {shown}"


def _texts(rows: Rows, column: str, numbers: Sequence[int], missing: _Numbers) -> list[Any]:
    """The cells of a column of reports; what stands for a missing one is an empty report."""
    texts = []
    for number, row in zip(numbers, rows, strict=True):
        cell = row[column]
        if _is_no_report(cell):
            missing.add(number)
            cell = ""
        texts.append(cell)
    return texts


def _holds_something(cell: Any) -> bool:
    return bool(cell) and not cell.isspace() if isinstance(cell, str) else not is_missing(cell)


def _is_no_report(cell: Any) -> bool:
    """Whether a cell is missing, or holds a usual placeholder for missing values."""
    if not isinstance(cell, str):
        return is_missing(cell)
    word = cell.strip()
    return len(word) <= _LONGEST_NO_REPORT and word.casefold() in _NO_REPORT


def _is_age(cell: Any) -> bool:
    """Whether a cell is a readable age, is missing, or has a type that `make_pairs` refuses anyway."""
    if not isinstance(cell, (str, int, float)):
        return True
    try:
        parse_context({"age": cell}, "")
    except InputError:
        return False
    return True


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


def _by_id(name: str, pairs: Sequence[ReportPair]) -> dict[str, ReportPair]:
    found: dict[str, ReportPair] = {}
    for row, pair in enumerate(pairs, 1):
        if not pair.id:
            raise InputError(f"{name} row {row} has no id. Every row needs one to be joined by.")
        if pair.id in found:
            raise InputError(f"{name} row {row} has the id {pair.id[:40]!r} of an earlier row. Give each row its own.")
        found[pair.id] = pair
    return found
