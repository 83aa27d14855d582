"""The offline judge on cases written by a chest radiologist: `rules_cases.yaml`, one test each.

The kinds of case, by their keys:
  reference, candidates, expect  rankings of the candidates' scores: "1 > 2", "1 = 2" (within 0.01), "1 = 1.0", "2 < 0", "1 > 2 > 3".
                                 Whole numbers from 1 name candidates; 0 and decimals are scores.
  report, findings               the findings that a report holds, in any order, by concept id; "a|b" accepts either
  reference, candidate, errors   the attribute errors by type, with grade (or `any`), and as many missing and false findings
                                 as `missing` and `false` say (0 if absent). `errors` absent: only those two are checked.
  report, significance           the significance of every finding of a concept; "a|b" accepts either
A context stands in `context`, or, for one candidate, in {text, context}.
"""

import operator
import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from crimson_core import CrimsonScorer, make_pairs
from crimson_core.judges.rules.extraction import extract_findings
from crimson_core.protocol.evaluation import ERROR_TYPES, SIGNIFICANCE_LEVELS

# BaseLoader: every scalar stays text, so that `false` can be a key and "072Y" an age.
CATEGORIES = yaml.load((Path(__file__).parent / "rules_cases.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)
EXPECTED_CATEGORIES = [
    "false_findings",
    "patient_context",
    "normal_findings",
    "paraphrase",
    "layout",
    "location",
    "severity",
    "measurement",
    "descriptors",
    "certainty",
    "specificity",
    "temporal",
    "significance",
    "partial_credit",
    "clinical_practicality",
    "negation",
    "hypothetical_and_history",
    "coordination",
    "splitting",
    "devices",
    "surgical",
    "bones_and_soft_tissue",
    "abdomen",
    "paediatric",
    "non_report_text",
]
KINDS = {
    frozenset({"reference", "candidates", "expect"}),
    frozenset({"report", "findings"}),
    frozenset({"reference", "candidate"}),
    frozenset({"report", "significance"}),
}
OPTIONAL = {"id", "context", "errors", "missing", "false"}
SCORER = CrimsonScorer("offline")
COMPARE = {
    ">": operator.gt,
    "<": operator.lt,
    "=": lambda one, other: abs(one - other) <= 0.01,
    ">=": lambda one, other: one >= other - 1e-9,
    "<=": lambda one, other: one <= other + 1e-9,
}


def judged(reference, candidate, context):
    (result,) = SCORER.score(make_pairs([candidate], [reference], [context or {}]))
    return result.score


def findings(report, context):
    """(concepts, significance, text) of each finding, as the judge sees the report as a reference of this patient."""
    concepts = defaultdict(list)
    for found in extract_findings(report):
        concepts[found.start, found.end].append(tuple(found.concepts))
    listed = judged(report, "", context)["raw_evaluation"]["reference_findings"]
    return [
        (
            concepts[tuple(f["span"])].pop(0) if concepts[tuple(f["span"])] else (),
            f["clinical_significance"],
            f["finding"],
        )
        for f in listed
    ]


def check_rankings(case):
    scores = []
    for candidate in case["candidates"]:
        own = candidate if isinstance(candidate, dict) else {"text": candidate}
        scores.append(judged(case["reference"], own["text"], own.get("context", case.get("context")))["crimson_score"])

    def value(text):
        return scores[int(text) - 1] if re.fullmatch(r"[1-9]\d*", text) else float(text)

    for expectation in case["expect"]:
        words = expectation.split()
        for one, sign, other in zip(words[::2], words[1::2], words[2::2], strict=False):
            assert COMPARE[sign](value(one), value(other)), f"{expectation}, but the scores are {scores}"


def check_findings(case):
    found = [set(concepts) for concepts, _, _ in findings(case["report"], case.get("context"))]
    wanted = [set(names.split("|")) for names in case["findings"]]
    assert len(found) == len(wanted) and _all_paired(found, wanted), f"expected {case['findings']}, found {found}"


def _all_paired(found, wanted):
    """Whether each finding can have a name of its own: all that it may be is among the names accepted."""
    if not found:
        return True
    return any(
        found[0] and found[0] <= names and _all_paired(found[1:], wanted[:i] + wanted[i + 1 :])
        for i, names in enumerate(wanted)
    )


def check_attribute_errors(case):
    raw = judged(case["reference"], case["candidate"], case.get("context"))["raw_evaluation"]
    errors = raw["errors"]
    told = {f["id"]: f["finding"] for f in raw["reference_findings"] + raw["predicted_findings"]}
    missing, false = [[told[i] for i in errors[kind]] for kind in ("missing_findings", "false_findings")]
    state = f"missing {missing}, false {false}, attribute errors {errors['attribute_errors']}, findings {told}"
    assert (len(missing), len(false)) == (int(case.get("missing", 0)), int(case.get("false", 0))), state
    if "errors" not in case:
        return
    grades = {}
    for error in errors["attribute_errors"]:
        for kind in error["error_types"]:
            if grades.get(kind) != "significant":
                grades[kind] = error["severity"]
    expected = {kind: grades.get(kind) if grade == "any" else grade for kind, grade in case["errors"].items()}
    assert grades == expected, state


def check_significance(case):
    found = findings(case["report"], case.get("context"))
    for names, levels in case["significance"].items():
        given = [level for concepts, level, _ in found if set(concepts) & set(names.split("|"))]
        assert given, f"no {names} in {found}"
        assert set(given) <= set(levels.split("|")), f"expected {names}: {levels}, found {found}"


CASES = [pytest.param(case, id=f"{category}/{case['id']}") for category, cases in CATEGORIES.items() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    if "candidates" in case:
        check_rankings(case)
    elif "findings" in case:
        check_findings(case)
    elif "significance" in case:
        check_significance(case)
    else:
        check_attribute_errors(case)


def test_the_cases_are_sound():
    cases = [case for listed in CATEGORIES.values() for case in listed]
    ids = [case["id"] for case in cases]
    assert len(ids) == len(set(ids)) >= 120
    assert list(CATEGORIES) == EXPECTED_CATEGORIES
    for case in cases:
        assert frozenset(case) - OPTIONAL in KINDS, case["id"]
        assert set(case.get("errors", {})) <= set(ERROR_TYPES), case["id"]
        assert set(case.get("errors", {}).values()) <= {"significant", "negligible", "any"}, case["id"]
        assert {"errors", "missing", "false"} & set(case) or "candidate" not in case, case["id"]
        for levels in case.get("significance", {}).values():
            assert set(levels.split("|")) <= set(SIGNIFICANCE_LEVELS), case["id"]
        for expectation in case.get("expect", ()):
            words = expectation.split()
            assert len(words) >= 3 and set(words[1::2]) <= set(COMPARE), case["id"]
            assert all(int(w) <= len(case["candidates"]) for w in words[::2] if w.isdigit()), case["id"]
