"""Corpora: every source, sections, splits, duplicates, and one clear message for what is wrong."""

import json
from collections import Counter

import pandas
import pytest
from pydantic import ValidationError

from crimson_core.errors import InputError
from training.corpus import REXGRADIENT, CorpusConfig, read_corpus, same_text
from training.sections import findings_text, indication_text, parts, whole_sentences

REPORTS = ["Small left effusion.", "Right pneumothorax.", "Cardiomegaly.", "Clear lungs.", "Edema.", "Rib fracture."]


def corpus(source, **settings):
    return read_corpus(CorpusConfig(source=source, **settings))


def write(path, rows):
    frame = pandas.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return path


# sources


def test_the_radlabels_samples():
    read = corpus("radlabels", sections="findings")
    assert read.name == "radlabels 0.2.0"
    assert len(read.studies) + sum(read.left_out.values()) == 1000
    assert [study.id for study in read.studies] == sorted(study.id for study in read.studies)
    assert sum(study.context is not None for study in read.studies) > 700
    for study in read.studies:
        assert study.report.strip() == study.report != ""
        assert "INDICATION" not in study.report
        assert study.report.rstrip("\"')]")[-1] in ".!?"
        assert study.context is None or len(study.context.indication) <= 300
    assert corpus("radlabels", sections="findings") == read


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
def test_a_file_with_named_columns(tmp_path, ending):
    rows = [
        {"no": 7, "text": "Edema.", "years": "065Y", "sx": "F", "why": " short\nof breath ", "who": "a", "part": "dev"},
        {"no": 8, "text": "Clear lungs.", "years": None, "sx": "M", "why": "", "who": "b", "part": "TRAIN"},
    ]
    path = write(tmp_path / f"reports{ending}", rows)
    named = {"report": "text", "id": "no", "age": "years", "sex": "sx", "indication": "why"}
    read = corpus("file", path=path, columns=named | {"patient": "who", "split": "part"})
    first, second = read.studies
    assert (first.id, first.report, first.split, first.patient) == ("7", "Edema.", "validation", "a")
    assert first.context.as_dict() == {"age": "065Y", "sex": "F", "indication": "short of breath"}
    assert (second.id, second.split, second.context.as_dict()) == ("8", "train", {"sex": "M"})
    assert (read.name, read.left_out) == (path.name, {})


def test_several_report_columns_are_sections_and_rows_are_ids(tmp_path):
    path = write(
        tmp_path / "r.csv",
        [{"Findings": "Edema.", "Impression": "Failure."}, {"Findings": "", "Impression": " Clear. "}],
    )
    read = corpus("file", path=path, columns={"report": ["Findings", "Impression"]})
    assert [study.report for study in read.studies] == ["FINDINGS: Edema.\nIMPRESSION: Failure.", "IMPRESSION: Clear."]
    assert [study.id for study in read.studies] == ["1", "2"]


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("Edema.", encoding="utf-8-sig")
    (tmp_path / "a.txt").write_text("Clear lungs.")
    (tmp_path / "a.md").write_text("no report")
    assert [(s.id, s.report) for s in corpus("folder", path=tmp_path).studies] == [
        ("a", "Clear lungs."),
        ("b/x", "Edema."),
    ]


def test_one_file_per_split(tmp_path):
    paths = {}
    for number, split in enumerate(("train", "validation", "test")):
        paths[split] = write(tmp_path / f"{split}.csv", [{"report": REPORTS[number]}, {"report": REPORTS[number + 3]}])
    read = corpus("file", path=paths)
    assert [s.split for s in read.studies] == ["train", "train", "validation", "validation", "test", "test"]
    assert [s.id for s in read.studies][:3] == ["train-1", "train-2", "validation-1"]


REX = {
    "id": ["s1", "s2", "s3"],
    "PatientID": ["p1", "p1", "p2"],
    "findings": ["Edema.", "Effusion.", ""],
    "IMPRESSION": ["Failure.", None, "Clear."],
    "Indication": ["Dyspnea", "", None],
    "PatientAge": ["065Y", "006M", ""],
    "patientsex": ["F", "M", None],
}


