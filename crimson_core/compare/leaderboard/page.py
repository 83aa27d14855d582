"""A leaderboard as one HTML page that needs nothing else: figures, tables, and the pairs that tell the systems apart.

Report text is untrusted: templates escape it, and the page's own policy lets it load nothing and run only our script.
"""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crimson_core.compare.html import rendering
from crimson_core.compare.html.pair import pair_html
from crimson_core.compare.leaderboard import figures, tables
from crimson_core.compare.leaderboard.run import JudgeAgreement, Leaderboard, Section
from crimson_core.compare.summary import CLINICAL_FIGURES

MOST_PAIRS = 5  # shown in full, of each section
# Control characters, which HTML does not allow, and halves of surrogate pairs, which no file can hold.
_FORBIDDEN = {c: "\ufffd" for c in (*range(32), *range(127, 160), *range(0xD800, 0xE000)) if chr(c) not in "\t\n\r"}
_HERE = Path(__file__).parent
_render = rendering.renderer(_HERE / "templates", number=tables.number)


class _Shown(NamedTuple):
    """A pair that is shown in full.

    Attributes:
        title: What to call it, and by how much the scores differ.
        reports: One article per candidate or judge.
    """

    title: str
    reports: list[str]


def page_html(board: Leaderboard) -> str:
    """The page.

    Args:
        board: A leaderboard with at least one section.
    """
    script = (rendering.FOLDER / "point.js").read_text(encoding="utf-8") + (_HERE / "page.js").read_text(
        encoding="utf-8"
    )
    page = _render(
        "leaderboard.html",
        title=board.config.title,
        style=(rendering.FOLDER / "style.css").read_text(encoding="utf-8")
        + (_HERE / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        research_only=tables.RESEARCH_ONLY,
        interrupted=board.interrupted,
        sections=[_section(number, section) for number, section in enumerate(board.sections, 1)],
        agreements=[_agreement(number, found) for number, found in enumerate(board.agreements, 1)],
        how_to_read=tables.how_to_read(board),
        clinical_figures=list(CLINICAL_FIGURES.values()),
        seed=board.config.seed,
    )
    return page.translate(_FORBIDDEN)


def _section(number: int, section: Section) -> dict[str, Any]:
    scored = any(estimates["crimson_score"].n for estimates in section.figures.values())
    made = [figures.means(section), figures.distributions(section)] if scored else []
    if scored and section.comparisons:
        made.insert(1, figures.differences(section))
    if scored:
        made += [figures.errors_per_type(section), figures.errors_per_significance(section)]
    return {
        "anchor": f"section-{number}",
        "name": section.name,
        "signature": section.signature,
        "n_pairs": len(section.positions),
        "n_asked": section.n_asked,
        "figures": made,
        "systems": list(section.results),
        "error_rows": figures.error_rows(section) if scored else [],
        "tables": tables.section_tables(section),
        "compared": any(c.difference.n for c in section.comparisons),
        "pairs": list(_separating(number, section)),
    }


def _separating(number: int, section: Section) -> Iterator[_Shown]:
    for place, spread in section.most_separated(MOST_PAIRS):
        row = {name: results[place] for name, results in section.results.items()}
        position = next(iter(row.values())).index
        yield _Shown(
            f"{tables.pair_name(section, position)}: the scores lie {tables.number(spread)} apart",
            [
                pair_html(
                    section.systems.pairs[name][position],
                    result,
                    section.signature,
                    f"{name}: {tables.number(result.crimson_score)}" if result.score else name,
                    anchor=f"pair-{number}-{place}-{i}-",
                    label=f"{section.name}, {tables.pair_name(section, position)}, {name}: ",
                )
                for i, (name, result) in enumerate(row.items())
            ],
        )


def _agreement(number: int, found: JudgeAgreement) -> dict[str, Any]:
    shown = []
    for name, position, difference in found.most_apart[:MOST_PAIRS]:
        articles = []
        for i, section in enumerate(found.sections):
            result = next(result for result in section.results[name] if result.index == position)
            pair = section.systems.pairs[name][position]
            anchor = f"judges-{number}-{position}-{list(section.systems.pairs).index(name)}-{i}-"
            label = f"{found.name}, {tables.pair_name(section, position)}, {name}, {section.judge}: "
            articles.append(pair_html(pair, result, section.signature, section.judge, anchor=anchor, label=label))
        title = (
            f"{tables.pair_name(found.sections[0], position)}, {name}: the scores differ by {tables.signed(difference)}"
        )
        shown.append(_Shown(title, articles))
    return {
        "anchor": f"judges-{number}",
        "name": found.name,
        "tables": tables.agreement_tables(found),
        "pairs": shown,
    }
