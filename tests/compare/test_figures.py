"""Figures: what they count, and what they make of names."""

import json
from dataclasses import replace

import pytest

from crimson_core import CrimsonScorer, PairResult, make_pairs
from crimson_core.compare.figures import (
    differences,
    distributions,
    errors_per_significance,
    errors_per_type,
    figures_of,
)
from crimson_core.compare.section import Systems, make_section
from crimson_core.compare.tables import error_table

REFERENCES = ["Small left pleural effusion.", "Large right pneumothorax.", "Clear lungs.", "Cardiomegaly."]
HOSTILE = '<a href="https://example.org">A</a> & "B" $x$'


def section(*names, results=None):
    """The first system repeats the references, the others say that all is well."""
    pairs = {name: make_pairs(["Clear lungs."] * 4 if n else REFERENCES, REFERENCES) for n, name in enumerate(names)}
    judged = {name: results or CrimsonScorer("offline").score(own) for name, own in pairs.items()}
    return make_section("set", "offline", "crimson|judge:offline", Systems(pairs), judged)


def test_figures_count_what_the_tables_count():
    found = section("right", "empty")
    numbers = {row[0]: [float(cell) for cell in row[1:]] for row in error_table(found).rows}
    bars = errors_per_type(found).plot.data
    assert [bar.name for bar in bars] == list(found.results) == ["right", "empty"]
    for column, bar in enumerate(bars):
        assert list(bar.x) == [row[column] for kind, row in numbers.items() if "," not in kind]
    assert numbers["missing finding"] == [0, 0.75]
    stacked = errors_per_significance(found).plot.data
    assert sum(bar.x[1] for bar in stacked) == 0.75
    assert sum(bar.x[1] for bar in stacked if bar.name == "urgent") == numbers["missing, urgent"][1] == 0.25


def test_every_score_stands_in_its_bin_and_1_in_the_last():
    scores = {0.9: 19, 1.0: 19, 0.0: 10, -0.0001: 9, 0.0999: 10, 0.1: 11, -0.9999: 0, 0.7: 17, -0.3: 7}
    (scored,) = CrimsonScorer("offline").score(make_pairs(["x"], ["x"]))
    results = [replace(scored, index=i) for i in range(len(scores))]
    for result, score in zip(results, scores, strict=True):
        result.__dict__["crimson_score"] = score  # cached there
    pairs = make_pairs(["x"] * len(scores), ["x"] * len(scores))
    bars = distributions(make_section("set", "j", "s", Systems({"a": pairs}), {"a": results})).plot.data[0]
    assert list(bars.y) == [sum(bin == i for bin in scores.values()) for i in range(20)]


def test_one_system_has_no_comparison_and_nothing_scored_no_figure():
    assert len(figures_of(section("a", "b"))) == 5
    assert len(figures_of(section("a"))) == 3
    assert figures_of(section("a", results=[PairResult(i, failure="x") for i in range(4)])) == []


def test_names_are_text_and_two_that_are_cut_alike_stay_two():
    long = "x" * 40
    found = section(HOSTILE, f"{long}1", f"{long}2")
    for plot, said in figures_of(found):
        drawn = json.loads(plot.to_json())
        assert "<a href" not in json.dumps(drawn).replace('\\"', '"')
        assert HOSTILE in said or "set" in said
        assert plot.layout.title.text
    assert "&lt;a href" in json.dumps(json.loads(distributions(found).plot.to_json()))
    assert len(differences(found).plot.data[0].x) == 3
    assert {bar.name for bar in errors_per_type(found).plot.data} == {
        HOSTILE[:31].replace("<", "&lt;").replace(">", "&gt;") + "…",
        "x" * 31 + "…",
    }
    assert [len(bar.y) for bar in errors_per_type(found).plot.data] == [10] * 3


@pytest.mark.parametrize("names", [("a",), tuple("abcdefghij")])
def test_figures_have_room_for_their_rows(names):
    for plot, _ in figures_of(section(*names)):
        margin = plot.layout.margin
        assert plot.layout.height - margin.t - margin.b >= 20 * len(names)