def test_rexgradient_metadata(tmp_path):
    path = tmp_path / "train_metadata.csv"
    pandas.DataFrame(REX).to_csv(path, index=False)
    read = corpus("rexgradient", path={"train": path})
    assert read.name == REXGRADIENT
    assert [(s.id, s.patient, s.split) for s in read.studies] == [
        ("s1", "p1", "train"),
        ("s2", "p1", "train"),
        ("s3", "p2", "train"),
    ]
    assert read.studies[0].report == "FINDINGS: Edema.\nIMPRESSION: Failure."
    assert read.studies[0].context.as_dict() == {"age": "065Y", "sex": "F", "indication": "Dyspnea"}
    assert read.studies[1].context.age_years == 0.5
    assert read.studies[2].context is None

    rows = pandas.DataFrame(REX).set_index("id").to_dict("index")  # JSON may hold one object by id
    path.with_suffix(".json").write_text(json.dumps(rows))
    assert corpus("rexgradient", path={"train": path.with_suffix(".json")}).studies == read.studies


def test_rexgradient_from_the_hub(monkeypatch):
    import datasets

    table = datasets.Dataset.from_dict(REX | {"image": [b"", b"", b""]})
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name: datasets.DatasetDict(train=table.select([0, 1]), validation=table.select([2])),
    )
    read = corpus("rexgradient").studies
    assert [(s.id, s.split) for s in read] == [("s1", "train"), ("s2", "train"), ("s3", "validation")]

    def gated(name):
        raise datasets.exceptions.DatasetNotFoundError("gated")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(InputError, match="accept its terms at https://huggingface.co/.* `hf auth login`"):
        corpus("rexgradient")


# sections

REPORT = """FINAL REPORT
 EXAMINATION: CHEST (PA AND LAT)

 INDICATION: History: 65F with
 cough // pneumonia?

 COMPARISON: ___.

 FINDINGS:

 The heart is  enlarged.
 Lungs: clear.

 IMPRESSION: Cardiomegaly.

 RECOMMENDATION: CT.
"""


def test_findings_and_indication_of_a_report_with_headings():
    assert findings_text(REPORT) == "The heart is  enlarged.\n Lungs: clear.\nCardiomegaly."
    assert indication_text(REPORT) == "65F with cough // pneumonia?"


@pytest.mark.parametrize(
    ("report", "findings", "indication"),
    [
        ("Heart is normal.\nNo effusion.", "Heart is normal.\nNo effusion.", None),
        ("HISTORY: Pain.", "", "Pain."),
        ("HISTORY: Pain.\n\nCHEST, AP: Edema. Effusion.", "CHEST, AP: Edema. Effusion.", "Pain."),
        ("WET READ: ___ ___ 7:56 PM\nEdema.\n____________\n FINAL REPORT\nEffusion.", "Edema.\nEffusion.", None),
        ("FINDINGS: Pneumothorax: small, right. IMPRESSION: Edema.", "Pneumothorax: small, right.\nEdema.", None),
        (f"HISTORY: {'Pain. ' * 100}\nFINDINGS: Edema.", "Edema.", None),
        ("TECHNIQUE: AP.\nIMPRESSION: Edema.\nTECHNIQUE: AP.\nFINDINGS: Effusion.", "Edema.\nEffusion.", None),
    ],
)
def test_sections(report, findings, indication):
    assert findings_text(report) == findings
    assert indication_text(report) == indication


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("Edema. Small left eff", "Edema."),
        ("Edema. Tube ends 2.", "Edema."),
        ("1. Edema.\n2.", "1. Edema."),
        ("Edema. Effusion.\n", "Edema. Effusion."),
        ("Edema is no", ""),
        ("", ""),
    ],
)
def test_whole_sentences(cut, whole):
    assert whole_sentences(cut) == whole


def test_parts_end_between_sentences_and_lean_on_nothing():
    report = "Heart is large. Left effusion. It is small. The edema is mild.\nLungs: no nodule. Old rib fractures on the right side."
    cut = parts(report, 8)
    assert cut == [
        "Heart is large. Left effusion. It is small.",
        "The edema is mild.\nLungs: no nodule.",
        "Old rib fractures on the right side.",
    ]
    assert parts(report, 100) == [report]
    assert parts("A long sentence alone stays whole. Edema.", 3) == ["A long sentence alone stays whole.", "Edema."]
    assert parts("Edema.\nHISTORY: prior nodule.", 1) == ["Edema.", "HISTORY: prior nodule."]  # no finding of today


def test_the_parts_of_a_report_are_studies_of_one_patient(tmp_path):
    rows = [{"report": f"Edema grade {n}. Small left effusion. Nodule {n}."} for n in range(40)]
    path = write(tmp_path / "r.csv", rows)
    read = corpus("file", path=path, most_words=6, shares={"validation": 0.4, "test": 0.2}, duplicates="keep").studies
    assert len(read) == 80 and {s.id for s in read} >= {"01, part 1", "40, part 2"}
    assert all(a.patient == b.patient and a.split == b.split for a, b in zip(read[::2], read[1::2], strict=True))
    assert len({s.split for s in read}) == 3


