"""The tab "One pair"."""

import json

import gradio as gr

from crimson_core import CrimsonError, InputError, PairResult, ReportPair, make_pairs
from crimson_core.compare.html.pair import pair_html
from crimson_core.run.pairs import pairs_from_rows
from crimson_core.run.tables import open_table
from space.judging import explained, judge_in_turns, scorer_for
from space.parts import PRIVATE, PairTab, html, judge_choice, privacy_text, refused
from space.settings import Settings
from space.uploads import EXAMPLES, check_lengths

_COLUMNS = {name: name for name in ("reference", "prediction", "id", "age", "sex", "indication")}
_ARGUMENTS = {
    "predictions": "The candidate report",
    "references": "The reference report",
    "patient_contexts": "The patient context",
}

_NOTHING = (None, gr.update(visible=False), None, gr.update(visible=False))  # under the answer


def build(settings: Settings) -> PairTab:
    """Lay out the tab inside the Blocks and Tab that are open."""
    examples = pairs_from_rows(open_table(EXAMPLES).rows, _COLUMNS, EXAMPLES.name)
    with gr.Row():
        reference = gr.Textbox(
            label="Reference report, by a radiologist", lines=6, max_lines=16, elem_id="reference", min_width=320
        )
        candidate = gr.Textbox(
            label="Candidate report, to be judged", lines=6, max_lines=16, elem_id="candidate", min_width=320
        )
    with gr.Row():
        age = gr.Textbox(label="Age (optional)", placeholder="65, 6 months, 065Y", min_width=120, elem_id="age")
        sex = gr.Textbox(label="Sex (optional)", placeholder="F, M", min_width=120, elem_id="sex")
        indication = gr.Textbox(
            label="Indication (optional)", placeholder="why the image was taken", scale=3, elem_id="indication"
        )
        judge = judge_choice(settings)
    with gr.Row():
        score = gr.Button("Score", variant="primary", elem_id="score")
        clear = gr.Button("Clear", elem_id="clear")
    example = gr.Dataset(
        label="Examples: click one to see it judged",
        components=[gr.Textbox(visible=False)],
        samples=[[(pair.id or "").replace("-", " ")] for pair in examples],
        type="index",
        samples_per_page=len(examples),
        elem_id="examples",
    )
    answer = html(elem_id="answer")
    gr.Markdown(privacy_text(settings), elem_classes="privacy")
    with gr.Accordion("Evaluation as JSON", open=False, visible=False) as more:
        raw = gr.Code(language="json", label="Evaluation, errors and terms", interactive=False, max_lines=30)
    with gr.Accordion("How this was read", open=False, visible=False, elem_id="reading") as how:
        reading = gr.Code(label="What decided, in brackets", interactive=False, max_lines=40)
    inputs = [reference, candidate, age, sex, indication]
    result_outputs = [answer, raw, more, reading, how]

    def judged(reference: str, candidate: str, age: str, sex: str, indication: str, judge: str) -> tuple:
        try:
            pair = _pair(reference, candidate, {"age": age, "sex": sex, "indication": indication}, settings)
            (result,) = judge_in_turns(judge, [pair])
            return _shown(pair, result, scorer_for(judge).signature, "")
        except CrimsonError as error:
            return refused(error), *_NOTHING

    def example_judged(index: int, judge: str) -> tuple:
        values = _fields(examples[index])
        return *values, *judged(*values, judge)

    def show(pair: ReportPair, result: PairResult, signature: str, judge: str, title: str) -> tuple:
        return *_fields(pair), judge, *_shown(pair, result, signature, title)

    score.click(judged, [*inputs, judge], result_outputs, **PRIVATE)
    example.click(example_judged, [example, judge], [*inputs, *result_outputs], **PRIVATE)
    # In the browser, so that what is typed right after it stays.
    clear.click(None, None, [*inputs, answer, raw, reading], js="() => ['', '', '', '', '', '', null, null]").then(
        lambda: (gr.update(visible=False),) * 2, None, [more, how], **PRIVATE
    )
    return PairTab([*inputs, judge, *result_outputs], show)


def _pair(reference: str, candidate: str, context: dict[str, str], settings: Settings) -> ReportPair:
    if not reference.strip() and not candidate.strip():
        raise InputError("Both reports are empty. Write or paste a reference report and a candidate report.")
    try:
        pairs = make_pairs([candidate], [reference], [context], where=lambda argument, row: _ARGUMENTS[argument])
    except InputError as error:
        raise InputError(str(error).replace("The patient context['age']", "Age")) from None
    check_lengths(pairs, settings, lambda row: "The pair")
    return pairs[0]


def _fields(pair: ReportPair) -> tuple[str, ...]:
    context = pair.context.as_dict() if pair.context else {}
    known = {key.lower(): value for key, value in context.items()}
    return pair.reference, pair.candidate, *(known.get(field, "") for field in ("age", "sex", "indication"))


def _shown(pair: ReportPair, result: PairResult, signature: str, title: str) -> tuple:
    record = {key: value for key, value in result.as_dict().items() if key != "index"} | {"signature": signature}
    offline = "judge:offline|" in signature and result.evaluation is not None  # only the rules can say how they read
    return (
        pair_html(pair, result, signature, title),
        json.dumps(record, ensure_ascii=False, indent=2),
        gr.update(visible=True),
        explained(pair) if offline else None,
        gr.update(visible=offline),
    )
