"""The data of the offline judge: their digest, and what the schema refuses."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from crimson_core import CrimsonScorer, JudgeError
from crimson_core.judges.rules import lexicon, schema

FOLDER = Path(lexicon.__file__).parent


def test_the_signature_tells_versions_apart_and_line_endings_not(tmp_path):
    digest = lexicon.reading_digest()
    assert f"|reading:{digest}|" in CrimsonScorer("offline").signature
    windows, edited, code = (
        shutil.copytree(FOLDER, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("windows", "edited", "code")
    )
    for file in (*windows.rglob("*.yaml"), *windows.rglob("*.py")):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert lexicon.reading_digest(windows) == digest
    for folder, name in ((edited, "concepts/bones.yaml"), (code, "matching.py")):
        with (folder / name).open("a") as file:
            file.write("\n# another version\n")
    assert len({digest, lexicon.reading_digest(edited), lexicon.reading_digest(code)}) == 3


def test_the_lexicon_has_no_faults():
    assert lexicon.lexicon_faults() == []
    assert len(lexicon.concept_entries()) >= 200


def test_explanations_call_a_finding_by_its_usual_name():
    def stems(text):
        return {word[:4] for word in text.lower().replace("_", " ").split()}

    odd = {
        key: entry["terms"][0]
        for key, entry in lexicon.concept_entries().items()
        if "|" in entry["terms"][0] or stems(key).isdisjoint(stems(entry["terms"][0]))
    }
    assert odd == {
        "cpam": "congenital pulmonary airway malformation",
        "dish": "diffuse idiopathic skeletal hyperostosis",
    }


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("edemma", "edema"),
        ("accute", "acute"),
        ("efusion", "effusion"),
        ("pnuemonia", "pneumonia"),
        ("cardiomegoly", "cardiomegaly"),
        ("calibre", "caliber"),
        ("tunnelled", "tunneled"),
        # other words
        ("later", "later"),
        ("filed", "filed"),
        ("dysphasia", "dysphasia"),
    ],
)
def test_typing_errors_are_mended_in_words_of_the_lexicon_and_no_others(written, read):
    assert lexicon.report_words(written)[0] == [read]


def rule(**changed):
    return {"why": "so it is", "concepts": ["opacity"], "set": "urgent"} | changed


# where to put what, and the fault that it is; a tuple of keys leads to the place
FAULTS = [
    # keys
    (("rules.yaml", "significance", 0), rule(age_form=65), "rules.yaml: significance.0.age_form: is no key"),
    (("rules.yaml", "matching", "treshold"), 0.5, "rules.yaml: matching.treshold: is no key"),
    (("concepts/bones.yaml", "fracture", "brooder"), ["opacity"], "concepts/bones.yaml: fracture.brooder: is no key"),
    (("language.yaml", "modifiers", "sides"), {"left": ["left"]}, "language.yaml: modifiers.sides: is no key"),
    (("language.yaml", "assertion", "negated_befor"), ["sans"], "language.yaml: assertion.negated_befor: Input should be 'negated_before'"),
    # types
    (("concepts/bones.yaml", "fracture", "terms"), "fracture", "concepts/bones.yaml: fracture.terms: Input should be a valid list (is 'fracture')"),
    (("concepts/bones.yaml", "fracture", "terms"), ["broken", True], "concepts/bones.yaml: fracture.terms.1: Input should be a valid string (is True)"),
    (("concepts/bones.yaml", "fracture", "sided"), "no", "concepts/bones.yaml: fracture.sided: Input should be a valid boolean (is 'no')"),
    (("concepts/bones.yaml", "fracture"), None, "concepts/bones.yaml: fracture: Input should be a valid dictionary"),
    # ranges
    (("language.yaml", "modifiers", "severity", 6), ["colossal"], "language.yaml: modifiers.severity.6: Input should be less than or equal to 5 (is 6)"),
    (("rules.yaml", "significance", 0), rule(age_from=650), "rules.yaml: significance.0.age_from: Input should be less than or equal to 120 (is 650)"),
    (("rules.yaml", "wording", "threshold"), 85, "rules.yaml: wording.threshold: Input should be less than or equal to 1 (is 85)"),
    (("rules.yaml", "significance", 0), rule(set="grave"), "rules.yaml: significance.0.set: Input should be 'urgent'"),
    (("rules.yaml", "significance", 0), rule(at_least="urgent"), "rules.yaml: significance.0: needs one of set, at_least and at_most"),
    (("concepts/devices.yaml", "endotracheal_tube", "tip_above_carina_mm"), [70, 20], "endotracheal_tube.tip_above_carina_mm: the lower limit stands first"),
    (("language.yaml", "spelling", "(o"), "o", "language.yaml: spelling.(o: no regular expression"),
    (("concepts/bones.yaml", "fracture", "terms"), ["…"], "concepts/bones.yaml: fracture.terms.0: String should match pattern"),
    # ids
    (("concepts/bones.yaml", "fracture", "broader"), ["breakage"], "concepts/bones.yaml: fracture.broader: breakage is not known"),
    (("concepts/bones.yaml", "fracture", "parts"), ["breakage"], "concepts/bones.yaml: fracture.parts: breakage is not known"),
    (("concepts/bones.yaml", "fracture", "composites"), ["bone fractured"], "fracture.composites: bone is no structure and no state"),
    (("concepts/bones.yaml", "fracture", "composites"), ["rib snapped"], "fracture.composites: snapped is no state of language.yaml and no concept"),
    (("concepts/devices.yaml", "port", "tip_normal"), ["knee"], "concepts/devices.yaml: port.tip_normal: knee is not known"),
    (("rules.yaml", "significance", 0), rule(concepts=["nothing"]), "rules.yaml: significance.0.concepts: nothing is not known (why: so it is)"),
    (("rules.yaml", "significance", 0), rule(beside=["nothing"]), "rules.yaml: significance.0.beside: nothing is not known"),
    (("rules.yaml", "attribute_errors", "specificity", "interchangeable", 0), ["opacity", "x"], "interchangeable: x is no concept"),
    (("language.yaml", "device_damage"), ["breakage"], "language.yaml: device_damage: breakage is no concept"),
    (("language.yaml", "joint"), ["in (the (left|right)|both)"], "language.yaml: joint.0: alternatives stand in brackets that hold no others"),
    (("language.yaml", "joint"), ["(in|at) the", "(on|at) (the|a)"], "language.yaml: joint: (on|at) (the|a) gives “at the”, as does (in|at) the"),
    (("language.yaml", "joint"), ["lung", "lungs"], "language.yaml: joint: lungs gives “lung”, as does lung"),
    (("concepts/bones.yaml", "fracture", "terms"), ["fracture", "(broken|osteoporotic) bone"], ".terms: osteoporotic bone names fracture too"),
    (("language.yaml", "growing_states"), ["grown"], "language.yaml: growing_states: grown is no state"),
    (("language.yaml", "near_sites", 0), ["knee"], "language.yaml: near_sites.0: knee is not known"),
    (("language.yaml", "one_sentence_sections"), ["views of old"], "language.yaml: one_sentence_sections: views of old is not among skipped_sections"),
    (("rules.yaml", "attribute_errors", "location", "other_organ", "sites"), ["knee"], "rules.yaml: attribute_errors.location.other_organ.sites: knee is not known"),
    (("language.yaml", "words", "wherever"), ["there"], "language.yaml: words.wherever: is no key"),
    # circles, and what stands twice
    (("concepts/lungs.yaml", "opacity", "broader"), ["consolidation"], "goes in a circle"),
    (("concepts/bones.yaml", "opacity"), {"terms": ["x"], "significance": "urgent", "note": "x", "source": "x"}, "opacity: stands in concepts/bones.yaml too"),
    (("concepts/bones.yaml", "fracture", "terms"), ["fracture", "Opacities"], "terms: opacity names fracture too"),
    (("concepts/bones.yaml", "fracture", "terms"), ["fracture", "fracture"], "concepts/bones.yaml: fracture.terms: fracture stands twice"),
    (("rules.yaml", "significance", 0, "why"), "a healed fracture is no injury", "is the name of a rule"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "fault"), FAULTS)
def test_faults_name_file_entry_and_key(place, value, fault):
    found, faults = schema.read_files(files("crimson_core.judges.rules"))
    assert not faults
    *way, last = place
    inner = found
    for key in way:
        inner = inner[key]
    inner[last] = value
    told = schema.faults_of(found, lexicon._readings)
    assert any(fault in line for line in told), told


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("rules.yaml", "version: 1\nversion: 2\n", "rules.yaml, line 1: version stands twice"),
        ("rules.yaml", "version: [1\n", "rules.yaml, line 2: "),
        ("rules.yaml", "- 1\n", "rules.yaml: holds no entries"),
        ("rules.yaml", None, "rules.yaml: is missing"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, fault):
    folder = shutil.copytree(FOLDER, tmp_path / "lexicon", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / name).unlink()
    if text:
        (folder / name).write_text(text)
    (told,) = lexicon.lexicon_faults(folder)
    assert told.startswith(fault)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"significance": [rule(age_form=65)]}, "rules.yaml: significance.0.age_form: is no key"),
        ({"significance": [rule(concepts=["nothing"])]}, "rules.yaml: significance.0.concepts: nothing is not known"),
        ({"significance": 5}, "rules.yaml: significance: Input should be a valid list"),
    ],
)
def test_the_judge_does_not_load_with_such_a_fault(tmp_path, monkeypatch, changed, fault):
    folder = shutil.copytree(FOLDER, tmp_path / "lexicon", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    content = yaml.safe_load((folder / "rules.yaml").read_text()) | changed
    (folder / "rules.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(lexicon, "files", lambda _: folder)
    with pytest.raises(JudgeError) as error:
        lexicon._files.__wrapped__.__wrapped__()
    assert fault in str(error.value)