def test_a_report_without_an_indication_keeps_the_patient_that_the_corpus_knows(tmp_path):
    path = write(tmp_path / "r.csv", [{"report": f"FINDINGS: {report}", "age": 3} for report in REPORTS])
    read = corpus("file", path=path, columns={"age": "age"}, sections="findings").studies
    assert [study.context.as_dict() for study in read] == [{"age": "3"}] * len(REPORTS)


def test_five_in_a_hundred_studies_are_held_out_for_each_purpose(tmp_path):
    path = write(tmp_path / "r.csv", [{"report": f"Nodule of {number} mm."} for number in range(2000)])
    found = Counter(study.split for study in corpus("file", path=path).studies)
    assert found["test"] == pytest.approx(100, abs=30) and found["validation"] == pytest.approx(100, abs=30)


def test_the_indication_of_the_corpus_wins_over_that_of_the_report(tmp_path):
    path = write(
        tmp_path / "r.csv", [{"report": REPORT, "why": "fever", "age": "3"}, {"report": "Edema.", "why": "", "age": ""}]
    )
    columns = {"indication": "why", "age": "age"}
    assert corpus("file", path=path, columns=columns, sections="findings").studies[0].context.indication == "fever"
    read = corpus("file", path=path, columns={"age": "age"}, sections="findings").studies
    assert read[0].context.as_dict() == {"age": "3", "indication": "65F with cough // pneumonia?"}
    assert read[1].context is None
    assert corpus("file", path=path).studies[0].report == REPORT


# splits and duplicates


def many(tmp_path, count=400, name="r.csv", **columns):
    rows = [
        {"id": f"s{n}", "report": f"Nodule of {n} mm.", **{k: v(n) for k, v in columns.items()}} for n in range(count)
    ]
    return write(tmp_path / name, rows)


def test_shares_seed_and_added_studies(tmp_path):
    settings = {"columns": {"id": "id"}, "shares": {"validation": 0.2, "test": 0.1}}
    small = {s.id: s.split for s in corpus("file", path=many(tmp_path), **settings).studies}
    counts = Counter(small.values())
    assert 55 < counts["validation"] < 105
    assert 22 < counts["test"] < 60
    large = {s.id: s.split for s in corpus("file", path=many(tmp_path, 500), **settings).studies}
    assert small.items() < large.items()
    other = {s.id: s.split for s in corpus("file", path=many(tmp_path), seed=7, **settings).studies}
    assert other != small


def test_a_patient_is_in_one_split(tmp_path):
    path = many(tmp_path, who=lambda n: f"p{n // 4}")
    read = corpus("file", path=path, columns={"id": "id", "patient": "who"}, shares={"validation": 0.3, "test": 0.3})
    splits = {}
    for study in read.studies:
        splits.setdefault(study.patient, set()).add(study.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_a_patient_whom_the_corpus_has_on_both_sides_is_held_out(tmp_path):
    rows = [("Edema.", "a", "train"), ("Clear.", "a", "test"), ("Effusion.", "b", "train"), ("Nodule.", None, "train")]
    path = write(tmp_path / "r.jsonl", [dict(zip(("report", "who", "split"), row, strict=True)) for row in rows])
    read = corpus("file", path=path, columns={"patient": "who", "split": "split"})
    assert [s.report for s in read.studies] == ["Clear.", "Effusion.", "Nodule."]
    assert read.left_out == {"patient of a held-out split": 1}


DUPLICATES = [("Edema.", "train"), ("edema. ", "test"), ("EDEMA.", "test"), ("Clear.", "train"), ("clear.", "train")]


@pytest.mark.parametrize(
    ("duplicates", "kept"), [("drop", ["edema. ", "Clear."]), ("keep", [report for report, _ in DUPLICATES])]
)
def test_duplicates(tmp_path, duplicates, kept):
    path = write(tmp_path / "r.jsonl", [{"report": report, "split": split} for report, split in DUPLICATES])
    read = corpus("file", path=path, columns={"split": "split"}, duplicates=duplicates)
    assert [s.report for s in read.studies] == kept
    assert read.left_out.get("duplicate", 0) == len(DUPLICATES) - len(kept)


def test_kept_duplicates_keep_the_studies_apart_and_the_commonest_reports_in_train(tmp_path):
    path = write(tmp_path / "r.csv", [{"report": REPORTS[n % 6]} for n in range(60)])
    read = corpus("file", path=path, duplicates="keep", shares={"validation": 0.1, "test": 0.1})
    assert len(read.studies) == 60 and not read.left_out
    assert {same_text(s.report) for s in read.studies if s.split == "train"} == set(map(same_text, REPORTS[:6]))


@pytest.mark.parametrize("age", ["90Y+", "ANON", "200Y", "old"])
def test_an_age_that_is_none_counts_as_unknown(tmp_path, age):
    rows = [{"report": "Edema.", "age": age, "sex": "F"}, {"report": "Clear.", "age": "65"}]
    read = corpus("file", path=write(tmp_path / "r.jsonl", rows), columns={"age": "age", "sex": "sex"})
    assert read.unread_ages == 1 and not read.left_out
    assert [s.context.as_dict() for s in read.studies] == [{"sex": "F"}, {"age": "65"}]


def test_findings_without_the_impression(tmp_path):
    whole = "HISTORY: Cough.\nFINDINGS: Edema. Small effusion.\nIMPRESSION: Heart failure."
    path = write(tmp_path / "r.jsonl", [{"report": whole}, {"report": "Clear."}, {"report": "FINDINGS: Clear."}])
    read = corpus("file", path=path, sections="findings_only")
    assert [s.report for s in read.studies] == ["Edema. Small effusion.", "Clear."]
    assert read.left_out == {"no findings or impression": 1} and read.studies[0].context.indication == "Cough."


def test_blank_reports_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "r.jsonl", [{"report": text} for text in ("Edema.", " \n", "", None, "Clear.")])
    assert corpus("file", path=path).left_out == {"blank report": 3}


