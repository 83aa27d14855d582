"""Run a leaderboard: judge the systems and compute the figures, before any output format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from crimson_core.compare.leaderboard.config import Config, JudgeChoice
from crimson_core.compare.leaderboard.data import IN_CONFIG, read_systems
from crimson_core.compare.section import Section, Systems, make_section
from crimson_core.compare.statistics import Agreement, agreement, corrected
from crimson_core.errors import InputError
from crimson_core.judges import parse_spec
from crimson_core.run.scorer import CrimsonScorer, PairResult


@dataclass(frozen=True)
class JudgeAgreement:
    """The same pairs under two judges."""

    test_set: str
    sections: tuple[Section, Section] = field(repr=False)  # of the first judge and of the second
    overall: Agreement  # over the pairs of all systems; a study's pairs are resampled together
    systems: dict[str, Agreement]  # on each system alone
    # (system, position in the test set, first score minus second) of the pairs they disagree on most
    most_apart: list[tuple[str, int, float]]

    @property
    def name(self) -> str:
        """Its name in headings."""
        return f"{self.test_set}, {self.sections[0].judge} against {self.sections[1].judge}"


@dataclass(frozen=True)
class Leaderboard:
    """The content of a leaderboard."""

    config: Config
    sections: list[Section]  # one per test set and judge
    agreements: list[JudgeAgreement]  # one per test set and two judges
    interrupted: bool = False  # whether Ctrl-C ended it before everything was judged

    @property
    def n_unscored(self) -> int:
        """Unscored pairs of all sections."""
        return sum(summary.n_unscored for section in self.sections for summary in section.summaries.values())


def read_test_sets(config: Config, folder: Path, how: str = IN_CONFIG) -> dict[str, Systems]:
    """The report pairs of every test set; see `read_systems`.

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
    """Judge all systems on all test sets under all judges. After Ctrl-C, it keeps the pairs that are judged for all systems.

    Args:
        config: The leaderboard.
        test_sets: Its report pairs, from `read_test_sets`.
        progress: Show progress bars on standard error.
        **scorer_options: Options of `CrimsonScorer` for every judge; `workers` applies to the offline judge only.

    Raises:
        InputError: A judge spec or an option is unknown.
        JudgeError: A judge cannot be loaded, or cannot go on.
        KeyboardInterrupt: No pair was judged for all systems yet.
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
                    found.append(result.packed())
            except KeyboardInterrupt:
                interrupted = True
            found = scorer.checked_together(pairs, found)
            del pairs  # which take more memory than the figures
            results = systems.results(found)
            if any(results.values()):
                sections.append(make_section(name, judge.label, scorer.signature, systems, results, config.seed))
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
    if parse_spec(judge.spec).prefix != "offline":
        scorer_options.pop("workers", None)
    return CrimsonScorer(judge.spec, repair=judge.repair, **scorer_options, **judge.options)


def _corrected_together(sections: Sequence[Section]) -> list[Section]:
    """Correct the p values of sections for all their comparisons together."""
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
