"""What a record holds besides a corpus' reports: forgeries beside a candidate, patients of synthetic reports."""

import json
import random
from pathlib import Path

import pytest

from crimson_core.protocol.pair import PatientContext
from training.generate import generate
from training.patients import with_patient
from training.records import Record
from training.settings import GenerateConfig
from training.writers.forging import FORGERIES, forged

REPORTS = [
    "There is a small left pleural effusion. The heart is mildly enlarged. No pneumothorax.",
    "Consolidation in the right lower lobe. No pleural effusion is seen. The heart size is normal.",
    "A 9 mm nodule is seen in the left upper lobe. The aorta is tortuous. No pneumothorax.",
    "There is a moderate right pneumothorax. Mild pulmonary edema. No free air under the diaphragm.",
]
LABEL = {
    "reference_findings": [{"id": "R1", "finding": "nodule", "clinical_significance": "actionable_not_urgent"}],
    "predicted_findings": [],
    "matched_findings": [],
    "errors": {"false_findings": [], "missing_findings": ["R1"], "attribute_errors": []},
}


def records(folder, share):
    corpus = folder / "reports.jsonl"
    corpus.write_text("".join(json.dumps({"report": text}) + "\n" for text in REPORTS), encoding="utf-8")
    settings = {
        "corpus": {"source": "file", "path": str(corpus), "shares": {"validation": 0, "test": 0}},
        "output": str(folder / f"out-{share}"),
        "candidates": {"train": 60},
        "writer": {"spec": "rules"},
        "judge": {"spec": "offline"},
        "encoder": "none",
        "forged": share,
    }
    config = GenerateConfig.model_validate(settings)
    generate(config)
    lines = Path(settings["output"], "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [Record.model_validate_json(line) for line in lines]


@pytest.fixture
def neighbours(monkeypatch):
    """Each report is most similar to the one before it, without an encoder."""
    monkeypatch.setattr("training.generate.nearest", lambda studies, **_: [[i - 1] for i in range(len(studies))])


def test_forged_candidates_have_the_label_of_their_clinical_text(tmp_path, neighbours):
    plain, all_forged, some = records(tmp_path, 0), records(tmp_path, 1), records(tmp_path, 0.3)
    assert [r.id for r in plain] == [r.id for r in all_forged] == [r.id for r in some]
    for clean, other in zip(plain, all_forged, strict=True):
        assert clean.forgery is None and other.candidate != clean.candidate
        assert other.candidate.startswith(clean.candidate) or other.candidate.endswith(clean.candidate)
        assert other.raw_evaluation == clean.raw_evaluation and other.crimson_score == clean.crimson_score
    assert {record.forgery for record in all_forged} == set(FORGERIES)
    assert {r.candidate for r in some if r.forgery} <= {r.candidate for r in all_forged}
    assert 5 < sum(r.forgery is not None for r in some) < 35


def test_forged_answers_have_no_errors():
    seen = set()
    for seed in range(300):
        text, kind = forged("Lungs are clear.", LABEL, random.Random(seed))
        if kind == "answer" and text.endswith("}"):
            seen.add(text)
            try:
                answer = json.loads(text[text.index("{") :])
            except ValueError:
                continue
            assert answer["errors"] == {"false_findings": [], "missing_findings": [], "attribute_errors": []}
            assert len(answer["matched_findings"]) == len(answer["predicted_findings"])
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("indication", "sex"),
    [("___ year old woman with cough", "female"), ("___M s/p fall", "male"), ("84F, short of breath", "female")],
)
def test_a_drawn_patient_has_the_sex_that_the_indication_tells(indication, sex):
    drawn = {with_patient(PatientContext(indication=indication), str(seed)).sex for seed in range(20)}
    assert drawn == {sex}


def test_a_drawn_patient_keeps_what_is_known():
    assert with_patient(PatientContext(age="7", sex="F", indication="cough"), "s") == PatientContext("7", "F", "cough")
    drawn = [with_patient(None, str(seed)) for seed in range(50)]
    assert drawn == [with_patient(None, str(seed)) for seed in range(50)]
    assert len({d.age for d in drawn}) > 20 and {d.sex for d in drawn} == {"male", "female"}
    assert all(18 <= d.age_years <= 95 for d in drawn)