# bad input


def bad(tmp_path, rows, match, source="file", **settings):
    path = write(tmp_path / "bad.jsonl", rows)
    with pytest.raises(InputError, match=match) as error:
        corpus(source, path=path, **settings)
    assert "Secret" not in str(error.value)


def test_one_clear_message(tmp_path):
    good = [{"report": "Secret edema.", "id": 1, "age": "65"}, {"report": "Secret nodule.", "id": 2, "age": ""}]
    missing = r"bad.jsonl has no column 'text' for the report. It has: 'report', 'id', 'age'. .* corpus.columns.report"
    bad(tmp_path, good, missing, columns={"report": "text"})
    bad(tmp_path, good, "no column 'sex' for the sex", columns={"sex": "sex"})
    bad(tmp_path, good[:1], "holds 1 study with a report. Give at least two")
    bad(tmp_path, good[:1] * 2, r"holds 1 study with a report \(left out: duplicate: 1\)")
    bad(tmp_path, [{"report": ""}], r"holds no studies with a report \(left out: blank report: 1\)")
    bad(
        tmp_path, good[:1] * 2, "two studies with the id '1': bad.jsonl row 1 and bad.jsonl row 2", columns={"id": "id"}
    )
    bad(tmp_path, [good[0], good[1] | {"id": None}], "row 2 has no id in column 'id'", columns={"id": "id"})
    bad(tmp_path, [good[0], {"report": 5}], "row 2, column 'report' is of type int")
    bad(
        tmp_path,
        [good[0] | {"p": "extra"}],
        "row 1 has the unknown split 'extra'. The splits are",
        columns={"split": "p"},
    )
    bad(tmp_path, good, "bad.jsonl has no column 'Findings'", source="rexgradient")
    with pytest.raises(InputError, match="nowhere.csv is not a file"):
        corpus("file", path=tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="nowhere is no folder"):
        corpus("folder", path=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no text files \(\*.txt\)"):
        corpus("folder", path=tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"a.txt is not UTF-8 text \(byte 0\)"):
        corpus("folder", path=tmp_path / "empty")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"source": "file"}, "source file needs a path"),
        ({"source": "radlabels", "path": "x"}, "takes no path"),
        ({"source": "folder", "path": "x", "columns": {"report": "a"}}, "columns are for source file only"),
        ({"source": "radlabels", "share": {}}, "Extra inputs"),
        ({"source": "radlabels", "shares": {"validation": 0.6, "test": 0.4}}, "leave nothing to train on"),
        ({"source": "radlabels", "shares": {"test": -0.1}}, "greater than or equal"),
        ({"source": "folder", "path": {"dev": "x"}}, "'train', 'validation' or 'test'"),
    ],
)
def test_settings_that_do_not_fit(settings, match):
    with pytest.raises(ValidationError, match=match):
        CorpusConfig(**settings)
