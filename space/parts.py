"""Gradio parts that several tabs use."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import gradio as gr

from crimson_core import PairResult, ReportPair
from crimson_core.judges import parse_spec
from crimson_core.run.tables import READABLE
from space.settings import Settings
from space.views import render

# HTML of our own templates: Gradio's looks for prose and its click event are not wanted.
html = partial(gr.HTML, apply_default_css=False, js_on_load=None)
# Events are for this page and no public interface.
PRIVATE = {"api_visibility": "private"}
GONE = "What was read and judged is gone from the server, since the connection was closed. Give the file again."

# Handed the text by Gradio, the browser makes the file.
_DOWNLOAD_JS = """(text, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/plain;charset=utf-8"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""

# Tells Python which pair was chosen: the button's data, wherever in its row the click was.
_CHOOSE_JS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]") ?? event.target.closest("tr")?.querySelector("button[data-index]");
  if (button) trigger("select", {index: Number(button.dataset.index)});
});"""
rows_html = partial(gr.HTML, apply_default_css=False, js_on_load=_CHOOSE_JS)

# Moves the eye, the keyboard and a screen reader to a pair that was opened from another tab.
GO_TO_ANSWER_JS = """() => setTimeout(() => {
  const answer = document.querySelector("#answer article");
  if (answer) { answer.tabIndex = -1; answer.focus({preventScroll: true}); answer.scrollIntoView({block: "start"}); }
}, 50)"""


class PairTab(NamedTuple):
    """Lets other tabs show a pair in the tab "One pair"."""

    outputs: list[gr.components.Component]  # the components that `show` gives values for
    # (pair, result, signature, judge, title) -> values for `outputs`
    show: Callable[[ReportPair, PairResult, str, str, str], tuple]


def judge_choice(settings: Settings) -> gr.Dropdown:
    """A choice among the judges that the owner allows."""
    return gr.Dropdown(
        list(settings.judges), value=settings.judge, label="Judge", interactive=len(settings.judges) > 1, min_width=160
    )


def refused(message: object) -> str:
    """An error message as HTML."""
    return render("refused.html", message=str(message))


def limits_text(settings: Settings, together: str = "") -> str:
    """The limits of uploads, in words."""
    return (
        f"Files with column names ({', '.join(READABLE)}). At most **{settings.max_rows:,} rows**, **{settings.max_megabytes} MB**{together}, "
        f"and {settings.max_characters:,} characters a report. A file is deleted from the server as soon as it is read. "
        + privacy_text(settings)
    )


def privacy_text(settings: Settings) -> str:
    """States where the judges of this Space send reports."""
    served = [spec for spec in settings.judges if parse_spec(spec).prefix in ("openai", "azure")]
    if not served:
        return "Reports are judged in this process, never logged, and gone when you close the page."
    if len(served) == len(settings.judges):
        where = "Reports are **sent to the service of the judge**"
    else:
        where = f"With the judge {' or '.join(served)}, reports are **sent to that service**"
    return f"{where}. Here they are never logged, and gone when you close the page."


def download(button: gr.Button, make: Callable[..., str], inputs: list, file_name: str) -> None:
    """Let a button send the text of `make` to the browser as a file, without writing it to the server's disk."""
    text, name = gr.Textbox(visible=False), gr.Textbox(file_name, visible=False)

    def made(*values: object) -> str:
        if any(value is None for value in values):
            raise gr.Error(GONE)
        return make(*values)

    # The text is taken back at once, so that Gradio keeps no second copy.
    button.click(made, inputs, text, **PRIVATE).success(None, [text, name], None, js=_DOWNLOAD_JS).then(
        lambda: "", None, text, **PRIVATE
    )
