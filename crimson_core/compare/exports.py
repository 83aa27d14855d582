"""Exports: CSV of figures or of pairs, JSON of everything except report text, JSON lines of every evaluation, Markdown."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from crimson_core.compare.formats import printable
from crimson_core.compare.section import Section
from crimson_core.compare.statistics import Agreement, Comparison, Estimate
from crimson_core.compare.summary import CLINICAL_FIGURES
from crimson_core.compare.tables import RESEARCH_ONLY, all_tables, difference_name, how_to_read
from crimson_core.protocol.scoring import ERROR_COUNT_KEYS
from crimson_core.run.files import json_line
from crimson_core.run.scorer import PairResult
from crimson_core.version import __version__

if TYPE_CHECKING:  # `crimson score` is there sooner without it
    from crimson_core.compare.leaderboard.run import Leaderboard

_COLUMNS = ("test_set", "judge", "subgroup", "system", "figure", *Estimate._fields, "p_value", "adjusted_p_value")
_OF_SUMMARY = (
    *("errors_by_type", "errors_by_significance"),
    *("n_repaired", "n_suspect", "n_unrecognised", "n_urgent", "n_urgent_missed"),
)
_FORMULA = re.compile(r"(?:^|(?<=[,;|\t\r\n]))(?=[ \"']{0,8}[=+\-@\t\r\n＝＋－＠])")
_ADDRESS = re.compile(r"(?<=http)(?=s?://)|(?<=ftp)(?=://)|(?<=www)(?=\.)", re.IGNORECASE)
_MARKDOWN_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$&"} | {"\n": "<br>"})


def as_csv(board: "Leaderboard") -> str:
    """One row per figure of each system, overall and by subgroup, and one per paired difference."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*_COLUMNS, "signature"))
    for section in board.sections:
        parts = [("", section.figures), *((f"{g.by}: {g.label}", g.figures) for g in section.subgroups)]
        for subgroup, systems in parts:
            for name, figures in systems.items():
                for key, estimate in figures.items():
                    _write(writer, section, subgroup, name, key, estimate)
        for c in section.comparisons:
            _write(writer, section, "", difference_name(*c.systems), "difference", c.difference, c)
    return out.getvalue()


def _write(
    writer: Any, section: Section, subgroup: str, name: str, key: str, estimate: Estimate, c: Comparison | None = None
) -> None:
    labels = (section.test_set, section.judge, subgroup, name)
    p_values = (c.p_value, c.adjusted_p_value) if c else ("", "")
    numbers = ("" if value != value else value for value in (*estimate, *p_values))
    writer.writerow((*map(safe_cell, labels), key, *numbers, section.signature))


def safe_cell(text: str) -> str:
    """Text from a user's file, with an apostrophe before what a spreadsheet would run as a formula.

    That may stand in the middle, since some spreadsheets part cells at other separators than the file's.
    """
    return _FORMULA.sub("'", text)


