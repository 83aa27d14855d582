"""The tab "A file"."""

from collections.abc import Callable, Iterator
from functools import partial

import gradio as gr

from crimson_core import CrimsonError
from space import exports, figures, words
from space.corpus_view import pages, progress_html, rows_html, summary_html, table_html
from space.judging import Run
from space.parts import GO_TO_ANSWER_JS, GONE, PRIVATE, PairTab, download, html, judge_choice, limits_text, refused
from space.parts import rows_html as rows_part
from space.settings import Settings
from space.uploads import EXAMPLES, Table, checked_pairs, guess_columns, read_table, take_upload

_NONE = "(none)"


def build(settings: Settings, tabs: gr.Tabs, pair_tab: PairTab) -> None:
    """Lay out the tab inside the Tab that is open."""
    gr.Markdown(limits_text(settings, "One report pair a row, with column names"))
    table, run, page = gr.State(None), gr.State(None), gr.State(0)
    upload = gr.File(label="File of report pairs", elem_id="upload", height=150)
    sample = gr.Button("Use the sample instead", size="sm", elem_id="sample")
    about = html(elem_id="table")
    with gr.Column(visible=False) as setup:
        gr.Markdown("**Is each column the right one?** They were proposed from their names.")
        with gr.Row():
            choices = {
                role: gr.Dropdown([_NONE], value=_NONE, label=label, min_width=150, elem_id=f"column-{role}")
                for role, label in words.ROLES.items()
            }
        with gr.Row():
            judge = judge_choice(settings)
            start = gr.Button("Score", variant="primary", elem_id="start")
            stop = gr.Button("Stop and keep what is done", interactive=False, elem_id="stop")
    progress = html(elem_id="progress")
    with gr.Column(visible=False) as outcome:
        summary = html(elem_id="summary")
        with gr.Row():
            plots = [gr.Plot(show_label=False, min_width=300, elem_classes="figure") for _ in range(3)]
        rows = rows_part(elem_id="rows")
        with gr.Row():
            earlier = gr.Button("Previous pairs", interactive=False)
            later = gr.Button("Next pairs", interactive=False, elem_id="later")
        with gr.Row():
            save_jsonl = gr.Button("Download JSONL: whole evaluations", elem_id="save-jsonl")
            save_csv = gr.Button("Download CSV: scores and counts", elem_id="save-csv")

    def taken(read: Callable[[], Table]) -> dict:
        fresh = {run: None, progress: "", outcome: gr.update(visible=False), upload: None}
        try:
            got = read()
        except CrimsonError as error:
            return fresh | {table: None, about: refused(error), setup: gr.update(visible=False)}
        guessed = guess_columns(got.columns)
        return (
            fresh
            | {table: got, about: table_html([got]), setup: gr.update(visible=True)}
            | {start: gr.update(value=f"Score {len(got.rows):,} pairs")}
            | {
                choice: gr.update(choices=[_NONE, *got.columns], value=guessed[role] or _NONE)
                for role, choice in choices.items()
            }
        )

    def scored(got: Table | None, judge: str, *columns: str) -> Iterator[dict]:
        chosen = {role: None if c == _NONE else c for role, c in zip(choices, columns, strict=True)}
        if got is None:
            yield {progress: refused(GONE)}
            return
        try:
            going = Run(judge, checked_pairs(got, chosen, settings))
        except CrimsonError as error:
            yield {progress: refused(error)}
            return
        busy = {start: gr.update(interactive=False), stop: gr.update(interactive=True)}
        yield {run: going, outcome: gr.update(visible=False)} | busy
        for _ in going.watch():
            yield {progress: progress_html(going)}
        yield {start: gr.update(interactive=True), stop: gr.update(interactive=False)} | shown(going)

    def shown(done: Run) -> dict:
        results = done.results
        if not results:
            return {progress: refused(done.error or "The run was stopped before the first pair was judged.")}
        drawn = (figures.score_histogram, figures.errors_by_type, figures.errors_by_significance)
        made = {plot: draw(results) for plot, draw in zip(plots, drawn, strict=True)}
        return {progress: "", outcome: gr.update(visible=True), summary: summary_html(done)} | made | turned(done, 0)

    def turned(done: Run | None, to: int) -> dict:
        if done is None:
            return {rows: refused(GONE)}
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
        result = next((result for result in done.results if result.index == event.index), None) if done else None
        if result is None:
            raise gr.Error(GONE)
        title = f"Pair {result.id}" if result.id else f"Pair of row {result.index + 1}"
        shown = pair_tab.show(done.pairs[result.index], result, done.signature, done.judge, title)
        return gr.update(selected="pair"), *shown

    read_outputs = [table, run, about, setup, progress, outcome, start, upload, *choices.values()]
    upload.upload(lambda path: taken(partial(take_upload, path, settings)), upload, read_outputs, **PRIVATE)
    sample.click(lambda: taken(partial(read_table, EXAMPLES, EXAMPLES.name, settings)), None, read_outputs, **PRIVATE)
    page_outputs = [page, rows, earlier, later]
    start.click(
        scored,
        [table, judge, *choices.values()],
        [run, progress, outcome, start, stop, summary, *plots, *page_outputs],
        show_progress="hidden",
        **PRIVATE,
    )
    stop.click(lambda going: going.stop() if going else None, run, None, queue=False, **PRIVATE)
    earlier.click(lambda done, at: turned(done, at - 1), [run, page], page_outputs, **PRIVATE)
    later.click(lambda done, at: turned(done, at + 1), [run, page], page_outputs, **PRIVATE)
    rows.select(opened, run, [tabs, *pair_tab.outputs], **PRIVATE).success(None, None, None, js=GO_TO_ANSWER_JS)
    download(save_jsonl, lambda done: exports.jsonl({"": done.results}, done.signature), [run], "crimson.jsonl")
    download(save_csv, lambda done: exports.as_csv({"": done.results}, done.signature), [run], "crimson.csv")
