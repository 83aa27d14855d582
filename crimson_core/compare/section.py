"""Systems judged on the same report pairs, with their figures: the basis of every table, figure, page and export."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from crimson_core.compare.statistics import Comparison, Estimate
from crimson_core.compare.summary import Summary, clinical_figures, compared_figures, spread_first
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.scorer import PairResult


@dataclass(frozen=True)
class Systems:
    """Systems and their report pairs, in the same order for all."""

    pairs: dict[str, list[ReportPair]] = field(repr=False)  # of each system
    # the patient of each pair; None if no column names patients
    patients: list[str] | None = field(default=None, repr=False)
    # the subgroup of each pair, by what splits the pairs
    subgroups: dict[str, list[str]] = field(default_factory=dict, repr=False)
    # `row` of one table, `id`, or `order`; with `order`, only equal references show that rows match
    joined_by: str = "order"

    @property
    def names(self) -> list[str]:
        """Names of the systems."""
        return list(self.pairs)

    @property
    def n_pairs(self) -> int:
        """Number of pairs of each system."""
        return len(next(iter(self.pairs.values())))

    def interleaved(self) -> list[ReportPair]:
        """The first pair of each system, then the second ones, so that a stopped run has the same pairs of all systems."""
        return [pair for row in zip(*self.pairs.values(), strict=True) for pair in row]

    def results(self, found: list[PairResult]) -> dict[str, list[PairResult]]:
        """The results of each system over the pairs that are done for all, from those of `interleaved` in its order.

        They are taken out of `found` one by one, so that there are never two of each.
        """
        width, names = len(self.pairs), self.names
        done = Counter(result.index // width for result in found)
        kept: dict[str, list[PairResult]] = {name: [] for name in names}
        found.reverse()
        while found:
            result = found.pop()
            row, system = divmod(result.index, width)
            if done[row] == width:
                kept[names[system]].append(result.packed(row))
        return kept


def name_systems(tables: Sequence[str], predictions: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Each system's table number and column, by its name, for columns of one table or several.

    Args:
        tables: Their file names.
        predictions: The columns of candidate reports, each a system (of each table).
    """
    stems = [Path(table).stem for table in tables]
    if len(set(stems)) < len(stems):
        stems = list(tables)
    if len(set(stems)) < len(stems):
        stems = [f"{number}. {table}" for number, table in enumerate(tables, 1)]
    named = {}
    for number, stem in enumerate(stems):
        for column in predictions:
            parts = ([stem] if len(tables) > 1 else []) + ([column] if len(predictions) > 1 or len(tables) == 1 else [])
            named[": ".join(parts)] = (number, column)
    return named


class Subgroup(NamedTuple):
    """Figures of a subgroup of the pairs."""

    by: str  # what splits the pairs
    label: str
    n_pairs: int  # its number of pairs of each system
    figures: dict[str, dict[str, Estimate]]  # system -> `crimson_score` and each of `summary.CLINICAL_FIGURES`


@dataclass(frozen=True)
class Section:
    """A test set under a judge."""

    test_set: str
    judge: str  # its spec and options
    signature: str
    systems: Systems = field(repr=False)
    # results of each system, over the same pairs in the same order
    results: dict[str, list[PairResult]] = field(repr=False)
    n_asked: int  # pairs of each system to judge; more than the results if a run was interrupted
    summaries: dict[str, Summary] = field(repr=False)  # of each system
    # system -> `crimson_score` and each of `summary.CLINICAL_FIGURES`; the highest mean first
    figures: dict[str, dict[str, Estimate]]
    subgroups: list[Subgroup]  # the same for subgroups of the pairs
    # one per pair of systems; adjusted p values are corrected for all comparisons of the leaderboard
    comparisons: list[Comparison]

    @property
    def name(self) -> str:
        """Its name in headings."""
        return f"{self.test_set}, {self.judge}"

    @property
    def positions(self) -> list[int]:
        """Positions in the test set of the pairs with results."""
        return [result.index for result in next(iter(self.results.values()))]

    @property
    def n_units(self) -> int:
        """Number of patients, or else pairs, that are resampled."""
        patients = self.systems.patients
        return len(self.positions if patients is None else {patients[position] for position in self.positions})

    def pair_name(self, position: int) -> str:
        """Name of a pair: its id or its row."""
        pair = next(iter(self.systems.pairs.values()))[position]
        return (pair.id or "")[:60] or f"row {position + 1}"

    def scores(self, name: str) -> dict[int, float]:
        """Position of a pair -> score of a system, NaN where unscored."""
        return {result.index: result.crimson_score for result in self.results[name]}

    def per_pair(self, name: str, counts: Mapping[str, int]) -> dict[str, float]:
        """Counts of a system over its scored pairs; 0 if it has none."""
        scored = self.summaries[name].n_scored
        return {kind: n / scored if scored else 0.0 for kind, n in counts.items()}

    def most_separated(self, most: int) -> list[tuple[int, float]]:
        """(place in the lists of results, best minus worst score) of the pairs on which the systems differ most."""
        return [(place, spread) for place, spread in spread_first(self.results)[:most] if spread > 0]


def make_section(
    test_set: str,
    judge: str,
    signature: str,
    systems: Systems,
    results: Mapping[str, Sequence[PairResult]],
    seed: int = 0,
) -> Section:
    """A section with the figures of results, which are over the same pairs in the same order for all systems."""
    positions = [result.index for result in next(iter(results.values()))]
    patients = None if systems.patients is None else [systems.patients[position] for position in positions]
    counted = {system: Summary(theirs, clinical=True) for system, theirs in results.items()}
    # the highest mean first; a system without any last
    summaries = dict(sorted(counted.items(), key=lambda item: _rank(item[1].crimson_score)))
    counts = {system: summary.counts() for system, summary in summaries.items()}
    figures, comparisons = compared_figures(counts, patients, seed=seed)
    subgroups = []
    for by, labels in systems.subgroups.items():
        for label in sorted({labels[position] for position in positions}, key=_natural):
            places = [place for place, position in enumerate(positions) if labels[position] == label]
            part = {system: own[places] for system, own in counts.items()}
            whose = patients and [patients[place] for place in places]
            subgroups.append(Subgroup(by, label, len(places), clinical_figures(part, whose, seed=seed)))
    return Section(
        test_set,
        judge,
        signature,
        systems,
        {system: list(results[system]) for system in summaries},
        systems.n_pairs,
        summaries,
        figures,
        subgroups,
        comparisons,
    )


def _rank(mean: float) -> tuple[bool, float]:
    return mean != mean, -mean


def _natural(label: str) -> tuple[bool, bool, str]:
    """A sorting key: age bands by age, unknown last."""
    return label == "unknown", not label.startswith("under"), label
