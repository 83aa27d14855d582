"""What a report keeps that is to be labelled in full, and findings with all of their words."""

import pytest

from crimson_core.judges.rules.judge import evaluate_pair
from crimson_core.protocol.pair import ReportPair
from training.readable import readable, with_whole_texts


@pytest.mark.parametrize(
    ("report", "kept"),
    [
        (
            "1. Small left pleural effusion.\n2. Stable cardiomegaly.\n3.",
            "Small left pleural effusion. Stable cardiomegaly.",
        ),
        ("Small left pleural effusion. Findings discussed with Dr. ___ by telephone.", "Small left pleural effusion."),
        ("Portable film dated ___ is submitted. The heart remains enlarged.", "The heart remains enlarged."),
        ("There is no pneumothorax. Wombats project over the left base.", "There is no pneumothorax."),
        ("Wombats project over the base. They are unchanged. No pneumothorax.", "No pneumothorax."),
        ("Small right effusion. Tube ends 2.", "Small right effusion."),
        ("Small right effusion. Small right effusion.", "Small right effusion."),
        ("ET tube ends 2.5 cm above the carina. There is a .9 cm nodule.", "ET tube ends 2.5 cm above the carina."),
        ("small right effusion", ""),
        ("", ""),
    ],
)
def test_only_whole_sentences_in_known_words_stay(report, kept):
    assert readable(report) == kept


def texts(findings):
    return [finding.finding for finding in findings]


def test_a_finding_has_the_words_of_its_sentence():
    reference = (
        "Diffuse interstitial opacities are present in both lungs. There is a small left effusion and mild atelectasis."
    )
    candidate = "1. Pulmonary edema has minimally increased.\n2. No pneumothorax."
    judged = evaluate_pair(ReportPair(reference, candidate))
    whole = with_whole_texts(judged, reference, candidate)
    assert texts(whole.reference_findings)[0] == "Diffuse interstitial opacities are present in both lungs"
    assert texts(whole.reference_findings)[1:] == texts(judged.reference_findings)[1:]
    assert texts(whole.predicted_findings) == ["Pulmonary edema has minimally increased"]
    assert whole.errors == judged.errors and whole.matched_findings == judged.matched_findings
    for findings, text in ((whole.reference_findings, reference), (whole.predicted_findings, candidate)):
        assert all(finding.finding == text[slice(*finding.span)] for finding in findings)


@pytest.mark.parametrize(
    ("report", "whole"),
    [
        ("The aorta is tortuous and calcified.", ["aorta is tortuous", "aorta is tortuous and calcified"]),
        ("The ET tube and enteric tube are in stable position.", ["ET tube", "enteric tube"]),
        (
            "Cardiomediastinal contours are stable with mild cardiomegaly and tortuous aorta.",
            ["Cardiomediastinal contours are stable with mild cardiomegaly", "tortuous aorta"],
        ),
        ("No effusion, but mild edema and small nodules.", ["mild edema", "small nodules"]),
    ],
)
def test_findings_of_one_sentence_have_their_nouns(report, whole):
    judged = evaluate_pair(ReportPair(report, report))
    assert texts(with_whole_texts(judged, report, report).reference_findings) == whole


def test_findings_without_a_place_stay():
    judged = evaluate_pair(ReportPair("Small left pleural effusion.", "No pneumothorax."))
    bare = judged.model_copy(
        update={"reference_findings": [f.model_copy(update={"span": None}) for f in judged.reference_findings]}
    )
    assert with_whole_texts(bare, "Small left pleural effusion.", "No pneumothorax.") == bare
