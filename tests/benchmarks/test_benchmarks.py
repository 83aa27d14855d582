"""The benchmarks run on small files of their own format; what they find on the real ones stands in the README."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.expectations import holds
from benchmarks.openi import edits, form, labels_meant
from crimson_core.errors import InputError
from crimson_core.judges.rules.lexicon import concept_entries

ROOT = Path(__file__).parents[2]
REFERENCE = "Small left pleural effusion. Cardiomegaly. No pneumothorax."


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert "Traceback" not in done.stderr
    return done


def candidate(report, findings, rating, errors, missing):
    annotation = {"finding_errors": errors, "missing_findings": missing}
    return {"report": report, "findings": findings, "ratings": [rating] * 3, "annotations": [annotation] * 3}


@pytest.fixture
def radpref(tmp_path):
    false = {"1": {"error_type": "false", "clinical_significance": "urgent"}}
    missed = {i: {"clinical_significance": "actionable_not_urgent"} for i in "01"}
    case = {
        "id": "a",
        "context": {"age": "060Y", "sex": "M", "indication": "cough"},
        "reference": {"report": REFERENCE, "findings": ["small left pleural effusion", "cardiomegaly"]},
        "candidates": {
            "C1": candidate("Clear lungs.", [], 1, {}, missed),
            "C2": candidate(
                "Small left pleural effusion. Large pneumothorax.",
                ["small left pleural effusion", "large pneumothorax"],
                3,
                false,
                {"1": missed["1"]},
            ),
        },
    }
    file = tmp_path / "radpref.json"
    file.write_text(json.dumps({"cases": [case | {"id": str(i)} for i in range(6)]}))
    return file


def test_radpref(radpref, tmp_path):
    figures = tmp_path / "figures.json"
    done = run("benchmarks.radpref", radpref, "--resamples", 50, "--json", figures)
    assert done.returncode == 0, done.stderr
    for row in ("offline", "BLEU", "ROUGE-L", "MiniLM", "radiologist 1"):
        assert row in done.stdout
    assert json.loads(figures.read_text())


def test_radjudge(tmp_path):
    case = {"id": "1", "category": "Side", "reference": REFERENCE, "expected": ["C1 > C2"]}
    case["candidates"] = {"C1": {"text": REFERENCE}, "C2": {"text": "Clear lungs."}}
    file = tmp_path / "radjudge.json"
    file.write_text(json.dumps({"cases": [case]}))
    assert run("benchmarks.radjudge", file).returncode == 0
    file.write_text(json.dumps({"cases": [case | {"expected": ["C2 > C1"]}]}))
    assert run("benchmarks.radjudge", file).returncode == 1
    assert run("benchmarks.radjudge", tmp_path / "none.json").returncode == 2


@pytest.mark.parametrize(
    ("expectation", "held"),
    [
        ("A > B", True),
        ("B > A", False),
        ("A > A", False),
        ("A >= A", True),
        ("B < A", True),
        ("A <= B", False),
        ("A = 0.31", True),  # within 0.01
        ("A = 0.32", False),
        ("A >= 0.3", True),
        ("A > 0.3", False),
        ("A < 1", True),
        ("B <= -0.2", True),
        ("C <= 1", False),  # unscored
        ("C = C", False),
    ],
)
def test_expectations(expectation, held):
    assert holds(expectation, {"A": 0.1 + 0.2, "B": -0.2, "C": float("nan")}) is held


@pytest.mark.parametrize("expectation", ["A", "A > D", "D > A", "0.5 < A", "A == B", "A > B > C"])
def test_what_is_no_expectation_is_refused(expectation):
    with pytest.raises(InputError, match="is none. Write"):
        holds(expectation, {"A": 0.5, "B": 0.5})


def test_wording(tmp_path):
    case = {"kind": "degree", "reference": REFERENCE, "candidates": {"A": REFERENCE, "B": "Clear lungs."}, "why": "w"}
    cases = [case | {"expected": ["A >= 1", "A > B"]}, case | {"expected": ["A = B"]}]
    cases.append(case | {"kind": "side", "expected": ["B < 0.5"]})
    file, figures = tmp_path / "wording.json", tmp_path / "figures.json"
    file.write_text(json.dumps({"cases": cases}))
    done = run("benchmarks.wording", file, "-j", "offline", "--json", figures)
    assert done.returncode == 0, done.stderr
    offline = json.loads(figures.read_text())["offline"]
    assert offline["passed"] == {"degree": {"passed": 1, "cases": 2}, "side": {"passed": 1, "cases": 1}}
    assert [c["failed"] for c in offline["cases"]] == [[], ["A = B"], []]
    assert REFERENCE not in done.stdout + figures.read_text()
    listed = run("benchmarks.wording", file, "--failed", "--strict")
    assert listed.returncode == 1
    assert listed.stdout.count(REFERENCE) == 2  # of the one failing case, as reference and as candidate
    file.write_text(json.dumps({"cases": cases[:1]}))
    assert run("benchmarks.wording", file, "--strict").returncode == 0
    for bad in ({"expected": ["A is best"]}, {"candidates": {"B": "Clear."}, "expected": ["A > B"]}):
        file.write_text(json.dumps({"cases": [case | bad]}))
        refused = run("benchmarks.wording", file)
        assert refused.returncode == 2
        assert "expectation" in refused.stderr
    file.write_text(json.dumps({"cases": [case]}))
    assert "case 1 has no 'expected'" in run("benchmarks.wording", file).stderr


@pytest.fixture
def samples(tmp_path):
    """Two reports with labels, in the format of `radlabels`."""
    texts = {
        "synth_0001": "FINDINGS:\nThere is a small left pleural effusion. No pneumothorax is seen.",
        "synth_0002": "INDICATION: Pneumonia.\n\nFINDINGS:\nThe heart is enlarged. There is a right pleural effusion.",
    }
    told = {
        "synth_0001": [("pleural_effusion", "pleural effusion", "definitely present"), ("pneumothorax", "pneumothorax", "definitely absent")],
        "synth_0002": [("pleural_effusion", "pleural effusion", "definitely present"), ("pneumonia", "Pneumonia", "definitely present")],
    }  # fmt: skip
    (tmp_path / "synthetic_reports").mkdir()
    matches = {}
    for name, text in texts.items():
        (tmp_path / "synthetic_reports" / f"{name}.txt").write_text(text)
        tokens = text.replace(":", " :").replace(".", " .").split()
        found = [
            {"disease": d, "alias": a, "label": s, "start_ix": [tokens.index(word) for word in a.split()]}
            for d, a, s in told[name]
        ]
        matches[name] = {"text": " ".join(tokens), "matches": found}
    (tmp_path / "synthetic_matches.json").write_text(json.dumps(matches))
    return tmp_path


def test_extraction(samples, tmp_path):
    figures = tmp_path / "figures.json"
    done = run("benchmarks.extraction", samples, "--show", 2, "--json", figures)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert (found["present"]["recall"], found["present"]["n"]) == (1, 2)  # the pneumonia is only asked about
    assert found["absent"]["f1"] == 1.0


OPENI = [
    # uid, MeSH, indication, findings, impression
    ("1", "normal", "Cough", "The lungs are clear.", "No acute disease."),
    ("2", "normal", "", "Large left pneumothorax.", ""),
    ("3", "Pleural Effusion/left/small;Cardiomegaly", "", "Small left pleural effusion. The heart is enlarged.", ""),
    ("4", "Cicatrix/lung", "", "", "No acute disease."),
    ("5", "No Indexing", "", "Cardiomegaly.", ""),
    ("6", "Technical Quality of Image Unsatisfactory", "", "Rotated film.", ""),
    ("7", "normal", "", "", ""),
]


def openi_table(file, rows=OPENI, columns=("uid", "MeSH", "indication", "findings", "impression")):
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([columns, *rows])
    return file


def test_openi(tmp_path):
    file, figures = openi_table(tmp_path / "openi.csv"), tmp_path / "figures.json"
    done = run("benchmarks.openi", file, "--show", 9, "--json", figures)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert (found["reports"], found["indexed"]) == (6, 5)
    assert found["labels"]["large heart"] == {"precision": 1, "recall": 1, "f1": 1, "n": 1, "read": 1}
    assert found["labels"]["scar"]["recall"] == found["labels"]["pneumothorax"]["precision"] == 0
    assert found["labels"]["all (micro)"]["n"] == 3
    assert found["alarms"] == {
        "normal": 2,
        "abnormal": 2,
        "above benign": 0.5,
        "urgent": 0.5,
        "actionable_not_urgent": 0,
        "not_actionable_not_urgent": 0,
        "benign_expected": 0,
        "silent": 0.5,
    }
    assert {rewriting["share"] for rewriting in found["rewriting"].values()} <= {0, 1 / 6, 2 / 6}
    assert found["rewriting"]["as it is"]["other_than_1"] == 0
    assert found["edits"]["other side"] == {"sentences": 2, "not_noticed": 0, "share": 0}
    assert found["edits"]["other degree"]["sentences"] == 1
    assert "something above benign in a normal report (1): 2" in done.stdout
    assert "nothing in an abnormal report (1): 4" in done.stdout
    assert "pneumothorax." not in done.stdout
    assert "[2] Large left pneumothorax." in run("benchmarks.openi", file, "--show", 9, "--texts").stdout


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"columns": ("uid", "MeSH", "indication", "findings", "text")}, "has no column 'impression'"),
        ({"rows": [OPENI[0], OPENI[0]]}, "2 rows with the uid '1'"),
        ({"rows": [OPENI[-1]]}, "holds no findings"),
    ],
)
def test_openi_refuses_a_table_of_another_kind(table, said, tmp_path):
    done = run("benchmarks.openi", openi_table(tmp_path / "openi.csv", **table))
    assert done.returncode == 2
    assert said in done.stderr


def test_openi_index_terms():
    assert labels_meant(("Opacity", "lung", "lower lobe", "left")) == {"lung opacity"}
    assert labels_meant(("Opacity", "lung", "base", "interstitial")) == {
        "interstitial disease"
    }  # the entry that says more
    assert labels_meant(("Hydropneumothorax",)) == {"pneumothorax", "pleural effusion or blunting"}
    assert labels_meant(("Opacity", "ribs")) == set()


def test_openi_edits():
    edited = edits()
    assert edited["other side"]("Left effusion, right apex; leftover.") == "Right effusion, left apex; leftover."
    assert edited["other degree"]("Mild edema, large mass.") == "Severe edema, large mass."


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        ("There is a small left effusion.", "Small left effusion: yes"),
        ("A calcified granuloma is seen.", "Calcified granuloma: yes"),
        ("There is no evidence of effusion or edema.", "Effusion or edema: no"),
        ("No effusion, edema, or pneumothorax is seen.", "Effusion, edema, or pneumothorax: no"),
        ("The heart is normal in size.", "Heart: normal in size"),
        ("Lung volumes remain low.", "Lung volumes: low"),
        # What says more than one thing, or something else, stays.
        ("No effusion, normal heart.", "No effusion, normal heart."),
        ("No interval change of the effusion.", "No interval change of the effusion."),
        ("There is an effusion, which is new.", "There is an effusion, which is new."),
        ("The heart is large without edema.", "The heart is large without edema."),
        ("The base appears to hold fluid.", "The base appears to hold fluid."),
        ("An effusion is seen on the left.", "An effusion is seen on the left."),
    ],
)
def test_openi_forms(sentence, line):
    assert form(f"{sentence}\n\n1. Clear lungs.", "yes", "no") == f"{line}\nClear lungs."


def test_the_index_terms_are_mapped_to_concepts_that_exist():
    labels = yaml.safe_load((ROOT / "benchmarks" / "openi.yaml").read_text())["labels"]
    assert {concept for entry in labels.values() for concept in entry["concepts"]} <= set(concept_entries())


def test_the_labels_are_mapped_to_concepts_that_exist():
    labels = yaml.safe_load((ROOT / "benchmarks" / "radlabels.yaml").read_text())
    names = {name.partition(":")[0] for listed in labels.values() for name in listed}
    assert len(labels) == 49
    assert names <= set(concept_entries())


def test_mutations(samples, tmp_path):
    figures = tmp_path / "figures.json"
    done = run("benchmarks.mutations", samples, "--json", figures)
    assert done.returncode == 0, done.stderr
    kinds = json.loads(figures.read_text())["kinds"]
    assert kinds["self"]["cases"] == 2
    assert all(kind["holds"] == 1.0 for kind in kinds.values())


def test_reports_without_a_forged_answer_leave_the_prompt_as_it_was():
    done = run("benchmarks.forged", "--reports", ROOT / "examples" / "reports.csv")
    assert (done.returncode, done.stdout) == (0, "0 of 66 texts change the prompt\n")


def test_speed(radpref):
    done = run("benchmarks.speed", radpref, "--pairs", 300, "--studies", 50, "--rounds", 1)
    assert done.returncode == 0, done.stderr
    assert "pairs/s" in done.stdout
    assert "1,200" in done.stdout
    assert run("benchmarks.speed", radpref, "--part", "speed").returncode == 2


def test_speed_beside_another_checkout(radpref, tmp_path):
    figures = tmp_path / "figures.json"
    done = run("benchmarks.speed", radpref, "--beside", ROOT, "--rounds", 1, "--json", figures)
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())["throughput"]
    assert list(measured["pairs"].values()) == [12, 60, 96]
    assert measured["signatures"]["here"] == measured["signatures"]["there"]
    assert [line.split()[-1] for line in done.stdout.splitlines()[2:5]] == ["12", "60", "96"]  # all scores are the same


def test_many(tmp_path):
    figures = tmp_path / "figures.json"
    for ending, output in (("csv", "jsonl"), ("jsonl", "parquet"), ("parquet", "csv")):
        done = run("benchmarks.many", "--pairs", 40, "--input", ending, "--output", output, "--json", figures)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(figures.read_text())["rows"]
        assert row["pairs"] == 40 and row["peak_mb"] > 10 and row["output_mb"] > 0.004


def test_rewards(radpref, tmp_path):
    figures = tmp_path / "figures.json"
    done = run("benchmarks.rewards", radpref, "--rounds", 2, "--json", figures)
    assert done.returncode == 0, done.stderr
    assert "GREEN" in done.stdout
    assert "0 of 12 completions could not be judged." in done.stdout
    assert json.loads(figures.read_text())["milliseconds"] > 0
