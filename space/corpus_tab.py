"""The tabs "A file" and "Compare": many report pairs of one system or of several, from upload to download."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from crimson_core import CrimsonError, PairResult
from crimson_core.compare import exports
from crimson_core.compare.figures import figures_of
from crimson_core.compare.section import Systems
from crimson_core.run.files import json_line
from space import words
from space.comparison import MOST_SYSTEMS, systems_of
from space.judging import Run
from space.parts import GO_TO_ANSWER_JS, GONE, PRIVATE, PairTab, download, html, judge_choice, limits_text, refused
from space.parts import rows_html as rows_part
from space.settings import Settings
from space.uploads import EXAMPLES, SYSTEMS_EXAMPLE, UploadedTable, guess_columns, read_table, take_uploads
from space.views import differing_html, outcome_html, pages, progress_html, rows_html, section_of, uploaded_html

_NONE = "(none)"


def build(settings: Settings, tabs: gr.Tabs, pair_tab: PairTab, *, several: bool) -> None:
    """Lay out the tab inside the Tab that is open: for one system, or for the comparison of several."""
    prefix, sample_file = ("compare-", SYSTEMS_EXAMPLE) if several else ("", EXAMPLES)
    intro = words.NEEDS_SEVERAL.format(most=MOST_SYSTEMS) if several else words.NEEDS_ONE
    gr.Markdown(intro + limits_text(settings, " in all, counted over all systems" if several else ""))
    tables, systems, run, page = gr.State(None), gr.State(None), gr.State(None), gr.State(0)
    upload = gr.File(
        label="One or several files" if several else "File of report pairs",
        file_count="multiple" if several else "single",
        elem_id=f"{prefix}upload",
        height=150,
    )
    sample = gr.Button("Use the sample instead", size="sm", elem_id=f"{prefix}sample")
    about = html(elem_id=f"{prefix}table")
    with gr.Column(visible=False) as setup:
        gr.Markdown("**Is each column the right one?** They were proposed from their names.")
        with gr.Row():
            choices = {
                role: gr.Dropdown(
                    [] if role == "prediction" and several else [_NONE],
                    multiselect=role == "prediction" and several,
                    label="Candidate reports: one column for each system"
                    if role == "prediction" and several
                    else label,
                    min_width=320 if role == "prediction" and several else 150,
                    elem_id=f"{prefix}column-{role}",
                )
                for role, label in words.ROLES.items()
            }
        with gr.Row():
            judge = judge_choice(settings)
            start = gr.Button("Compare" if several else "Score", variant="primary", elem_id=f"{prefix}start")
            stop = gr.Button("Stop and keep what is done", interactive=False, elem_id=f"{prefix}stop")
    progress = html(elem_id=f"{prefix}progress")
    with gr.Column(visible=False) as outcome:
        summary = html(elem_id=f"{prefix}summary")
        with gr.Row():
            plots = [
                gr.Plot(show_label=False, min_width=300, elem_classes="figure") for _ in range(5 if several else 3)
            ]
        rows = rows_part(elem_id=f"{prefix}rows")
        with gr.Row(visible=not several):
            earlier = gr.Button("Previous pairs", interactive=False)
            later = gr.Button("Next pairs", interactive=False, elem_id=f"{prefix}later")
        with gr.Row():
            save_jsonl = gr.Button("Download JSONL: whole evaluations", elem_id=f"{prefix}save-jsonl")
            save_csv = gr.Button("Download CSV: scores and counts", elem_id=f"{prefix}save-csv")

    def taken(read: Callable[[], Sequence[UploadedTable]]) -> dict:
        fresh = {run: None, systems: None, progress: "", outcome: gr.update(visible=False), upload: None}
        try:
            got = read()
        except CrimsonError as error:
            return fresh | {tables: None, about: refused(error), setup: gr.update(visible=False)}
        columns = [column for column in got[0].columns if all(column in table.columns for table in got)]
        guessed: dict[str, Any] = guess_columns(columns)
        if several:
            others = {column for role, column in guessed.items() if role != "prediction"}
            one_each = [guessed["prediction"]] if len(got) > 1 and guessed["prediction"] else None
            guessed["prediction"] = one_each or [column for column in columns if column not in others]
        else:
            fresh |= {start: gr.update(value=f"Score {len(got[0].rows):,} pairs")}
        none = {role: [] if role == "prediction" and several else [_NONE] for role in choices}
        return (
            fresh
            | {tables: got, about: uploaded_html(got), setup: gr.update(visible=True)}
            | {c: gr.update(choices=none[role] + columns, value=guessed[role] or _NONE) for role, c in choices.items()}
        )

    def scored(got: Sequence[UploadedTable] | None, judge: str, *columns: Any) -> Iterator[dict]:
        if got is None:
            yield {progress: refused(GONE)}
            return
        chosen = {role: None if c == _NONE else c for role, c in zip(choices, columns, strict=True)}
        try:
            asked = systems_of(got, chosen, settings)
            going = Run(judge, asked.interleaved())
        except CrimsonError as error:
            yield {progress: refused(error)}
            return
        busy = {start: gr.update(interactive=False), stop: gr.update(interactive=True)}
        yield {run: going, systems: asked, outcome: gr.update(visible=False)} | busy
        for _ in going.watch():
            yield {progress: progress_html(going)}
        yield {progress: progress_html(going, "judged; intervals are being computed")}
        names = ", ".join(table.name for table in got)
        yield {start: gr.update(interactive=True), stop: gr.update(interactive=False)} | shown(going, asked, names)

    def shown(done: Run, asked: Systems, name: str) -> dict:
        section = section_of(done, asked, name)
        if section is None:
            whose = " for all systems" if several else ""
            return {progress: refused(done.error or f"The run was stopped before the first pair was judged{whose}.")}
        drawn = figures_of(section) or [None] * len(plots)
        return (
            {progress: "", outcome: gr.update(visible=True), summary: outcome_html(done, section)}
            | {
                plot: gr.update(value=figure.plot, visible=True) if figure else gr.update(visible=False)
                for plot, figure in zip(plots, drawn, strict=True)
            }
            | ({rows: differing_html(section)} if several else turned(done, 0))
        )

    def turned(done: Run | None, to: int) -> dict:
        if done is None:
            return {rows: refused(GONE)}
        last = pages(done.n_done) - 1
        to = min(max(to, 0), last)
        return {
            page: to,
            rows: rows_html(done, to),
            earlier: gr.update(interactive=to > 0, visible=last > 0),
            later: gr.update(interactive=to < last, visible=last > 0),
        }

    def opened(done: Run | None, asked: Systems | None, event: gr.EventData) -> tuple:
        result = next((result for result in done.results if result.index == event.index), None) if done else None
        if result is None or asked is None:
            raise gr.Error(GONE)
        row, system = divmod(result.index, len(asked.names))
        title = f"{asked.names[system]}: pair " if several else "Pair "
        title += result.id or f"of row {row + 1}"
        shown = pair_tab.show(done.pairs[result.index], result, done.signature, done.judge, title)
        return gr.update(selected="pair"), *shown

    def results(done: Run, asked: Systems) -> Mapping[str, Sequence[PairResult]]:
        return asked.results(done.results) if several else {"": done.results}

    def uploaded(paths: str | list[str]) -> dict:
        return taken(partial(take_uploads, paths if several else [paths], settings))

    read_outputs = [tables, systems, run, about, setup, progress, outcome, start, upload, *choices.values()]
    upload.upload(uploaded, upload, read_outputs, **PRIVATE)
    sample.click(
        lambda: taken(lambda: [read_table(sample_file, sample_file.name, settings)]), None, read_outputs, **PRIVATE
    )
    page_outputs = [page, rows, earlier, later]
    start.click(
        scored,
        [tables, judge, *choices.values()],
        [run, systems, progress, outcome, start, stop, summary, *plots, *page_outputs],
        show_progress="hidden",
        **PRIVATE,
    )
    stop.click(lambda going: going.stop() if going else None, run, None, queue=False, **PRIVATE)
    earlier.click(lambda done, at: turned(done, at - 1), [run, page], page_outputs, **PRIVATE)
    later.click(lambda done, at: turned(done, at + 1), [run, page], page_outputs, **PRIVATE)
    rows.select(opened, [run, systems], [tabs, *pair_tab.outputs], **PRIVATE).success(
        None, None, None, js=GO_TO_ANSWER_JS
    )
    file_name = "crimson-systems" if several else "crimson"
    download(
        save_jsonl,
        lambda done, asked: "".join(map(json_line, exports.pair_records(results(done, asked), done.signature))),
        [run, systems],
        f"{file_name}.jsonl",
    )
    download(
        save_csv,
        lambda done, asked: exports.pairs_csv(results(done, asked), done.signature),
        [run, systems],
        f"{file_name}.csv",
    )
