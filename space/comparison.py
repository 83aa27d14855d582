"""Several systems over the same references: which report pairs they are, and what their run gave."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crimson_core import PairResult, ReportPair
from crimson_core.errors import InputError
from crimson_core.table import align_systems
from space.judging import Run
from space.settings import Settings
from space.uploads import Table, checked_pairs

MOST_SYSTEMS = 10  # every two are compared


@dataclass(frozen=True)
class Systems:
    """Systems and their report pairs, in the same order for all."""

    pairs: dict[str, list[ReportPair]] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self.pairs)

    def interleaved(self) -> list[ReportPair]:
        """The first pair of each system, then the second ones: a run that is stopped has the same pairs of all."""
        return [pair for row in zip(*self.pairs.values(), strict=True) for pair in row]

    def results(self, run: Run) -> dict[str, list[PairResult]]:
        """The results of each system over the pairs that all of them are done with."""
        width = len(self.pairs)
        done = Counter(result.index // width for result in run.results)
        kept: dict[str, list[PairResult]] = {name: [] for name in self.pairs}
        for result in run.results:
            row, system = divmod(result.index, width)
            if done[row] == width:
                kept[self.names[system]].append(replace(result, index=row))
        return kept


def systems_of(
    tables: Sequence[Table], predictions: Sequence[str], columns: Mapping[str, str | None], settings: Settings
) -> Systems:
    """The systems of one file with several prediction columns, or of several files.

    Args:
        tables: The files.
        predictions: The columns of candidate reports, each a system (of each file).
        columns: The columns of reference, id, age, sex and indication, None where there is none; several files are joined
            by the id, or without one by their order.
        settings: For the limits.

    Raises:
        InputError: There are too few or too many systems, or they do not go together.
    """
    names = _names(tables, predictions)
    if len(names) < 2:
        raise InputError(
            "Choose two or more columns of candidate reports, or give several files: there is nothing to compare."
        )
    if len(names) > MOST_SYSTEMS:
        raise InputError(f"These are {len(names)} systems; at most {MOST_SYSTEMS} are compared here.")
    pairs = {
        name: checked_pairs(table, columns | {"prediction": column}, settings)
        for name, (table, column) in names.items()
    }
    n = sum(map(len, pairs.values()))
    if n > settings.max_rows:
        raise InputError(
            f"These are {n:,} pairs of all systems together; at most {settings.max_rows:,} are taken here."
        )
    return Systems(align_systems(pairs, by_id=len(tables) > 1 and columns.get("id") is not None))


def _names(tables: Sequence[Table], predictions: Sequence[str]) -> dict[str, tuple[Table, str]]:
    stems = [Path(table.name).stem for table in tables]
    if len(set(stems)) < len(stems):
        stems = [table.name for table in tables]
    if len(set(stems)) < len(stems):
        stems = [f"{number}. {table.name}" for number, table in enumerate(tables, 1)]
    named = {}
    for stem, table in zip(stems, tables, strict=True):
        for column in predictions:
            parts = ([stem] if len(tables) > 1 else []) + ([column] if len(predictions) > 1 or len(tables) == 1 else [])
            named[": ".join(parts)] = (table, column)
    return named
