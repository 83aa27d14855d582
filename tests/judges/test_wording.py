"""The offline judge on small inputs of many kinds, most of them by people who have not read its lexicon: `wording_cases.json`.

What is expected bounds a candidate's score or ranks two of them; `benchmarks/wording.py` says how it is written.
"""

from pathlib import Path

import pytest

from benchmarks.expectations import holds, read_expectations
from crimson_core import CrimsonScorer, make_pairs

CASES = read_expectations(Path(__file__).with_name("wording_cases.json"), "kind")


@pytest.fixture(scope="module")
def scorer():
    return CrimsonScorer("offline")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']} {case['kind'][:40]}")
def test_case(scorer, case):
    texts = [candidate["text"] for candidate in case["candidates"].values()]
    results = scorer.score(make_pairs(texts, [case["reference"]] * len(texts)))
    scores = {name: result.crimson_score for name, result in zip(case["candidates"], results, strict=True)}
    failed = [expectation for expectation in case["expected"] if not holds(expectation, scores)]
    assert not failed, f"{case['reference']!r} against {texts}: {scores}"
