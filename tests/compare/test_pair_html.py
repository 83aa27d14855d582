"""One report pair as HTML: where its findings stand, what is escaped, and a score that adds up."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import HOSTILE, OUR_ATTRIBUTES, OUR_TAGS, Shown, as_shown

from crimson_core import CrimsonScorer, PairResult, ReportPair, make_pairs
from crimson_core.compare.html.marking import locate, mark_reports, pieces
from crimson_core.compare.html.pair import error_rows, pair_html
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.scoring import read_outcome
from crimson_core.run.pairs import pairs_from_rows
from crimson_core.run.tables import open_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("finding", "report", "span"),
    [
        ({"finding": "effusion", "span": [6, 14]}, "Small effusion. No effusion.", (6, 14)),
        ({"finding": "effusion", "span": [0, 8]}, "Small effusion.", (6, 14)),  # another text stands there
        ({"finding": "effusion"}, "Small effusion.", (6, 14)),
        ({"finding": "effusion"}, "Small effusion. No effusion.", None),  # which one?
        ({"finding": "mass"}, "Massive mass effect, massive.", (8, 12)),
        ({"finding": "a(b"}, "x a(b y", (2, 5)),
        ({"finding": "effusion", "span": [6, 99]}, "effusion, effusion", None),
        ({"finding": "effusion", "span": [-8, 8]}, "an effusion", (3, 11)),
        ({"finding": "effusion", "span": "0, 8"}, "an effusion", (3, 11)),
        ({"finding": "Effusion in other words"}, "Pleural fluid.", None),
        ({"finding": " "}, "Pleural fluid.", None),
        ({"finding": ""}, "", None),
    ],
)
def test_a_finding_is_located_or_not_but_never_guessed(finding, report, span):
    assert locate(finding["finding"], finding.get("span"), report) == span


def evaluation_of(references, predictions, matches=(), attribute_errors=()):
    """An evaluation from (finding, span) lists and (reference, prediction) numbers."""

    def listed(letter, findings):
        return [
            {"id": f"{letter}{n}", "finding": text, "clinical_significance": level} | ({"span": span} if span else {})
            for n, (text, level, span) in enumerate(findings, 1)
        ]

    return {
        "reference_findings": listed("R", references),
        "predicted_findings": listed("P", predictions),
        "matched_findings": [{"ref_id": f"R{r}", "pred_id": f"P{p}"} for r, p in matches],
        "errors": {
            "false_findings": [f"P{n}" for n in range(1, len(predictions) + 1) if n not in {p for _, p in matches}],
            "missing_findings": [f"R{n}" for n in range(1, len(references) + 1) if n not in {r for r, _ in matches}],
            "attribute_errors": list(attribute_errors),
        },
    }


def result_of(evaluation, **more):
    return PairResult(0, None, Evaluation.model_validate(evaluation).model_dump(), **more)


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_spans_cut_a_report_into_itself(report, spans):
    spans = [(a, b) for a, b in spans if a < b <= len(report)]
    evaluation = evaluation_of([(report[a:b], "urgent", [a, b]) for a, b in spans], [])
    marks, _ = mark_reports(read_outcome(evaluation), report, "")
    made = list(pieces(report, marks))
    assert "".join(piece.text for piece in made) == report
    for mark, (start, end) in zip(marks, spans, strict=True):
        assert "".join(piece.text for piece in made if mark in piece.marks) == report[start:end]
        assert sum(mark in piece.starts for piece in made) == sum(mark in piece.ends for piece in made) == 1
    for piece in made:
        lengths = [mark.span[1] - mark.span[0] for mark in piece.marks]
        assert all(outer >= inner for outer, inner in pairwise(lengths))


def test_matches_that_hang_together_share_a_number():
    matches = [(1, 1), (1, 2), (2, 3), (3, 4), (4, 4), (4, 3), (5, 5)]
    evaluation = evaluation_of([("x", "urgent", None)] * 6, [("y", "urgent", None)] * 6, matches)
    references, predictions = mark_reports(read_outcome(evaluation), "", "")
    assert [m.group for m in references] == [1, 2, 2, 2, 3, None]
    assert [m.group for m in predictions] == [1, 1, 2, 2, 3, None]
    assert [m.kind for m in references] == ["matched"] * 5 + ["missing"]
    assert [m.kind for m in predictions] == ["matched"] * 5 + ["false"]


def shown_pair(reference, candidate, judge="offline", **context):
    (pair,) = make_pairs([candidate], [reference], [context])
    (result,) = CrimsonScorer(judge).score([pair])
    return result, Shown(pair_html(pair, result, "crimson|signature"))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_report_holds_is_text(text):
    for reference, candidate in ((text, "Cardiomegaly."), ("Cardiomegaly.", text), (text, text)):
        _, shown = shown_pair(reference, candidate, indication=text)
        assert shown.reports == [as_shown(reference), as_shown(candidate)]
        assert shown.tags <= OUR_TAGS
        assert shown.attributes <= OUR_ATTRIBUTES


@given(st.text(), st.text())
@settings(max_examples=25, deadline=None)
def test_any_reports_are_shown_to_the_character(reference, candidate):
    _, shown = shown_pair(reference + " Cardiomegaly.", candidate + "\nSmall effusion")
    assert shown.reports == [as_shown(reference) + " Cardiomegaly.", as_shown(candidate) + "\nSmall effusion"]
    assert shown.tags <= OUR_TAGS


def test_what_a_judge_writes_is_text_too():
    hostile = HOSTILE[1]
    error = {"ref_id": "R1", "pred_id": "P1", "severity": hostile, "error_types": [hostile], "explanation": hostile}
    evaluation = evaluation_of([(hostile, hostile, None)], [(hostile, hostile, None)], [(1, 1)], [error])
    result = result_of(evaluation, repairs=[hostile])
    shown = Shown(pair_html(ReportPair("a", "b"), result, hostile, hostile))
    assert shown.tags <= OUR_TAGS
    assert shown.attributes <= OUR_ATTRIBUTES
    assert shown.text.count(hostile) >= 6


def test_every_example_locates_its_findings_and_adds_up():
    columns = {"reference": "reference", "prediction": "prediction"}
    for pair in pairs_from_rows(open_table(ROOT / "examples" / "reports.csv").rows, columns, "x"):
        (result,) = CrimsonScorer("offline").score([pair])
        outcome = result.outcome
        for marks in mark_reports(outcome, pair.reference, pair.candidate):
            assert all(mark.span for mark in marks)
        n = sum(finding.weight for finding in outcome.references.values())
        c = sum(finding.credit for finding in outcome.references.values())
        f = sum(finding.weight for finding in outcome.false)
        assert (n, c, f) == pytest.approx((outcome.terms.N, outcome.terms.C, outcome.terms.F))
        text = Shown(pair_html(pair, result, "s")).text
        assert f"N = {n:g}" in text
        assert f"F = {f:g}" in text
        counts = outcome.error_counts
        assert len(error_rows(outcome)) == sum(counts[k] for k in ("false_findings", "missing_findings", "attribute_errors"))  # fmt: skip


@pytest.mark.parametrize(
    ("references", "predictions", "matches", "said"),
    [
        ([], [], [], ["S = 1", "it is the score: 1"]),
        ([], [("x", "urgent", None)], [], ["N = 0", "−(1 + 0 + 1) = −2", "d = F − C = 1", "−0.5"]),
        ([("x", "benign_expected", None)], [], [], ["N = 0", "S = 1"]),
        (
            [("x", "urgent", None)],
            [("y", "actionable_not_urgent", None)] * 3,
            [(1, 1)],
            ["(1 − 1) / 1 = 0", "score: 0"],
        ),
        ([("x", "actionable_not_urgent", None)], [("y", "urgent", None)], [], ["(0 − 1) / 0.5 = −2", "d = F − C = 1"]),
    ],
)
def test_the_score_is_told_so_that_a_person_can_add_it_up(references, predictions, matches, said):
    shown = Shown(pair_html(ReportPair("a", "b"), result_of(evaluation_of(references, predictions, matches)), "s"))
    text = " ".join(shown.text.split())
    for words in said:
        assert words in text


def test_findings_say_what_they_are_in_words_and_not_by_colour_alone():
    _, shown = shown_pair("Large right pneumothorax. Small left effusion.", "Large left effusion. Cardiomegaly.")
    for words in (
        "− missing",
        "R1, missing finding",
        "+ false",
        "P2, false finding",
        "R2, match 1",
        "P1, match 1",
        "urgent",
    ):
        assert words in shown.text


def test_findings_without_a_place_are_listed_beneath_the_report():
    evaluation = evaluation_of([("fluid", "urgent", None)], [("no such words", "urgent", None)])
    shown = Shown(pair_html(ReportPair("fluid here, fluid there", "b"), result_of(evaluation), "s"))
    assert shown.text.count("Not located in the text") == 2
    assert "no such words" in shown.text


def test_urgent_findings_that_are_missed_stand_above_the_score_and_its_band_beside_it():
    levels = ("urgent", "urgent", "urgent", "benign_expected")
    missed = evaluation_of([("x", level, None) for level in levels], [("x", "urgent", None)], [(1, 1)])
    for evaluation, said in (
        (missed, "2 urgent findings missed CRIMSON score 0.3333 better than a normal template"),
        (evaluation_of([("x", "urgent", None)], []), "1 urgent finding missed CRIMSON score 0 like a normal template"),
        (evaluation_of([], [("x", "urgent", None)]), "s CRIMSON score −0.5 worse than a normal template"),
        (evaluation_of([], []), "s CRIMSON score 1 nothing wrong that counts"),
    ):
        text = " ".join(("s " + Shown(pair_html(ReportPair("a", "b"), result_of(evaluation), "s")).text).split())
        assert said in text
        assert ("missed" in text) == ("missed" in said)


def test_no_row_of_errors_says_what_its_type_says_already():
    evaluation = evaluation_of([("x", "urgent", None)], [("y", "urgent", None)])
    text = Shown(pair_html(ReportPair("a", "b"), result_of(evaluation), "s")).text
    assert "Explanation" not in text
    error = {
        "ref_id": "R1",
        "pred_id": "P1",
        "severity": "negligible",
        "error_types": ["location"],
        "explanation": "left",
    }
    evaluation = evaluation_of([("x", "urgent", None)], [("y", "urgent", None)], [(1, 1)], [error])
    text = Shown(pair_html(ReportPair("a", "b"), result_of(evaluation), "s")).text
    assert text.split("Explanation")[1].split("How the score")[0].split()[-3:] == ["negligible", "0", "left"]


def test_an_unscored_pair_says_why_and_shows_no_score():
    shown = Shown(pair_html(ReportPair("a", "b"), PairResult(0, failure="the output ends early"), "sig"))
    assert "Unscored. the output ends early." in shown.text
    assert "not a 0" in shown.text
    assert shown.reports == ["a", "b"]
    assert "scale" not in shown.text


def test_repairs_are_shown():
    shown = Shown(pair_html(ReportPair("a", "b"), result_of(evaluation_of([], []), repairs=["dropped R1-P9"]), "s"))
    assert "dropped R1-P9" in shown.text
