"""Comparisons of systems and judges as text tables, for the terminal, Markdown, reports and the Space."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crimson_core.compare.formats import count, fixed, interval, p_value, signed, two, with_interval
from crimson_core.compare.html import words
from crimson_core.compare.section import Section
from crimson_core.compare.summary import CLINICAL_FIGURES, FIGURES, OTHER
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS

if TYPE_CHECKING:  # `crimson score` is there sooner without it
    from crimson_core.compare.leaderboard.run import JudgeAgreement, Leaderboard

RESEARCH_ONLY = "Research use only, not for clinical decisions."
FEW = 20  # units to resample
_FEW = (
    "Few pairs (or patients): intervals and the bootstrap p value are too sure of themselves. p, by randomisation, holds "
    "for any number."
)


@dataclass(frozen=True)
class TextTable:
    """Rows of text under a title."""

    part: str  # the part of the leaderboard they belong to
    title: str
    columns: list[str]  # names; the first `n_labels` hold labels, the others figures
    rows: list[list[str]]  # one text per column
    notes: list[str]  # how to read it
    signature: str  # of the scores behind the figures
    n_labels: int = 1
    lead: list[str] = field(default_factory=list)  # before the table


def section_tables(section: Section) -> list[TextTable]:
    """The tables of a section."""
    tables = [systems_table(section), clinical_table(section)]
    if section.comparisons:
        tables.insert(1, differences_table(section))
    return tables + subgroup_tables(section)


def headlines(section: Section) -> list[str]:
    """The most important facts about each system: missed urgent findings, and its mean score in words."""
    lines = []
    for name, summary in section.summaries.items():
        n, missed = summary.n_urgent, summary.n_urgent_missed
        urgent = f"{missed:,} of {count(n, 'urgent finding')} missed" if n else "the references hold no urgent finding"
        score = f"mean score {fixed(summary.crimson_score)}, {words.band(summary.crimson_score)}"
        lines.append(f"{name}: " + (f"{urgent}; {score}." if summary.n_unscored < summary.n_pairs else "unscored."))
    return lines


def systems_table(section: Section) -> TextTable:
    """The mean of each system, the highest first, and its errors."""
    rows = []
    for name, figures in section.figures.items():
        means, score = section.summaries[name].mean_errors, figures["crimson_score"]
        errors = (means[kind] for kind in ("missing_findings", "false_findings", "attribute_errors"))
        rows.append([name, fixed(score.value), interval(score), str(score.n), str(score.n_left_out), *map(two, errors)])
    notes = []
    if not any(figures["crimson_score"].n for figures in section.figures.values()):
        notes.append("No pair of any system was scored.")
    if section.n_asked > len(section.positions):
        notes.append(f"Interrupted: {len(section.positions)} of {section.n_asked} pairs were judged.")
    if section.systems.patients:
        patients = "patient is" if section.n_units == 1 else "patients are"
        notes.append(f"{section.n_units} {patients} resampled, not the pairs.")
    if section.n_units < FEW:
        notes.append(_FEW)
    if suspect := {name: n for name, own in section.summaries.items() if (n := own.n_suspect)}:
        listed = ", ".join(f"{name} {n}" for name, n in suspect.items())
        notes.append(f"Pairs with evidence against the judge's evaluation (suspect): {listed}.")
    if unrecognised := {name: n for name, own in section.summaries.items() if (n := own.n_unrecognised)}:
        listed = ", ".join(f"{name} {n}" for name, n in unrecognised.items())
        notes.append(f"Pairs with a report that the judge cannot read, which counts as normal: {listed}.")
    if section.systems.joined_by == "order" and len(rows) > 1:
        notes.append("There are no ids: rows of equal references in the same order were taken for the same pairs.")
    columns = ["System", "Mean score", "95 % interval", "Pairs", "Unscored", "Missing", "False", "Attribute"]
    return TextTable(section.name, "Mean scores", columns, rows, notes, section.signature, lead=headlines(section))


def differences_table(section: Section) -> TextTable:
    """The paired difference of each pair of systems."""
    rows = [
        [
            difference_name(*c.systems),
            signed(c.difference.value),
            interval(c.difference, signed),
            p_value(c.p_value),
            p_value(c.adjusted_p_value),
            p_value(c.bootstrap_p_value),
            signed(c.effect_size, 2),
            f"{c.wins}/{c.ties}/{c.losses}",
            str(c.difference.n),
            str(c.difference.n_left_out),
        ]
        for c in section.comparisons
    ]
    notes = []
    if not any(c.difference.n for c in section.comparisons):
        notes.append("No two systems have a score for the same pair: nothing could be compared.")
    elif all(c.wins == c.losses == 0 for c in section.comparisons):
        notes.append("No two systems differ on any pair that both have a score for.")
    columns = ["Systems", "Difference", "95 % interval", "p", "p, Holm", "p, bootstrap", "d_z", "Won/tied/lost"]
    return TextTable(
        section.name, "Paired differences", [*columns, "Pairs", "Left out"], rows, notes, section.signature
    )


def clinical_table(section: Section) -> TextTable:
    """The clinical figures of each system."""
    columns = ["System", *(figure.title for figure in CLINICAL_FIGURES.values())]
    rows = [
        [name, *(with_interval(figures[key]) for key in CLINICAL_FIGURES)] for name, figures in section.figures.items()
    ]
    return TextTable(section.name, "Clinical figures", columns, rows, [], section.signature)


def subgroup_tables(section: Section) -> list[TextTable]:
    """The means and the clinical figures of each subgroup, one table per way of grouping the pairs."""
    titles = ["Mean score", *(figure.title for figure in CLINICAL_FIGURES.values())]
    notes = ["Subgroups are not compared by tests: a difference between small ones is mostly chance."]
    tables = []
    for by in dict.fromkeys(group.by for group in section.subgroups):
        rows = [
            [group.label, name, str(group.n_pairs), *(with_interval(figures[key]) for key in FIGURES)]
            for group in section.subgroups
            if group.by == by
            for name, figures in group.figures.items()
        ]
        called = by.replace("_", " ") if by == "age_band" else by
        columns = [called.capitalize(), "System", "Pairs", *titles]
        tables.append(TextTable(section.name, f"By {called}", columns, rows, notes, section.signature, n_labels=2))
    return tables


def agreement_tables(found: "JudgeAgreement") -> list[TextTable]:
    """The agreement of two judges, and the pairs on which they disagree."""
    first, second = found.sections
    rows = []
    for name, agreed in {"all systems": found.overall, **found.systems}.items():
        difference = agreed.difference
        rows.append(
            [
                name,
                str(difference.n),
                str(difference.n_left_out),
                *map(fixed, (agreed.pearson, agreed.spearman, agreed.kendall)),
                signed(difference.value),
                interval(difference, signed),
                f"{agreed.n_within / difference.n:.0%}" if difference.n else "–",
            ]
        )
    within = f"Within {found.overall.within:g}"
    signature = f"{first.signature} and {second.signature}"
    columns = ["Pairs of", "Pairs", "Left out", "Pearson", "Spearman", "Kendall", "Difference", "95 % interval", within]
    tables = [TextTable(found.name, "Agreement", columns, rows, [], signature)]
    if found.most_apart:
        apart = []
        for name, position, gap in found.most_apart:
            scores = (fixed(section.scores(name)[position]) for section in found.sections)
            apart.append([first.pair_name(position), name, *scores, signed(gap)])
        title, columns = "Pairs on which the judges disagree most", ["Pair", "System", first.judge, second.judge]
        tables.append(TextTable(found.name, title, [*columns, "Difference"], apart, [], signature, n_labels=2))
    return tables


def error_table(section: Section) -> TextTable:
    """Errors per scored pair by type and by clinical significance: the numbers in the plots of errors."""
    counts = {
        name: summary.errors_by_type
        | {
            f"{kind}, {words.significance(level)}": summary.errors_by_significance[kind][level]
            for kind in ("missing", "false", "attribute")
            for level in (*SIGNIFICANCE_LEVELS, OTHER)
        }
        for name, summary in section.summaries.items()
    }
    per_pair = [section.per_pair(name, own) for name, own in counts.items()]
    rows = [
        [kind, *(fixed(own[kind]) for own in per_pair)]
        for kind in per_pair[0]
        if "," not in kind or any(own[kind] for own in per_pair)
    ]
    return TextTable(section.name, "Errors per scored pair", ["Error", *counts], rows, [], section.signature)


def all_tables(board: "Leaderboard") -> list[TextTable]:
    """All tables of a leaderboard, in their order."""
    tables = [table for section in board.sections for table in section_tables(section)]
    return tables + [table for found in board.agreements for table in agreement_tables(found)]


def how_to_read(sections: Sequence[Section], agreements: "Sequence[JudgeAgreement]" = ()) -> list[str]:
    """Notes for all tables of sections and of the agreement of their judges."""
    n = sum(len(section.comparisons) for section in sections)
    lines = [
        "Missing, False, Attribute: mean errors per scored pair. An unscored pair is in no figure; a difference is over the pairs "
        "that both systems have a score for.",
        "Intervals: 95 %, BCa bootstrap over pairs, or over patients where a column names them; percentile bootstrap where BCa is "
        "not defined; “no spread” where all values are equal, which is no certainty. n: what a figure is an average over.",
    ]
    if n:
        lines.append(
            f"p: paired approximate randomisation, two-sided. p, Holm: the same, corrected for {count(n, 'comparison')}"
            ", all that are shown here. p, bootstrap: paired bootstrap. d_z: paired "
            "Cohen's d, the mean difference over the standard deviation of the differences."
        )
    if agreements:
        lines.append(
            "Agreement of judges: over the pairs that both have scored, where a study's pairs of all systems are resampled "
            "together. Difference: score under the first − score under the second. Kendall: tau-b."
        )
    return lines


def difference_name(first: str, second: str) -> str:
    """Name of the first system's figure minus the second's."""
    return f"{first} − {second}"
