"""How the offline judge says how it has read a report."""

import json

import pytest

from crimson_core import InputError, PatientContext, ReportPair, explain, explain_pair, make_pairs
from crimson_core.compare.explaining import explanation_text
from crimson_core.judges.rules.judge import evaluate_pair
from crimson_core.protocol.pair import parse_context


def mentions(report):
    return [m for sentence in explain(report).sentences for clause in sentence.clauses for m in clause.mentions]


def entries(phrases):
    return [(phrase.text, phrase.entry) for phrase in phrases]


@pytest.mark.parametrize(
    ("report", "concept", "presence", "cue", "effect", "entry"),
    [
        ("No pneumothorax.", "pneumothorax", "absent", "No", "absent", "language.yaml: assertion.negated_before"),
        ("Pneumothorax is not seen.", "pneumothorax", "absent", "is not seen", "absent", "language.yaml: assertion.negated_beside"),
        ("Pneumothorax: none", "pneumothorax", "absent", "none", "absent", "forms.py"),
        ("Evaluate for pneumonia.", "pneumonia", "unsaid", "Evaluate for", "unsaid", "language.yaml: assertion.hypothetical"),
        ("History of pneumonia.", "pneumonia", "unsaid", "History of", "unsaid", "language.yaml: assertion.history"),
        ("Possible effusion.", "pleural_effusion", "present", "Possible", "uncertain", "language.yaml: assertion.uncertain_before"),
        ("Effusion cannot be excluded.", "pleural_effusion", "present", "cannot be excluded", "uncertain", "language.yaml: assertion.not_excluded_after"),
    ],
)  # fmt: skip
def test_the_cue_that_decides_is_told(report, concept, presence, cue, effect, entry):
    (mention,) = mentions(report)
    assert (mention.concepts, mention.presence) == ([concept], presence)
    assert (cue, effect, entry) in [(phrase.text, phrase.effect, phrase.entry) for phrase in mention.decided_by]


def test_an_unrecognised_report_may_have_findings():
    first = "Unrecognised: hardly a word of this report is known, so that {} may be missing."
    latin = "Arma virumque cano, Troiae qui primus ab oris Italiam fato profugus Laviniaque venit litora."
    told = explanation_text(explain(f"Pleural plaques. {latin}"))
    assert told.startswith(first.format("further findings")) and "P1" in told
    assert explanation_text(explain(latin)).startswith(first.format("its findings"))


def test_nothing_in_an_explanation_turns_the_text_around():
    assert "\u202e" not in explanation_text(explain("Cardiomegaly \u202eegral\u202c."))


def test_names_and_modifiers_are_told():
    (mention,) = mentions("The heart is mildly enlarged.")
    assert entries(mention.named_by) == [
        ("heart", "language.yaml: anatomy.heart"),
        ("enlarged", "language.yaml: states.enlarged"),
    ]
    assert entries(mention.told_by) == [("mildly", "language.yaml: modifiers.severity.2")]
    (mention,) = mentions("No increase in the loculated left effusion.")
    assert ("effusion", "concepts/pleura.yaml: pleural_effusion.terms") in entries(mention.named_by)
    assert ("left", "language.yaml: modifiers.side.left") in entries(mention.told_by)
    assert ("loculated", "language.yaml: modifiers.descriptor.pleural_form.loculated") in entries(mention.told_by)
    assert any(entry == "language.yaml: change (composed by change.py)" for _, entry in entries(mention.told_by))
    assert mention.attributes["temporal"] == "stable"


def test_significance_names_its_rules():
    (finding,) = explain("Tortuous aorta.", PatientContext(age="80")).findings
    assert finding.significance == "benign_expected"
    assert finding.rules == ["degenerative and atherosclerotic change is expected at this age"]
    (finding,) = explain("Tortuous aorta.").findings
    assert finding.rules == []
    assert finding.typical == "concepts/heart.yaml: aortic_tortuosity.significance"
    (finding,) = explain("Tension pneumothorax.").findings
    assert finding.significance == "urgent"
    (finding,) = explain("Endotracheal tube in the right mainstem bronchus.").findings
    assert (finding.significance, finding.typical) == ("urgent", "rules.yaml: device_out_of_place")


def test_what_is_left_out_and_what_is_told_twice():
    explained = explain(
        "HISTORY: Pneumonia.\nFINDINGS: Small left effusion.\nIMPRESSION: Left effusion.\nIMPRESSION: Left effusion."
    )
    assert [sentence.left_out for sentence in explained.sentences][0] == "in a section that is left out (history)"
    told = [m for sentence in explained.sentences for clause in sentence.clauses for m in clause.mentions]
    assert [m.findings for m in told] == [["P1"]] * len(told) and len(told) >= 2
    assert not explain("Rien à signaler.").recognised


REPORTS = [
    ("Large left effusion. Rib fracture. No pneumothorax.", "Small right effusion. The heart is enlarged."),
    ("HISTORY: pneumonia. Left basal opacity, likely atelectasis or pneumonia. This has increased.", "Left pneumonia."),
    ("Large left and small right effusions. ETT and NGT in place; the former ends in the right mainstem bronchus.", ""),
    ("", "\n\n[ ] Mass\nEdema: no\n- Effusion (left) - yes."),
]


@pytest.mark.parametrize(("reference", "candidate"), REPORTS)
def test_an_explanation_says_what_the_evaluation_says(reference, candidate):
    (pair,) = make_pairs([candidate], [reference], [{"age": "80", "indication": "trauma"}])
    evaluation, explained = evaluate_pair(pair).model_dump(), explain_pair(pair)
    for listed, report in (
        (evaluation["reference_findings"], explained.reference),
        (evaluation["predicted_findings"], explained.candidate),
    ):
        assert [(f["id"], f["finding"], f["clinical_significance"]) for f in listed] == [
            (f.id, f.text, f.significance) for f in report.findings
        ]
        told = {i for s in report.sentences for c in s.clauses for m in c.mentions for i in m.findings}
        assert told == {finding["id"] for finding in listed}
    assert [(m["ref_id"], m["pred_id"]) for m in evaluation["matched_findings"]] == [
        (m.ref_id, m.pred_id) for m in explained.matches
    ]
    assert [(e["error_types"], e["severity"], e["explanation"]) for e in evaluation["errors"]["attribute_errors"]] == [
        ([e.type], e.grade, e.explanation) for m in explained.matches for e in m.errors
    ]
    json.dumps(explained.as_dict())
    assert explanation_text(explained)


def test_errors_name_their_rule():
    explained = explain_pair(ReportPair("Left effusion.", "Right effusion."))
    ((error,),) = (match.errors for match in explained.matches)
    assert error.rule == "rules.yaml: attribute_errors.location.wrong_side"
    assert f"[{error.rule}]" in explanation_text(explained)


def test_a_context_is_a_mapping_as_everywhere_else():
    old = explain("Large heart.", {"age": "80"})
    assert old == explain("Large heart.", parse_context({"age": "80"}, "context"))
    with pytest.raises(InputError, match="context"):
        explain("Large heart.", {"age": "abc"})
