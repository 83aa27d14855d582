"""The tab "A file"."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from crimson_core import CrimsonError
from space import exports, figures, words
from space.corpus_view import PAGE, pages, progress_html, rows_html, summary_html, table_html
from space.judging import Run
from space.pair_tab import EXAMPLES, PairTab, judge_choice
from space.rendering import render
from space.settings import Settings
from space.uploads import Table, checked_pairs, guess_columns, read_table, take_upload

# Tells Python which row was chosen: the button's data, wherever in its row the click was.
CHOOSE_JS = """element.addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  const button = event.target.closest("button[data-index]") ?? row?.querySelector("button[data-index]");
  if (button) trigger("select", {index: Number(button.dataset.index)});
});"""
GONE = "These results are gone from the server, as they are when the page was closed. Score the file again."
_NONE = "(none)"
_PRIVATE = {"api_visibility": "private"}


def build(settings: Settings, tabs: gr.Tabs, pair_tab: PairTab) -> None:
    """Lay out the tab inside the Tab that is open."""
    gr.Markdown(limits_text(settings))
    table, run, page = gr.State(None), gr.State(None), gr.State(0)
    upload = gr.File(label="File of report pairs", file_types=list(file_endings()), elem_id="upload", height=150)
    sample = gr.Button("Use the sample instead", size="sm", elem_id="sample")
    about = gr.HTML(elem_id="table", js_on_load=None)
    with gr.Column(visible=False) as setup:
        gr.Markdown("**Is each column the right one?** They were proposed from their names.")
        with gr.Row():
            choices = {
                role: gr.Dropdown([_NONE], value=_NONE, label=label, min_width=180, elem_id=f"column-{role}")
                for role, label in words.ROLES.items()
            }
        with gr.Row():
            judge = judge_choice(settings)
            start = gr.Button("Score", variant="primary", elem_id="start")
            stop = gr.Button("Stop and keep what is done", interactive=False, elem_id="stop")
    progress = gr.HTML(elem_id="progress", js_on_load=None)
    with gr.Column(visible=False) as outcome:
        summary = gr.HTML(elem_id="summary", js_on_load=None)
        with gr.Row():
            histogram = gr.Plot(show_label=False, min_width=300)
            by_type = gr.Plot(show_label=False, min_width=300)
            by_significance = gr.Plot(show_label=False, min_width=300)
        with gr.Row():
            save_jsonl = gr.Button("Download JSONL, whole evaluations", elem_id="save-jsonl")
            save_csv = gr.Button("Download CSV, scores and counts", elem_id="save-csv")
        rows = gr.HTML(elem_id="rows", js_on_load=CHOOSE_JS)
        with gr.Row():
            earlier = gr.Button("Previous pairs", interactive=False)
            later = gr.Button("Next pairs", interactive=False)
    text, name = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def taken(read: Any) -> dict:
        """Updates after a file was read, or refused."""
        fresh = {run: None, progress: "", outcome: gr.update(visible=False), upload: None}
        try:
            got: Table = read()
        except CrimsonError as error:
            return fresh | {table: None, about: render("refused.html", message=str(error)), setup: gr.update(visible=False)}
        guessed = guess_columns(got.columns)
        return (
            fresh
            | {table: got, about: table_html([got]), setup: gr.update(visible=True)}
            | {start: gr.update(value=f"Score {len(got.rows):,} pairs")}
            | {
                choice: gr.update(choices=[_NONE, *map(str, got.columns)], value=guessed[role] or _NONE)
                for role, choice in choices.items()
            }
        )

    def scored(got: Table | None, judge: str, *columns: str) -> Iterator[dict]:
        chosen = {role: None if c == _NONE else c for role, c in zip(choices, columns, strict=True)}
        try:
            pairs = checked_pairs(got, chosen, settings) if got else None
        except CrimsonError as error:
            yield {progress: render("refused.html", message=str(error))}
            return
        if pairs is None:
            yield {progress: render("refused.html", message=GONE)}
            return
        going = Run(judge, pairs)
        yield {
            run: going,
            progress: progress_html(going),
            outcome: gr.update(visible=False),
            start: gr.update(interactive=False),
            stop: gr.update(interactive=True),
        }
        for _ in going.watch():
            yield {progress: progress_html(going)}
        yield {start: gr.update(interactive=True), stop: gr.update(interactive=False)} | shown(going)

    def shown(done: Run) -> dict:
        results = done.results
        if not results:
            message = done.error or "The run was stopped before the first pair was judged."
            return {progress: render("refused.html", message=message)}
        return {
            progress: "",
            outcome: gr.update(visible=True),
            summary: summary_html(done),
            histogram: figures.score_histogram(results),
            by_type: figures.errors_by_type(results),
            by_significance: figures.errors_by_significance(results),
        } | turned(done, 0)

    def turned(done: Run | None, to: int) -> dict:
        if done is None:
            return {rows: render("refused.html", message=GONE)}
        results = done.results
        last = pages(len(results)) - 1
        to = min(max(to, 0), last)
        return {
            page: to,
            rows: rows_html(results, done.pairs, to),
            earlier: gr.update(interactive=to > 0, visible=last > 0),
            later: gr.update(interactive=to < last, visible=last > 0),
        }

    def opened(done: Run | None, event: gr.EventData) -> tuple:
        if done is None:
            raise gr.Error(GONE)
        return gr.update(selected="pair"), *open_pair(pair_tab, done, event.index)

    read_outputs = [table, run, about, setup, progress, outcome, start, upload, *choices.values()]
    upload.upload(
        lambda path: taken(lambda: take_upload(path, settings)), upload, read_outputs, show_progress="minimal", **_PRIVATE
    )
    sample.click(
        lambda: taken(lambda: read_table(EXAMPLES, EXAMPLES.name, settings)), None, read_outputs, **_PRIVATE
    )
    page_outputs = [page, rows, earlier, later]
    start.click(
        scored,
        [table, judge, *choices.values()],
        [run, progress, outcome, start, stop, summary, histogram, by_type, by_significance, *page_outputs],
        show_progress="hidden",
        concurrency_limit=None,
        **_PRIVATE,
    )
    stop.click(lambda going: going.stop() if going else None, run, None, queue=False, **_PRIVATE)
    earlier.click(lambda done, at: turned(done, at - 1), [run, page], page_outputs, **_PRIVATE)
    later.click(lambda done, at: turned(done, at + 1), [run, page], page_outputs, **_PRIVATE)
    rows.select(opened, run, [tabs, *pair_tab.outputs], **_PRIVATE)
    for button, make, file_name in ((save_jsonl, exports.jsonl, "crimson.jsonl"), (save_csv, exports.as_csv, "crimson.csv")):
        button.click(
            lambda done, make=make, file_name=file_name: (make(done), file_name) if done else ("", ""),
            run,
            [text, name],
            **_PRIVATE,
        ).then(None, [text, name], None, js=exports.DOWNLOAD_JS)


def limits_text(settings: Settings) -> str:
    """What is taken, before anything is uploaded."""
    return (
        f"One report pair a row, with column names: {', '.join(file_endings())}. "
        f"At most **{settings.max_rows:,} rows**, **{settings.max_megabytes} MB**, and {settings.max_characters:,} "
        "characters a report. The file is deleted from the server as soon as it is read. " + words.PRIVACY
    )


def file_endings() -> tuple[str, ...]:
    """Endings of the files that are read."""
    from crimson_core.table import READABLE

    return READABLE


def open_pair(pair_tab: PairTab, run: Run, index: int) -> tuple:
    """Values for the tab "One pair" that show a pair of a run as it was judged."""
    result = next((result for result in run.results if result.index == index), None)
    if result is None:
        raise gr.Error(GONE)
    title = f"Pair {result.id}" if result.id else f"Pair of row {index + 1}"
    return pair_tab.show(run.pairs[index], result, run.signature, run.judge, title)
