"""The rule-based writer: what it changes is there, is labelled, and is all that is wrong."""

import json
from itertools import product

import pytest

from crimson_core.judges.rules.extraction import extract_findings
from crimson_core.judges.rules.judge import evaluate_pair
from crimson_core.judges.rules.lexicon import lexicon
from crimson_core.protocol.evaluation import repair_evaluation
from crimson_core.protocol.pair import PatientContext, ReportPair
from crimson_core.protocol.scoring import score_evaluation
from training.records import answer_of
from training.writers import ERROR_KINDS, Task
from training.writers.pieces import joined, phrases, pieces_of
from training.writers.rules import RuleWriter

REPORTS = [
    "FINDINGS: There is a moderate left pleural effusion. The heart is mildly enlarged. No pneumothorax is seen.\n"
    "IMPRESSION: Moderate left pleural effusion.",
    "There is a 12 mm nodule in the right upper lobe. Patchy opacity at the left base may represent pneumonia. "
    "An endotracheal tube ends 4 cm above the carina.",
    "1. Worsening right lower lobe consolidation.\n2. Stable cardiomegaly.\n3. Small right apical pneumothorax.\n"
    "4. Old left rib fractures.",
    "Severe pulmonary edema with large bilateral effusions. Lungs are otherwise unremarkable. A right PICC ends in the SVC.",
]
NORMAL = "The heart size is normal. The lungs are clear. No pleural effusion or pneumothorax."
KINDS = [(), *((kind,) for kind in ERROR_KINDS), *((a, b) for a, b in product(ERROR_KINDS, ERROR_KINDS) if a != b)]


@pytest.fixture(scope="module")
def writer():
    return RuleWriter()


def drafts(writer, report, kinds, count=12, context=None):
    tasks = [Task(report, kinds, f"seed {n}", context) for n in range(count)]
    made = [draft for _, draft in writer.write(tasks)]
    assert [index for index, _ in writer.write(tasks)] == list(range(count))
    return [draft for draft in made if draft.candidate is not None]


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_the_label_names_the_errors_that_were_made_and_no_others(writer, report, kinds):
    made = drafts(writer, report, kinds)
    assert len(made) >= 8 if set(kinds) <= writer.possible(report) else not made
    for draft in made:
        errors = draft.evaluation.errors
        assert bool(errors.false_findings) == ("false_finding" in kinds)
        assert bool(errors.missing_findings) == ("omission" in kinds)
        assert bool(errors.attribute_errors) == ("attribute_error" in kinds)
        assert len(errors.false_findings) <= 1 and len(errors.missing_findings) <= 1
        assert [change.kind for change in draft.changes] == list(kinds)
        for change in draft.changes:
            assert bool(change.before) == (change.kind != "false_finding")
            assert bool(change.after) == (change.kind != "omission")
            assert change.before in report and change.after in draft.candidate
            if change.kind == "attribute_error":
                assert {kind for error in errors.attribute_errors for kind in error.error_types} == {change.attribute}


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_the_label_is_consistent_and_can_be_learnt(writer, report, kinds):
    for draft in drafts(writer, report, kinds, 4):
        assert repair_evaluation(draft.evaluation)[1] == []
        assert set(json.loads(answer_of(draft.evaluation.model_dump()))) == set(type(draft.evaluation).model_fields)
        score = score_evaluation(draft.evaluation)["crimson_score"]
        assert score == 1.0 if not kinds else score <= 1.0


def test_findings_of_the_label_stand_in_the_reports(writer):
    for report, kinds in product(REPORTS, KINDS):
        for draft in drafts(writer, report, kinds, 2):
            for findings, text in (
                (draft.evaluation.reference_findings, report),
                (draft.evaluation.predicted_findings, draft.candidate),
            ):
                assert all(finding.finding in text for finding in findings)


