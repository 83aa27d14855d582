"""The tab "Compare systems"."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import gradio as gr

from crimson_core import CrimsonError
from crimson_core.compare.leaderboard.data import Systems
from crimson_core.compare.statistics import compare_systems, mean_interval
from space import exports, figures, words
from space.comparison import MOST_SYSTEMS, systems_of
from space.comparison_view import comparison_html, differing_html
from space.corpus_view import progress_html, table_html
from space.judging import Run
from space.parts import GO_TO_ANSWER_JS, GONE, PRIVATE, PairTab, download, html, judge_choice, limits_text, refused
from space.parts import rows_html as rows_part
from space.settings import Settings
from space.uploads import SYSTEMS_EXAMPLE, Table, guess_columns, read_table, take_uploads

_NONE = "(none)"
_INTRO = f"""Two or more systems over the same references, at most {MOST_SYSTEMS}: **one file** with a column of candidate reports for each
system, or **one file for each system**; these are joined by an id column, or must hold the same references in the same order.

"""


def build(settings: Settings, tabs: gr.Tabs, pair_tab: PairTab) -> None:
    """Lay out the tab inside the Tab that is open."""
    gr.Markdown(_INTRO + limits_text(settings, "Files have column names", " in all, counted over all systems"))
    tables, systems, run = gr.State(None), gr.State(None), gr.State(None)
    upload = gr.File(label="One or several files", file_count="multiple", elem_id="compare-upload", height=150)
    sample = gr.Button("Use the sample instead", size="sm", elem_id="compare-sample")
    about = html(elem_id="compare-table")
    with gr.Column(visible=False) as setup:
        gr.Markdown("**Is each column the right one?** They were proposed from their names.")
        predictions = gr.Dropdown(
            [], multiselect=True, label="Candidate reports: one column for each system", elem_id="compare-predictions"
        )
        with gr.Row():
            choices = {
                role: gr.Dropdown([_NONE], value=_NONE, label=label, min_width=150, elem_id=f"compare-{role}")
                for role, label in words.ROLES.items()
                if role != "prediction"
            }
        with gr.Row():
            judge = judge_choice(settings)
            start = gr.Button("Compare", variant="primary", elem_id="compare-start")
            stop = gr.Button("Stop and keep what is done", interactive=False, elem_id="compare-stop")
    progress = html(elem_id="compare-progress")
    with gr.Column(visible=False) as outcome:
        summary = html(elem_id="compare-summary")
        plot = gr.Plot(show_label=False, elem_classes="figure")
        rows = rows_part(elem_id="compare-rows")
        with gr.Row():
            save_jsonl = gr.Button("Download JSONL: whole evaluations", elem_id="compare-jsonl")
            save_csv = gr.Button("Download CSV: scores and counts", elem_id="compare-csv")

    def taken(read: Callable[[], Sequence[Table]]) -> dict:
        fresh = {run: None, systems: None, progress: "", outcome: gr.update(visible=False), upload: None}
        try:
            got = read()
        except CrimsonError as error:
            return fresh | {tables: None, about: refused(error), setup: gr.update(visible=False)}
        columns = [column for column in got[0].columns if all(column in table.columns for table in got)]
        guessed = guess_columns(columns)
        others = {column for role, column in guessed.items() if role != "prediction"}
        proposed = [column for column in columns if column not in others]
        if len(got) > 1 and guessed["prediction"]:
            proposed = [guessed["prediction"]]
        return (
            fresh
            | {tables: got, about: table_html(got), setup: gr.update(visible=True)}
            | {predictions: gr.update(choices=columns, value=proposed)}
            | {
                choice: gr.update(choices=[_NONE, *columns], value=guessed[role] or _NONE)
                for role, choice in choices.items()
            }
        )

    def scored(got: Sequence[Table] | None, judge: str, candidates: list[str], *columns: str) -> Iterator[dict]:
        chosen = {role: None if c == _NONE else c for role, c in zip(choices, columns, strict=True)}
        if got is None:
            yield {progress: refused(GONE)}
            return
        try:
            compared = systems_of(got, candidates, chosen, settings)
            going = Run(judge, compared.interleaved())
        except CrimsonError as error:
            yield {progress: refused(error)}
            return
        busy = {start: gr.update(interactive=False), stop: gr.update(interactive=True)}
        yield {run: going, systems: compared, outcome: gr.update(visible=False)} | busy
        for _ in going.watch():
            yield {progress: progress_html(going)}
        yield {progress: progress_html(going, "judged; intervals are being computed")}
        yield {start: gr.update(interactive=True), stop: gr.update(interactive=False)} | shown(going, compared)

    def shown(done: Run, compared: Systems) -> dict:
        results = compared.results(done.results)
        if not any(results.values()):
            return {
                progress: refused(done.error or "The run was stopped before the first pair was judged for all systems.")
            }
        scores = {name: [result.crimson_score for result in theirs] for name, theirs in results.items()}
        estimates = {name: mean_interval(theirs) for name, theirs in scores.items()}
        return {
            progress: "",
            outcome: gr.update(visible=True),
            summary: comparison_html(results, estimates, compare_systems(scores), done),
            plot: figures.means(estimates),
            rows: differing_html(results, compared),
        }

    def opened(done: Run | None, compared: Systems | None, event: gr.EventData) -> tuple:
        result = next((result for result in done.results if result.index == event.index), None) if done else None
        if result is None or compared is None:
            raise gr.Error(GONE)
        row, system = divmod(result.index, len(compared.names))
        title = f"{compared.names[system]}: " + (f"pair {result.id}" if result.id else f"pair of row {row + 1}")
        shown = pair_tab.show(done.pairs[result.index], result, done.signature, done.judge, title)
        return gr.update(selected="pair"), *shown

    read_outputs = [tables, systems, run, about, setup, progress, outcome, upload, predictions, *choices.values()]
    upload.upload(lambda paths: taken(partial(take_uploads, paths, settings)), upload, read_outputs, **PRIVATE)
    sample.click(
        lambda: taken(lambda: [read_table(SYSTEMS_EXAMPLE, SYSTEMS_EXAMPLE.name, settings)]),
        None,
        read_outputs,
        **PRIVATE,
    )
    start.click(
        scored,
        [tables, judge, predictions, *choices.values()],
        [run, systems, progress, outcome, start, stop, summary, plot, rows],
        show_progress="hidden",
        **PRIVATE,
    )
    stop.click(lambda going: going.stop() if going else None, run, None, queue=False, **PRIVATE)
    rows.select(opened, [run, systems], [tabs, *pair_tab.outputs], **PRIVATE).success(
        None, None, None, js=GO_TO_ANSWER_JS
    )
    for button, make, name in (
        (save_jsonl, exports.jsonl, "crimson-systems.jsonl"),
        (save_csv, exports.as_csv, "crimson-systems.csv"),
    ):
        download(
            button,
            lambda done, compared, make=make: make(compared.results(done.results), done.signature),
            [run, systems],
            name,
        )
