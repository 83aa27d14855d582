"""Systems on the same pairs: their names, the names of their pairs, and their subgroups."""

import pytest

from crimson_core import CrimsonScorer, make_pairs
from crimson_core.compare.section import Systems, make_section, name_systems

REFERENCES = ["Small left effusion.", "Large pneumothorax.", "Clear lungs.", "Mass."]


@pytest.mark.parametrize(
    ("tables", "columns", "names"),
    [
        (["x.csv"], ["a", "b"], ["a", "b"]),
        (["x.csv", "y.csv"], ["a"], ["x", "y"]),
        (["x.csv", "y.csv"], ["a", "b"], ["x: a", "x: b", "y: a", "y: b"]),
        (["x.csv", "x.jsonl"], ["a"], ["x.csv", "x.jsonl"]),
        (["x.csv", "x.csv"], ["a"], ["1. x.csv", "2. x.csv"]),
    ],
)
def test_each_system_has_a_name_of_its_own(tables, columns, names):
    assert list(name_systems(tables, columns)) == names
    assert list(name_systems(tables, columns).values()) == [
        (number, column) for number in range(len(tables)) for column in columns
    ]


def section(patients=None, **subgroups):
    pairs = {"right": make_pairs(REFERENCES, REFERENCES, ids=["x" * 70, "", None, 4])}
    pairs["empty"] = make_pairs([""] * 4, REFERENCES)
    systems = Systems(pairs, patients, subgroups)
    results = systems.results(CrimsonScorer("offline").score(systems.interleaved()))
    return make_section("set", "offline", "crimson|s", systems, results)


def test_pairs_are_named_by_id_or_row_and_the_best_system_stands_first():
    found = section()
    assert found.name == "set, offline"
    assert list(map(found.pair_name, range(4))) == ["x" * 60, "row 2", "row 3", "4"]
    assert list(found.results) == list(found.figures) == list(found.summaries) == ["right", "empty"]
    assert [place for place, _ in found.most_separated(9)] == [0, 1, 3], "not the pair on which both are right"
    assert len(found.most_separated(1)) == 1


def test_subgroups_stand_by_age_and_resample_patients():
    ages = ["40 to 64", "unknown", "under 18", "under 18"]
    found = section(patients=["p", "q", "r", "r"], age_band=ages)
    assert [(group.label, group.n_pairs) for group in found.subgroups] == [
        ("under 18", 2),
        ("40 to 64", 1),
        ("unknown", 1),
    ]
    assert found.n_units == 3
    children = found.subgroups[0].figures["right"]["crimson_score"]
    assert (children.n, children.n_resampled) == (2, 1), "two studies of one patient"
    assert section(age_band=ages).n_units == 4
