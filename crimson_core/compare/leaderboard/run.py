"""Systems -> judges -> figures: what a leaderboard says, before anybody has written it down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from crimson_core.compare.leaderboard.config import Config, JudgeChoice
from crimson_core.compare.leaderboard.data import IN_CONFIG, Systems, read_systems
from crimson_core.compare.statistics import Agreement, Comparison, Estimate, agreement, compare_systems, corrected
from crimson_core.compare.summary import clinical_figures, spread_first, summarize
from crimson_core.errors import InputError
from crimson_core.run.scorer import CrimsonScorer, PairResult


class Subgroup(NamedTuple):
    """Figures of a part of the pairs.

    Attributes:
        by: What the pairs are split up by.
        label: Of the part.
        n_pairs: In it, of each system.
        figures: System -> `crimson_score` and each of `summary.CLINICAL_FIGURES`.
    """

    by: str
    label: str
    n_pairs: int
    figures: dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class Section:
    """A test set under a judge.

    Attributes:
        test_set: Its name.
        judge: What it is called: its spec, and its options.
        signature: Of the scores.
        systems: What was judged.
        results: Of each system, over the same pairs in the same order.
        n_asked: Pairs of each system that were to be judged; more than there are results where a run was interrupted.
        summaries: Of each system, as `summarize` gives them.
        figures: System -> `crimson_score` and each of `summary.CLINICAL_FIGURES`; the highest mean first.
        subgroups: The same for parts of the pairs.
        comparisons: Of every two systems; the adjusted p values are corrected for all comparisons of the leaderboard.
    """

    test_set: str
    judge: str
    signature: str
    systems: Systems = field(repr=False)
    results: dict[str, list[PairResult]] = field(repr=False)
    n_asked: int
    summaries: dict[str, dict[str, Any]] = field(repr=False)
    figures: dict[str, dict[str, Estimate]]
    subgroups: list[Subgroup]
    comparisons: list[Comparison]

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.test_set}, {self.judge}"

    @property
    def positions(self) -> list[int]:
        """Positions in the test set of the pairs that have results."""
        return [result.index for result in next(iter(self.results.values()))]

    @property
    def n_units(self) -> int:
        """How many patients, or else pairs, are resampled."""
        patients = self.systems.patients
        return len(self.positions if patients is None else {patients[position] for position in self.positions})

    def scores(self, name: str) -> dict[int, float]:
        """Position of a pair -> score of a system, NaN where unscored."""
        return {result.index: result.crimson_score for result in self.results[name]}

    def most_separated(self, most: int) -> list[tuple[int, float]]:
        """(place in the lists of results, best less worst score) of the pairs that separate the systems most; only real ones."""
        return [(place, spread) for place, spread in spread_first(self.results)[:most] if spread > 0]


@dataclass(frozen=True)
class JudgeAgreement:
    """The same pairs under two judges.

    Attributes:
        test_set: Its name.
        sections: Under the first judge and under the second.
        overall: Over the pairs of all systems; a study's pairs are resampled together.
        systems: Of each system alone.
        most_apart: (system, position in the test set, score less score) of the pairs on which they disagree most.
    """

    test_set: str
    sections: tuple[Section, Section] = field(repr=False)
    overall: Agreement
    systems: dict[str, Agreement]
    most_apart: list[tuple[str, int, float]]

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.test_set}, {self.sections[0].judge} against {self.sections[1].judge}"


@dataclass(frozen=True)
class Leaderboard:
    """All that a leaderboard says.

    Attributes:
        config: What it was made from.
        sections: One per test set and judge.
        agreements: One per test set and two judges.
        interrupted: Whether Ctrl-C ended it before all was judged.
    """

    config: Config
    sections: list[Section]
    agreements: list[JudgeAgreement]
    interrupted: bool = False

    @property
    def n_unscored(self) -> int:
        """Unscored pairs of all sections."""
        return sum(summary["n_unscored"] for section in self.sections for summary in section.summaries.values())


def read_test_sets(config: Config, folder: Path, how: str = IN_CONFIG) -> dict[str, Systems]:
    """The report pairs of every test set.

    Args:
        config: The leaderboard.
        folder: What the config's paths are relative to.
        how: What an error about a missing column says can be done.

    Raises:
        InputError: As `read_systems`.
    """
    return {name: read_systems(config, name, folder, how) for name in config.test_sets}


def run_leaderboard(
    config: Config,
    test_sets: Mapping[str, Systems],
    *,
    progress: bool = False,
    **scorer_options: Any,
) -> Leaderboard:
    """Judge all systems on all test sets under all judges. Ctrl-C ends it with what has been judged for all systems.

    Args:
        config: The leaderboard.
        test_sets: Its report pairs, by `read_test_sets`.
        progress: Show progress bars on standard error.
        **scorer_options: For `CrimsonScorer`, under every judge.

    Raises:
        InputError: A judge spec or an option is unknown.
        JudgeError: A judge cannot be loaded, or cannot go on.
        KeyboardInterrupt: Nothing was judged for all systems yet.
    """
    sections: list[Section] = []
    interrupted = False
    for judge in config.judges:
        scorer = build_scorer(judge, **scorer_options)
        for name, systems in test_sets.items():
            found: list[PairResult] = []
            pairs = systems.interleaved()
            try:
                for result in scorer.stream(pairs, progress=progress):
                    found.append(result)
            except KeyboardInterrupt:
                interrupted = True
            results = systems.results(scorer.checked_together(pairs, found))
            if any(results.values()):
                sections.append(_section(name, judge, scorer.signature, systems, results, config.seed))
            if interrupted:
                break
        if interrupted:
            break
    if not sections:
        raise KeyboardInterrupt
    sections = _corrected_together(sections)
    return Leaderboard(config, sections, _agreements(sections, config), interrupted)


def build_scorer(judge: JudgeChoice, **scorer_options: Any) -> CrimsonScorer:
    """The scorer of a judge of a leaderboard.

    Raises:
        InputError: The spec or an option is unknown.
        JudgeError: The judge cannot be loaded.
    """
    for option in judge.options:
        if option in scorer_options or option in ("judge", "repair"):
            raise InputError(f"judge {judge.spec!r}: {option} is no option of the judge.")
    return CrimsonScorer(judge.spec, repair=judge.repair, **scorer_options, **judge.options)


def _section(
    name: str,
    judge: JudgeChoice,
    signature: str,
    systems: Systems,
    results: Mapping[str, Sequence[PairResult]],
    seed: int,
) -> Section:
    positions = [result.index for result in next(iter(results.values()))]
    patients = None if systems.patients is None else [systems.patients[position] for position in positions]
    figures = clinical_figures(results, patients, seed=seed)
    best_first = sorted(figures, key=lambda system: _rank(figures[system]["crimson_score"].value))
    results = {system: list(results[system]) for system in best_first}
    subgroups = []
    for by, labels in systems.subgroups.items():
        for label in sorted({labels[position] for position in positions}, key=_natural):
            places = [place for place, position in enumerate(positions) if labels[position] == label]
            part = {system: [theirs[place] for place in places] for system, theirs in results.items()}
            whose = patients and [patients[place] for place in places]
            subgroups.append(Subgroup(by, label, len(places), clinical_figures(part, whose, seed=seed)))
    scores = {system: [result.crimson_score for result in theirs] for system, theirs in results.items()}
    return Section(
        name,
        judge.label,
        signature,
        systems,
        results,
        systems.n_pairs,
        {system: summarize(theirs, signature) for system, theirs in results.items()},
        {system: figures[system] for system in best_first},
        subgroups,
        compare_systems(scores, patients, seed=seed),
    )


def _corrected_together(sections: Sequence[Section]) -> list[Section]:
    """Sections whose p values are corrected for all comparisons of all of them."""
    every = iter(corrected([comparison for section in sections for comparison in section.comparisons]))
    return [replace(section, comparisons=[next(every) for _ in section.comparisons]) for section in sections]


def _agreements(sections: Sequence[Section], config: Config) -> list[JudgeAgreement]:
    by_test_set: dict[str, list[Section]] = {}
    for section in sections:
        by_test_set.setdefault(section.test_set, []).append(section)
    return [
        _agreement(first, second, config) for same in by_test_set.values() for first, second in combinations(same, 2)
    ]


def _agreement(first: Section, second: Section, config: Config, most: int = 10) -> JudgeAgreement:
    pooled: list[tuple[str, int, float, float]] = []
    alone: dict[str, Agreement] = {}
    patients = first.systems.patients

    def compared(rows: Sequence[tuple[str, int, float, float]]) -> Agreement:
        groups = [position if patients is None else patients[position] for _, position, _, _ in rows]
        a, b = [row[2] for row in rows], [row[3] for row in rows]
        return agreement(a, b, groups, within=config.within, seed=config.seed)

    for name in first.results:
        here, there = first.scores(name), second.scores(name)
        rows = [(name, position, score, there[position]) for position, score in here.items() if position in there]
        alone[name] = compared(rows)
        pooled += rows
    both = [row for row in pooled if row[2] == row[2] and row[3] == row[3]]
    apart = [(name, position, round(a - b, 4)) for name, position, a, b in both if a != b]  # scores have four decimals
    apart.sort(key=lambda row: -abs(row[2]))
    return JudgeAgreement(first.test_set, (first, second), compared(pooled), alone, apart[:most])


def _rank(mean: float) -> tuple[bool, float]:
    return mean != mean, -mean


def _natural(label: str) -> tuple[bool, bool, str]:
    """Age bands by age, the unknown last."""
    return label == "unknown", not label.startswith("under"), label
