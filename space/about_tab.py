"""The tab "About"."""

import re
from pathlib import Path

import gradio as gr

from crimson_core.compare.formats import exact
from crimson_core.protocol.evaluation import ERROR_TYPES
from crimson_core.protocol.scoring import GRADE_WEIGHTS, SIGNIFICANCE_WEIGHTS
from space.parts import privacy_text
from space.settings import Settings

_TEXT = (Path(__file__).parent / "about.md").read_text(encoding="utf-8")
_README = Path(__file__).parent.parent / "README.md"


def build(settings: Settings) -> None:
    """Lay out the tab inside the Tab that is open."""
    gr.Markdown(about_text(settings), elem_id="about")


def about_text(settings: Settings) -> str:
    """The page in Markdown; weights come from the library and the citation from the README."""
    weights = {name: exact(weight) for name, weight in (SIGNIFICANCE_WEIGHTS | GRADE_WEIGHTS).items()}
    values = weights | {
        "types": ", ".join(ERROR_TYPES),
        "judges": ", ".join(f"`{judge}`" for judge in settings.judges),
        "privacy": privacy_text(settings),
        "citation": re.search(r"```bibtex\n(.*?\n)\}\n", _README.read_text(encoding="utf-8"), re.DOTALL)[1] + "}",
    }
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], _TEXT)
