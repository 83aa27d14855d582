"""HTML of uploads, of a run's progress, of its results and of its pairs."""

import math
from collections.abc import Sequence
from pathlib import Path

from crimson_core import PairResult
from crimson_core.compare import tables
from crimson_core.compare.html.rendering import renderer
from crimson_core.compare.section import Section, Systems, make_section
from crimson_core.compare.summary import spread_first
from space.judging import Run
from space.uploads import UploadedTable

PAGE = 50  # rows
_PREVIEW_ROWS = 3

render = renderer(Path(__file__).parent / "templates")


def uploaded_html(uploaded: Sequence[UploadedTable]) -> str:
    """The uploaded tables: name, number of rows, and the first rows."""
    shown = [
        {
            "name": table.name,
            "n": len(table.rows),
            "columns": table.columns,
            "rows": [[_cell(row.get(column)) for column in table.columns] for row in table.rows[:_PREVIEW_ROWS]],
        }
        for table in uploaded
    ]
    return render("uploaded.html", tables=shown)


def progress_html(run: Run, doing: str = "judged") -> str:
    """The progress of a run and the remaining time."""
    return render("progress.html", done=run.n_done, total=len(run.pairs), left=run.seconds_left, doing=doing)


def section_of(run: Run, systems: Systems, name: str) -> Section | None:
    """The section of the pairs that a run over interleaved pairs has judged for all systems; None if there are none."""
    results = systems.results(run.results)
    return make_section(name, run.judge, run.signature, systems, results) if any(results.values()) else None


def outcome_html(run: Run, section: Section) -> str:
    """The figures of a run so far: large ones for one system, tables for several."""
    several = len(section.results) > 1
    (name, summary), *_ = section.summaries.items()
    return render(
        "corpus.html",
        run=run,
        section=section,
        n_pairs=len(section.positions),
        several=several,
        summary=summary,
        estimate=section.figures[name]["crimson_score"],
        context=sum(pair.context is not None for pair in run.pairs),
        tables=tables.section_tables(section) if several else [tables.clinical_table(section)],
        how_to_read=tables.how_to_read([section]),
    )


def worst_first(results: Sequence[PairResult]) -> list[PairResult]:
    """Results by score, worst first; unscored ones come before all others, since they may be worse."""
    return sorted(results, key=lambda r: (-math.inf if r.evaluation is None else r.crimson_score, r.index))


def rows_html(run: Run, page: int) -> str:
    """One page of a run's pairs, the worst first. A row's button carries the index of its pair."""
    ordered = worst_first(run.results)
    shown = [(result, run.pairs[result.index]) for result in ordered[page * PAGE : (page + 1) * PAGE]]
    return render("rows.html", rows=shown, first=page * PAGE, total=len(ordered))


def pages(n: int) -> int:
    """Number of pages for n rows."""
    return max(1, math.ceil(n / PAGE))


def differing_html(section: Section) -> str:
    """The pairs on which the systems differ most. A score's button carries the index of its pair in the run."""
    names = section.systems.names
    rows = []
    for place, spread in spread_first(section.results)[:PAGE]:
        row = [section.results[name][place] for name in names]
        index = row[0].index
        scores = [(index * len(names) + number, result) for number, result in enumerate(row)]
        reference = section.systems.pairs[names[0]][index].reference
        rows.append({"name": section.pair_name(index), "reference": reference, "scores": scores, "spread": spread})
    return render("differing.html", names=names, rows=rows, total=len(section.positions))


def _cell(value: object) -> str:
    return "" if value is None else str(value)