def test_a_rewrite_says_the_same_in_other_words(writer):
    for report in REPORTS:
        made = drafts(writer, report, (), 20)
        assert len({draft.candidate for draft in made}) >= 10
        assert all(" ".join(draft.candidate.split()) != " ".join(report.split()) for draft in made)
        assert all(score_evaluation(draft.evaluation)["crimson_score"] == 1.0 for draft in made)


def test_labels_agree_with_the_offline_judge_where_it_matches_alike(writer):
    """The label comes from how the candidate was made, the judge's from reading both; they are not the same code."""
    same = total = 0
    for report, kinds in product(REPORTS, KINDS):
        for draft in drafts(writer, report, kinds, 6):
            judged = score_evaluation(evaluate_pair(ReportPair(report, draft.candidate)))["crimson_score"]
            same += abs(judged - score_evaluation(draft.evaluation)["crimson_score"]) < 0.01
            total += 1
    assert same / total > 0.9


def test_all_attributes_are_drawn(writer):
    made = [draft for report in REPORTS for draft in drafts(writer, report, ("attribute_error",), 60)]
    assert {change.attribute for draft in made for change in draft.changes} >= {
        "location",
        "severity",
        "measurement",
        "certainty",
        "temporal",
    }


def test_the_same_task_has_the_same_draft(writer):
    for kinds in KINDS:
        assert drafts(writer, REPORTS[0], kinds, 3) == drafts(RuleWriter(), REPORTS[0], kinds, 3)


def test_the_context_moves_the_significance_of_the_label(writer):
    report = "The aorta is tortuous. There is a small left pleural effusion."
    old, young = (
        drafts(writer, report, (), 3, PatientContext(age=age))[0].evaluation.reference_findings[0]
        for age in ("82", "25")
    )
    assert old.clinical_significance != young.clinical_significance


def test_an_omission_takes_a_significant_finding_from_all_sections(writer):
    for draft in drafts(writer, REPORTS[0], ("omission",), 20):
        (gone,) = draft.evaluation.errors.missing_findings
        finding = next(f for f in draft.evaluation.reference_findings if f.id == gone)
        assert finding.clinical_significance in ("urgent", "actionable_not_urgent")
        if "effusion" in finding.finding:
            assert not any("pleural_effusion" in f.concepts for f in extract_findings(draft.candidate))


def test_what_is_possible(writer):
    assert writer.possible(NORMAL) == {"false_finding"}
    assert writer.possible(REPORTS[0]) == set(ERROR_KINDS)
    assert writer.possible("") == set()
    assert "omission" not in writer.possible(
        "There is a hiatal hernia. Lungs clear."
    )  # benign: nothing significant to omit


def test_what_cannot_be_made_is_a_failure_without_report_text(writer):
    for report, kinds in (("", ()), ("Zebra.", ("omission",)), (NORMAL, ("attribute_error",))):
        ((_, draft),) = writer.write([Task(report, kinds, "1")])
        assert draft.candidate is None and draft.evaluation is None
        assert draft.failure and "Zebra" not in draft.failure and "heart" not in draft.failure


def test_a_denied_finding_is_not_denied_any_more_when_it_is_made_up(writer):
    made = drafts(writer, "No pneumothorax. There is a small left pleural effusion.", ("false_finding",), 80)
    lied = [draft for draft in made if "pneumothorax" in draft.changes[0].after]
    assert lied
    assert all("no pneumothorax" not in draft.candidate.lower() for draft in lied)


def test_pieces_are_the_report():
    for report in REPORTS:
        assert joined(pieces_of(report, extract_findings(report))) == report


def test_every_false_finding_is_one_abnormal_finding_for_the_lexicon():
    for texts in phrases()["false_findings"].values():
        for side, lobe in product(("left", "right"), ("upper", "lower")):
            for text in texts:
                told = extract_findings(text.format(side=side, Side=side.capitalize(), lobe=lobe, size=8))
                assert len(told) == 1, text


def test_every_normal_statement_tells_nothing_and_is_about_known_concepts():
    for normal in phrases()["normal"]:
        assert extract_findings(normal["text"]) == []
        assert set(normal["about"]) <= lexicon().concepts.keys()
