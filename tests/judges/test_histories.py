"""What stands under the heading of a history: a history, or a report that somebody has put there."""

import pytest

from crimson_core.judges.rules.explain import explain
from crimson_core.judges.rules.extraction import extract_findings

WHOLE = (
    "Low lung volumes. The heart is enlarged. Large right pneumothorax. No pleural effusion. No acute bony abnormality."
)
IN_WHOLE = ["cardiomegaly", "low_lung_volumes", "pneumothorax"]


def concepts(report):
    return sorted(finding.concepts[0] for finding in extract_findings(report))


@pytest.mark.parametrize("heading", ["History", "INDICATION", "Technique", "Exam", "Reason for exam"])
@pytest.mark.parametrize(
    "rest",
    [
        " IMPRESSION: No change.",
        "\n\nIMPRESSION:\nNo acute disease.",
        "\nFINDINGS: As above.",
        "\nFINDINGS: No effusion.",
    ],
)
def test_a_whole_report_is_no_history(heading, rest):
    assert concepts(f"{heading}: {WHOLE}{rest}") == IN_WHOLE


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("HISTORY:\nLarge right pneumothorax.", ["pneumothorax"]),
        ("HISTORY: The heart is enlarged. There is a right effusion.", ["cardiomegaly", "pleural_effusion"]),
        ("Hx: Left effusion.\nIMPRESSION: Unchanged.", ["pleural_effusion"]),
        ("History: Chest pain. Large right pneumothorax. IMPRESSION: See above.", ["pneumothorax"]),
        ("History: s/p left chest tube. 8 mm nodule.\nIMPRESSION: Stable.", ["nodule"]),
        ("HISTORY: Pneumonia. Empyema. Right pacemaker.\nIMPRESSION: No change.", []),
        ("EXAM: Chest. There is a left effusion. IMPRESSION: No interval change.", ["pleural_effusion"]),
    ],
)
def test_findings_with_place_or_degree_count_where_nothing_else_is_told(report, expected):
    assert concepts(report) == expected


@pytest.mark.parametrize(
    "history",
    [
        "History of pneumonia.",
        "Chest pain, rule out left pneumothorax.",
        "Known COPD, s/p CABG.",
        "Left pneumothorax, follow up.",
        "65-year-old man with a large left pleural effusion.",
        "Right-sided effusion, evaluate.",
        "s/p drainage of a left empyema.",
        "Cough, right lower lobe pneumonia?",
        "Possible right apical mass.",
        "Right pacemaker, left mastectomy.",
    ],
)
@pytest.mark.parametrize("rest", ["", "\nIMPRESSION: No change.", "\nFINDINGS: No effusion."])
def test_a_history_stays_one(history, rest):
    assert concepts(f"HISTORY: {history}{rest}") == []


@pytest.mark.parametrize("history", ["Large right pneumothorax.", "Right mass. Left effusion. Left pneumonia."])
@pytest.mark.parametrize(
    "rest", ["FINDINGS: The lungs are clear.", "IMPRESSION: No acute disease.", "IMPRESSION: Normal chest."]
)
def test_findings_of_a_history_do_not_count_beside_those_of_the_report(history, rest):
    assert concepts(f"HISTORY: {history}\n{rest}") == []


def test_an_explanation_shows_what_was_read():
    explained = explain(f"HISTORY: Cough. {WHOLE}\nIMPRESSION: No change.")
    left_out = [sentence.text for sentence in explained.sentences if sentence.left_out]
    assert left_out == ["Cough."]