def as_json(board: "Leaderboard") -> str:
    """Everything except report text: figures, comparisons, scores by pair, agreement. Undefined values are null."""
    data = {
        "title": board.config.title,
        "note": RESEARCH_ONLY,
        "crimson_core": __version__,
        "seed": board.config.seed,
        "interrupted": board.interrupted,
        "sections": [_section(section) for section in board.sections],
        "agreements": [
            {
                "test_set": found.test_set,
                "judges": [section.judge for section in found.sections],
                "signatures": [section.signature for section in found.sections],
                "overall": _agreement(found.overall),
                "systems": {name: _agreement(own) for name, own in found.systems.items()},
                "most_apart": [
                    {"system": name, "pair": found.sections[0].pair_name(position), "difference": difference}
                    for name, position, difference in found.most_apart
                ],
            }
            for found in board.agreements
        ],
    }
    return json.dumps(json_ready(data), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def records(board: "Leaderboard") -> Iterator[dict[str, Any]]:
    """One record per pair, system, test set and judge, with its whole evaluation and so with report text."""
    for section in board.sections:
        labels = {"test_set": section.test_set, "judge": section.judge}
        for record in pair_records(section.results, section.signature):
            yield labels | record


def pair_records(systems: Mapping[str, Sequence[PairResult]], signature: str) -> Iterator[dict[str, Any]]:
    """One record per pair and system (not named if its name is ""), with its evaluation and so with report text."""
    for name, results in systems.items():
        for result in results:
            yield ({"system": name} if name else {}) | result.as_dict() | {"signature": signature}


def as_jsonl(board: "Leaderboard") -> str:
    """The `records`, one JSON line each."""
    return "".join(map(json_line, records(board)))


def pairs_csv(systems: Mapping[str, Sequence[PairResult]], signature: str) -> str:
    """One row per pair and system: score and error counts, or why it is unscored.

    Args:
        systems: Results by system name; records have no system if the name is "".
        signature: Signature of the scores.
    """
    out = io.StringIO()
    write_pairs_csv(pair_records(systems, signature), signature, out, named=any(systems))
    return out.getvalue()


def write_pairs_csv(
    found: Iterable[Mapping[str, Any]], signature: str, out: IO[str], separator: str = ",", *, named: bool = False
) -> None:
    """Write records of results (`PairResult.as_dict`, with a `system` if `named`) as `pairs_csv` does."""
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    head = ["row", "id", "crimson_score", *ERROR_COUNT_KEYS, "failure", "n_repairs", "n_suspicions", "signature"]
    writer.writerow((["system"] if named else []) + head)
    for record in found:
        counts = record["error_counts"] or {}
        cells = [record["index"] + 1, safe_cell(record["id"] or ""), record["crimson_score"]]
        cells += [*(counts.get(key) for key in ERROR_COUNT_KEYS), record["failure"]]
        cells += [len(record["repairs"]), len(record["suspicions"]), signature]
        writer.writerow(([safe_cell(record["system"])] if named else []) + cells)


def markdown(board: "Leaderboard") -> str:
    """A leaderboard in Markdown."""
    lines = [f"# {escaped(board.config.title)}", ""]
    part = None
    for table in all_tables(board):
        if table.part != part:
            part = table.part
            lines += [f"## {escaped(part)}", ""]
        cells = [[escaped(cell) for cell in row] for row in [table.columns, *table.rows]]
        rule = [" --- "] * table.n_labels + [" ---: "] * (len(table.columns) - table.n_labels)
        lines += [f"### {escaped(table.title)}", "", *(f"{escaped(line)}\n" for line in table.lead)]
        lines += ["| " + " | ".join(cells[0]) + " |", "|" + "|".join(rule) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in cells[1:]]
        signature = table.signature.replace("`", "'")
        lines += ["", *(f"{escaped(note)}\n" for note in table.notes), f"Signature: `{signature}`", ""]
    lines += [
        "## How to read it",
        "",
        *(f"- {escaped(line)}" for line in how_to_read(board.sections, board.agreements)),
        "",
    ]
    lines += ["## What the clinical figures count", ""]
    lines += [f"- {figure.title}: {figure.definition}" for figure in CLINICAL_FIGURES.values()]
    return "\n".join([*lines, "", RESEARCH_ONLY, ""])


def _section(section: Section) -> dict[str, Any]:
    return {
        "test_set": section.test_set,
        "judge": section.judge,
        "signature": section.signature,
        "n_pairs": len(section.positions),
        "n_asked": section.n_asked,
        "joined_by": section.systems.joined_by,
        "resampled": "patients" if section.systems.patients else "pairs",
        "systems": {
            name: {
                "figures": {key: estimate._asdict() for key, estimate in section.figures[name].items()},
                **{key: getattr(summary, key) for key in _OF_SUMMARY},
                "suspect": {
                    section.pair_name(result.index): result.suspicions
                    for result in section.results[name]
                    if result.suspicions
                },
                "unscored": {section.pair_name(position): reason for position, reason in summary.failures.items()},
            }
            for name, summary in section.summaries.items()
        },
        "comparisons": [c._asdict() | {"difference": c.difference._asdict()} for c in section.comparisons],
        "subgroups": [
            {
                "by": group.by,
                "label": group.label,
                "n_pairs": group.n_pairs,
                "systems": {
                    name: {key: estimate._asdict() for key, estimate in figures.items()}
                    for name, figures in group.figures.items()
                },
            }
            for group in section.subgroups
        ],
        "pairs": [
            {"pair": section.pair_name(row[0].index), "scores": dict(zip(section.results, scores, strict=True))}
            for row in zip(*section.results.values(), strict=True)
            for scores in [[result.crimson_score for result in row]]
        ],
    }


def _agreement(found: Agreement) -> dict[str, Any]:
    return found._asdict() | {"difference": found.difference._asdict()}


def json_ready(value: Any) -> Any:
    """Nested data with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: json_ready(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def escaped(text: str) -> str:
    """Text as Markdown shows it, without control characters, and without links where none is written."""
    plain = "\n".join(map(printable, text.replace("\r", " ").split("\n")))
    return _ADDRESS.sub("<!-- -->", plain.translate(_MARKDOWN_SPECIAL))
