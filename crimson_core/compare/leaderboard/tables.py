"""A leaderboard as tables of text: what the terminal, Markdown and HTML show alike."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from crimson_core.compare.leaderboard.run import JudgeAgreement, Leaderboard, Section
from crimson_core.compare.statistics import Estimate
from crimson_core.compare.summary import CLINICAL_FIGURES

RESEARCH_ONLY = "Research use only, not for clinical decisions."
FEW = 20  # units to resample
_FEW = (
    "Few pairs (or patients): intervals and the bootstrap p value are too sure of themselves. p, by randomisation, holds "
    "for any number."
)
_MARKDOWN_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$&"} | {"\n": "<br>", "\r": " "})


@dataclass(frozen=True)
class Table:
    """Rows of text under a title.

    Attributes:
        part: Of the leaderboard that they belong to.
        title: What they are.
        columns: Names; the first `n_labels` hold labels, the others figures.
        rows: One text per column.
        notes: How to read it.
        signature: Of the scores that the figures come from.
        n_labels: Columns of labels.
    """

    part: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    signature: str
    n_labels: int = 1


def section_tables(section: Section) -> list[Table]:
    """The tables of a section."""
    tables = [systems_table(section), clinical_table(section)]
    if section.comparisons:
        tables.insert(1, differences_table(section))
    return tables + subgroup_tables(section)


def systems_table(section: Section) -> Table:
    """The mean of each system, the highest first, and its errors."""
    rows = []
    for name, figures in section.figures.items():
        summary, score = section.summaries[name], figures["crimson_score"]
        errors = (summary[f"mean_{kind}"] for kind in ("missing_findings", "false_findings", "attribute_errors"))
        rows.append(
            [name, number(score.value), interval(score), str(score.n), str(score.n_left_out), *map(_two, errors)]
        )
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
    if suspect := {name: n for name, own in section.summaries.items() if (n := own["n_suspect"])}:
        told = ", ".join(f"{name} {n}" for name, n in suspect.items())
        notes.append(f"Pairs with something that speaks against the judge's evaluation (suspect): {told}.")
    if unread := {name: n for name, own in section.summaries.items() if (n := own["n_unrecognised"])}:
        told = ", ".join(f"{name} {n}" for name, n in unread.items())
        notes.append(f"Pairs with a report that holds nothing that the judge knows, and counts as normal: {told}.")
    if section.systems.joined_by == "order" and len(rows) > 1:
        notes.append("There are no ids: rows of equal references in the same order were taken for the same pairs.")
    columns = ["System", "Mean score", "95 % interval", "Pairs", "Unscored", "Missing", "False", "Attribute"]
    return Table(section.name, "Mean scores", columns, rows, notes, section.signature)


def differences_table(section: Section) -> Table:
    """The paired difference of every two systems."""
    rows = [
        [
            f"{c.systems[0]} less {c.systems[1]}",
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
    return Table(section.name, "Paired differences", [*columns, "Pairs", "Left out"], rows, notes, section.signature)


def clinical_table(section: Section) -> Table:
    """The clinical figures of each system."""
    rows = [
        [name, *(with_interval(figures[key]) for key in CLINICAL_FIGURES)] for name, figures in section.figures.items()
    ]
    return Table(
        section.name,
        "Clinical figures",
        ["System", *(figure.title for figure in CLINICAL_FIGURES.values())],
        rows,
        [],
        section.signature,
    )


def subgroup_tables(section: Section) -> list[Table]:
    """The means and the clinical figures of each subgroup, one table for each way of splitting the pairs up."""
    shown = ["crimson_score", *CLINICAL_FIGURES]
    titles = ["Mean score", *(figure.title for figure in CLINICAL_FIGURES.values())]
    return [
        Table(
            section.name,
            f"By {_words(by)}",
            [_words(by).capitalize(), "System", "Pairs", *titles],
            [
                [
                    group.label,
                    name,
                    str(group.n_pairs),
                    *(with_interval(figures[key]) for key in shown),
                ]
                for group in section.subgroups
                if group.by == by
                for name, figures in group.figures.items()
            ],
            ["Subgroups are not compared by tests: a difference between small ones is mostly chance."],
            section.signature,
            n_labels=2,
        )
        for by in dict.fromkeys(group.by for group in section.subgroups)
    ]


def agreement_tables(found: JudgeAgreement) -> list[Table]:
    """How two judges agree, and the pairs on which they do not."""
    first, second = found.sections
    rows = []
    for name, agreed in {"all systems": found.overall, **found.systems}.items():
        difference = agreed.difference
        rows.append(
            [
                name,
                str(difference.n),
                str(difference.n_left_out),
                *map(number, (agreed.pearson, agreed.spearman, agreed.kendall)),
                signed(difference.value),
                interval(difference, signed),
                f"{agreed.n_within / difference.n:.0%}" if difference.n else "–",
            ]
        )
    within = f"Within {found.overall.within:g}"
    signature = f"{first.signature} and {second.signature}"
    columns = ["Pairs of", "Pairs", "Left out", "Pearson", "Spearman", "Kendall", "Difference", "95 % interval", within]
    tables = [
        Table(
            found.name,
            "Agreement",
            columns,
            rows,
            [],
            signature,
        )
    ]
    if found.most_apart:
        a, b = first, second
        tables.append(
            Table(
                found.name,
                "Pairs on which the judges disagree most",
                ["Pair", "System", first.judge, second.judge, "Difference"],
                [
                    [
                        pair_name(first, position),
                        name,
                        number(a.scores(name)[position]),
                        number(b.scores(name)[position]),
                        signed(difference),
                    ]
                    for name, position, difference in found.most_apart
                ],
                [],
                signature,
                n_labels=2,
            )
        )
    return tables


def all_tables(board: Leaderboard) -> list[Table]:
    """All tables of a leaderboard, in their order."""
    tables = [table for section in board.sections for table in section_tables(section)]
    return tables + [table for found in board.agreements for table in agreement_tables(found)]


def how_to_read(board: Leaderboard) -> list[str]:
    """What is true of every table of a leaderboard."""
    n = sum(len(section.comparisons) for section in board.sections)
    told = [
        "Missing, False, Attribute: mean errors per scored pair. An unscored pair is in no figure; a difference is over the pairs "
        "that both systems have a score for.",
        "Intervals: 95 %, BCa bootstrap over pairs, or over patients where a column names them; percentile bootstrap where BCa is "
        "not defined; “no spread” where all values are equal, which is no certainty. n: what a figure is an average over.",
    ]
    if n:
        told.append(
            f"p: paired approximate randomisation, two-sided. p, Holm: the same, corrected for {n} "
            f"{'comparison' if n == 1 else 'comparisons'}, all of this leaderboard. p, bootstrap: paired bootstrap. d_z: paired "
            "Cohen's d, the mean difference over the standard deviation of the differences."
        )
    if board.agreements:
        told.append(
            "Agreement of judges: over the pairs that both have scored, where a study's pairs of all systems are resampled "
            "together. Difference: score under the first less that under the second. Kendall: tau-b."
        )
    return told


def markdown(board: Leaderboard) -> str:
    """A leaderboard in Markdown."""
    lines = [f"# {_escaped(board.config.title)}", ""]
    part = None
    for table in all_tables(board):
        if table.part != part:
            part = table.part
            lines += [f"## {_escaped(part)}", ""]
        cells = [[_escaped(cell) for cell in row] for row in [table.columns, *table.rows]]
        rule = [" --- "] * table.n_labels + [" ---: "] * (len(table.columns) - table.n_labels)
        lines += [f"### {_escaped(table.title)}", "", "| " + " | ".join(cells[0]) + " |", "|" + "|".join(rule) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in cells[1:]]
        signature = table.signature.replace("`", "'")
        lines += ["", *(f"{_escaped(note)}\n" for note in table.notes), f"Signature: `{signature}`", ""]
    lines += ["## How to read it", "", *(f"- {_escaped(told)}" for told in how_to_read(board)), ""]
    lines += ["## What the clinical figures count", ""]
    lines += [f"- {figure.title}: {figure.definition}" for figure in CLINICAL_FIGURES.values()]
    return "\n".join([*lines, "", RESEARCH_ONLY, ""])


def pair_name(section: Section, position: int) -> str:
    """What to call a pair: its id, or its row."""
    pair = next(iter(section.systems.pairs.values()))[position]
    return (pair.id or "")[:60] or f"row {position + 1}"


def number(value: float, digits: int = 3) -> str:
    """A figure; one that is not defined is a dash."""
    return "–" if math.isnan(value) else f"{value + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A difference, with its sign."""
    return ("+" if value > 0 else "") + number(value, digits)


def p_value(value: float) -> str:
    """A p value for reading."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(estimate: Estimate, form: Callable[[float], str] = number) -> str:
    """The ends of an interval. Where all values are equal, resampling shows no spread, which is no certainty."""
    if math.isnan(estimate.low):
        return "–"
    if estimate.low == estimate.high:
        return "no spread"
    return f"{form(estimate.low)} to {form(estimate.high)}"


def with_interval(estimate: Estimate) -> str:
    """A figure, its interval, and what it is an average over, one below the other."""
    if math.isnan(estimate.value):
        return "–\nn 0"
    ends = interval(estimate, _two)
    return f"{_two(estimate.value)}\n" + (f"{ends}\n" if ends != "–" else "") + f"n {estimate.n}"


def _two(value: float) -> str:
    return number(value, 2)


def _words(by: str) -> str:
    return by.replace("_", " ") if by == "age_band" else by


def _escaped(text: str) -> str:
    return text.translate(_MARKDOWN_SPECIAL)
