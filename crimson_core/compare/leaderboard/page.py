"""A leaderboard as one self-contained HTML page: figures, tables, and the pairs that separate the systems.

Report text is untrusted: templates escape it, and the page's own policy lets it load nothing and run only our scripts and plotly's,
which makes up almost all of the file.
"""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from plotly.offline import get_plotlyjs

from crimson_core.compare import tables
from crimson_core.compare.figures import figures_of
from crimson_core.compare.formats import fixed, signed
from crimson_core.compare.html import rendering
from crimson_core.compare.html.pair import pair_html
from crimson_core.compare.leaderboard.run import JudgeAgreement, Leaderboard
from crimson_core.compare.section import Section
from crimson_core.compare.summary import CLINICAL_FIGURES

MOST_PAIRS = 5  # shown in full, of each section
# Control characters, which HTML does not allow, and halves of surrogate pairs, which no file can hold.
_FORBIDDEN = {c: "\ufffd" for c in (*range(32), *range(127, 160), *range(0xD800, 0xE000)) if chr(c) not in "\t\n\r"}
_HERE = Path(__file__).parent
_render = rendering.renderer(_HERE / "templates")


class _Shown(NamedTuple):
    """A pair that is shown in full."""

    title: str  # name of the pair, and the difference of the scores
    reports: list[str]  # one article per candidate or judge


def page_html(board: Leaderboard) -> str:
    """The page of a leaderboard."""
    sections = [_section(number, section) for number, section in enumerate(board.sections, 1)]
    scripts = [get_plotlyjs()] if any(section["figures"] for section in sections) else []
    scripts.append(_text(rendering.FOLDER / "point.js") + _text(_HERE / "page.js"))
    page = _render(
        "leaderboard.html",
        title=board.config.title,
        style=_text(rendering.FOLDER / "style.css") + _text(_HERE / "style.css"),
        script_sources=" ".join(map(_source, scripts)),
        research_only=tables.RESEARCH_ONLY,
        interrupted=board.interrupted,
        sections=sections,
        agreements=[_agreement(number, found) for number, found in enumerate(board.agreements, 1)],
        how_to_read=tables.how_to_read(board.sections, board.agreements),
        clinical_figures=list(CLINICAL_FIGURES.values()),
        seed=board.config.seed,
    )
    ours = "".join(f"<script>{script}</script>\n" for script in scripts)
    return page.translate(_FORBIDDEN).replace("</body>", f"{ours}</body>")  # plotly's script holds control characters


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _source(script: str) -> str:
    """The expression that allows a script in the page's policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _section(number: int, section: Section) -> dict[str, Any]:
    return {
        "anchor": f"section-{number}",
        "name": section.name,
        "n_pairs": len(section.positions),
        "n_asked": section.n_asked,
        "n_systems": len(section.results),
        "figures": [
            {"description": description, "height": plot.layout.height, "json": plot.to_json()}
            for plot, description in figures_of(section)
        ],
        "error_table": tables.error_table(section),
        "tables": tables.section_tables(section),
        "compared": any(c.difference.n for c in section.comparisons),
        "pairs": list(_separating(number, section)),
    }


def _separating(number: int, section: Section) -> Iterator[_Shown]:
    for place, spread in section.most_separated(MOST_PAIRS):
        row = {name: results[place] for name, results in section.results.items()}
        position = next(iter(row.values())).index
        yield _Shown(
            f"{section.pair_name(position)}: the scores lie {fixed(spread)} apart",
            [
                pair_html(
                    section.systems.pairs[name][position],
                    result,
                    section.signature,
                    f"{name}: {fixed(result.crimson_score)}" if result.evaluation else name,
                    anchor=f"pair-{number}-{place}-{i}-",
                    label=f"{section.name}, {section.pair_name(position)}, {name}: ",
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
            label = f"{found.name}, {section.pair_name(position)}, {name}, {section.judge}: "
            articles.append(pair_html(pair, result, section.signature, section.judge, anchor=anchor, label=label))
        title = f"{found.sections[0].pair_name(position)}, {name}: the scores differ by {signed(difference)}"
        shown.append(_Shown(title, articles))
    return {
        "anchor": f"judges-{number}",
        "name": found.name,
        "tables": tables.agreement_tables(found),
        "pairs": shown,
    }
