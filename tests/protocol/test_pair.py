import math
from decimal import Decimal

import numpy
import pandas
import pytest

from crimson_core import CrimsonScorer, InputError, PatientContext, make_pairs
from crimson_core.protocol.pair import parse_age


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("65", 65), ("072Y", 72), ("006M", 0.5), ("003D", 3 / 365.25), ("52W", 52 * 7 / 365.25), ("65 years", 65),
        ("65-year-old", 65), ("65 y/o", 65), ("65yo", 65), ("6 months", 0.5), (">89", 89), ("90+", 90), ("65.", 65), (" 7 ", 7), ("0", 0),
        ("130", 130),
    ],
)  # fmt: skip
def test_ages(text, years):
    assert parse_age(text) == pytest.approx(years)


@pytest.mark.parametrize(
    "text", ["", "old", "___", "-5", "131", "200", "65 kg", "6 5", "1e3", "12/03/1950", "Y", "nan"]
)
def test_no_ages(text):
    assert parse_age(text) is None


def test_context_keeps_the_callers_keys_for_the_prompt_and_cleans_the_rest():
    pairs = make_pairs(["p"], ["r"], [{"Indication": "cough", "Age": 65.0, "sex": float("nan")}])
    context = pairs[0].context
    assert context == PatientContext(age="65", indication="cough", keys=("Indication", "Age"))
    assert context.as_dict() == {"Indication": "cough", "Age": "65"}
    assert context.age_years == 65
    own = PatientContext(indication="cough", sex="F")
    assert make_pairs(["p"], ["r"], [own])[0].context is own
    assert own.as_dict() == {"sex": "F", "indication": "cough"}
    assert own.age_years is None


@pytest.mark.parametrize("empty", [None, math.nan, {}, {"age": ""}, {"age": None, "sex": "  "}, PatientContext()])
def test_an_empty_context_is_none(empty):
    assert make_pairs(["p"], ["r"], [empty])[0].context is None


def test_contexts_travel_in_reference_records():
    (pair,) = make_pairs(["p"], [{"report": "r", "age": "072Y", "sex": "F", "indication": None}], ids=[7])
    assert pair.reference == "r"
    assert pair.id == "7"
    assert pair.context.as_dict() == {"age": "072Y", "sex": "F"}
    records = [{"report": "r", "age": "72"}, {"report": "r"}]
    beside = make_pairs(["p"] * 2, records, [None, {"age": "31"}])
    assert [pair.context.age for pair in beside] == ["72", "31"]


def test_a_sorted_series_keeps_its_rows_together():
    table = pandas.DataFrame({"p": ["a", "b"], "r": ["c", "d"], "c": [{"age": 80}, {"age": 20}], "i": [1, None]})
    table = table.iloc[::-1]
    pairs = make_pairs(table.p, table.r, table.c, table.i)
    assert [(p.candidate, p.context.age, p.id) for p in pairs] == [("b", "20", None), ("a", "80", "1.0")]
    assert len(make_pairs(table.p[table.p == "a"], table.r[table.p == "a"])) == 1


@pytest.mark.parametrize("age", [71, 71.0, numpy.int64(71), numpy.float32(71), Decimal("71.00")])
def test_ages_may_be_numbers(age):
    assert make_pairs(["a"], ["b"], [{"age": age}])[0].context.age == "71"
    assert make_pairs(["a"], ["b"], [{"age": 0.25}])[0].context.age == "0.25"


@pytest.mark.parametrize(
    "age", ["unknown", "N/A", " nan ", pandas.NA, pandas.NaT, numpy.float32("nan"), Decimal("nan")]
)
def test_the_usual_words_for_no_age_are_no_age(age):
    assert make_pairs(["a"], ["b"], [{"age": age, "sex": "F"}])[0].context.age is None
    context = make_pairs(["a"], ["b"], [{"sex": "unknown", "indication": "none"}])[0].context
    assert (context.sex, context.indication) == ("unknown", "none"), "words of a person"


def test_no_repr_shows_patient_data():
    (pair,) = make_pairs(["secret"], ["secret"], [{"indication": "secret"}], ids=["s1"])
    assert "secret" not in repr(pair)
    assert "s1" in repr(pair)
    (result,) = CrimsonScorer("offline").score(make_pairs(["Small effusion."], ["Large effusion."]))
    assert "effusion" not in repr(result)


def test_reports_are_kept_to_the_character():
    text = "  Small\u00a0effusion.\r\n\tNo\u200bpneumothorax \n"
    (pair,) = make_pairs([text], [""])
    assert pair.candidate == text
    assert pair.reference == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((["a", None], ["b", "c"]), ["predictions[1]", "missing"]),
        ((["a"], [math.nan]), ["references[0]", "missing"]),
        ((["a"], [5]), ["references[0]", "int"]),
        (([b"a"], ["b"]), ["predictions[0]", "bytes"]),
        ((["a", "b"], ["c"]), ["predictions has 2", "references has 1"]),
        ((["a"], ["b"], []), ["patient_contexts has 0"]),
        (([], []), ["predictions is empty"]),
        (("a report", "b"), ["predictions", "str"]),
        ((["a"], None), ["references is missing"]),
        ((pandas.DataFrame({"a": [1]}), ["b"]), ["predictions is a table"]),
        ((["a"], ["b"], [{"agee": 1}]), ["patient_contexts[0]", "agee", "age, sex and indication"]),
        ((["a"], ["b"], [{1: 1}]), ["patient_contexts[0]", "1"]),
        ((["a"], ["b"], [{"age": "elderly"}]), ["patient_contexts[0]", "age"]),
        ((["a"], ["b"], [{"age": True}]), ["patient_contexts[0]", "bool"]),
        ((["a"], ["b"], [{"age": float("inf")}]), ["patient_contexts[0]", "age"]),
        ((["a"], ["b"], [{"sex": 3}]), ["patient_contexts[0]", "sex", "int"]),
        ((["a"], ["b"], [{"Age": 3, "age": 4}]), ["patient_contexts[0]", "twice"]),
        ((["a"], ["b"], ["65"]), ["patient_contexts[0]", "str"]),
        ((["a"], [{"text": "b"}]), ["references[0]", "'report'"]),
        ((["a"], [{"report": None}]), ["references[0]", "missing"]),
        ((["a"], [{"report": "b", "age": 3}], [{"age": 3}]), ["patient_contexts[0]", "references[0]"]),
        (({"a"}, ["b"]), ["predictions", "set"]),
        ((["a"], ["b"], [{"x" * 500: 1}]), ["x" * 40 + "'"]),
        ((["\ud800"], ["b"]), ["predictions[0]", "Unicode"]),
        ((["a"], ["b"], [{"sex": "\ud800"}]), ["patient_contexts[0]['sex']", "Unicode"]),
        ((["a"], ["b"], None, ["\ud800"]), ["ids[0]", "Unicode"]),
        ((["a"], ["b"], [{"age": 1000}]), ["patient_contexts[0]['age'] can't be read"]),
        ((["a"], ["b"], [{"age": 10**400}]), ["patient_contexts[0]['age'] can't be read"]),
        ((5, ["b"]), ["predictions is of type int"]),
        ((["a"], ["b"], None, ["x", "y"]), ["ids has 2"]),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument_and_the_row(arguments, said):
    with pytest.raises(InputError) as error:
        make_pairs(*arguments)
    for words in said:
        assert words in str(error.value)
