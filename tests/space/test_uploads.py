"""Files that visitors upload, and the systems in them."""

import csv
import json
from pathlib import Path

import app_judges
import pyarrow
import pyarrow.parquet
import pytest

from crimson_core import CrimsonScorer, InputError
from space import words
from space.comparison import systems_of
from space.judging import Run
from space.settings import settings_from
from space.uploads import (  # fmt: skip
    SYSTEMS_EXAMPLE,
    UploadedTable,
    checked_pairs,
    guess_columns,
    read_table,
    take_uploads,
)

SETTINGS = settings_from({})
app_judges.register()


def saved(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


ROWS = [
    {"id": "1", "gt": "Small effusion.", "model": "Large effusion."},
    {"id": "2", "gt": "Clear.", "model": "Clear."},
]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_upload_is_read_and_deleted(tmp_path, ending):
    (tmp_path / "hash").mkdir()
    (table,) = take_uploads([saved(tmp_path / "hash" / f"pairs{ending}", ROWS)], SETTINGS)
    assert table.name == f"pairs{ending}"
    assert table.rows == ROWS
    assert list(tmp_path.iterdir()) == []
    assert "effusion" not in repr(table)


@pytest.mark.parametrize(
    ("name", "content", "limits", "said"),
    [
        ("p.xlsx", b"x", {}, "p.xlsx has an unknown ending"),
        ("p.csv", b"", {}, "p.csv has no rows"),
        ("p.csv", b"a,b\n\x81,x\n", {}, "p.csv is not UTF-8"),
        ("p.jsonl", b"{", {}, "p.jsonl line 1 is not JSON"),
        ("p.parquet", b"x" * 100, {}, "p.parquet is not a Parquet file"),
        ("p.csv", b"a,b\n" + b"x,y\n" * 4, {"CRIMSON_MAX_ROWS": "3"}, "4 rows; at most 3"),
        ("p.csv", b"a,b\n" + b"x,y\n" * 300_000, {"CRIMSON_MAX_MB": "1"}, "larger than 1 MB"),
    ],
)
def test_a_bad_upload_is_refused_and_deleted(tmp_path, name, content, limits, said):
    (tmp_path / "hash").mkdir()
    path = tmp_path / "hash" / name
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        take_uploads([str(path)], settings_from(limits))
    assert said in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_parquet_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path):
    path = saved(tmp_path / "p.parquet", [{"gt": "x" * 2_000_000, "model": str(n)} for n in range(2)])
    assert Path(path).stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacks to"):
        take_uploads([path], settings_from({"CRIMSON_MAX_MB": "1"}))
    (tmp_path / "hash").mkdir(parents=True)
    path = saved(tmp_path / "hash" / "p.parquet", ROWS * 10)
    with pytest.raises(InputError, match="20 rows; at most 5"):
        take_uploads([path], settings_from({"CRIMSON_MAX_ROWS": "5"}))


def test_one_bad_file_of_several_leaves_none_behind(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    good, bad = saved(tmp_path / "one" / "a.csv", ROWS), tmp_path / "two" / "b.csv"
    bad.write_text("")
    with pytest.raises(InputError, match="b.csv"):
        take_uploads([str(bad), good], SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_is_gone_is_a_message(tmp_path):
    with pytest.raises(InputError, match="Upload it again"):
        take_uploads([str(tmp_path / "hash" / "p.csv")], SETTINGS)


@pytest.mark.parametrize("needed", [words.NEEDS_ONE, words.NEEDS_SEVERAL])
def test_what_a_tab_needs_is_shown_in_three_lines_that_can_be_read(needed):
    sample = needed.split("```csv\n")[1].split("\n```")[0].splitlines()
    rows = list(csv.DictReader(sample))
    assert (len(sample), len(rows)) == (3, 2)
    guessed = guess_columns(list(rows[0]))
    candidate = guessed["prediction"] or "system_a"
    checked_pairs(UploadedTable("sample", rows), guessed | {"prediction": candidate}, SETTINGS)


def test_columns_are_proposed_by_their_usual_names():
    assert guess_columns(["Study_ID", "Ground truth", "Generated", "Patient Age", "x"]) == {
        "reference": "Ground truth",
        "prediction": "Generated",
        "id": "Study_ID",
        "age": "Patient Age",
        "sex": None,
        "indication": None,
    }
    assert set(guess_columns(["a", "b"]).values()) == {None}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"reference": None, "prediction": "model"}, "Choose the column of the reference reports"),
        ({"reference": "gt", "prediction": None}, "Choose the column of the candidate reports"),
        ({"reference": "gt", "prediction": "gt"}, "are the same column"),
    ],
)
def test_wrong_columns_are_refused(columns, said):
    with pytest.raises(InputError, match=said):
        checked_pairs(UploadedTable("t.csv", ROWS), columns, SETTINGS)


def test_ages_that_cannot_be_read_are_told():
    columns = {"reference": "gt", "prediction": "model", "age": "model"}
    with pytest.warns(UserWarning, match="t.csv, column 'model': the age can't be read in row"):
        pairs = checked_pairs(UploadedTable("t.csv", ROWS), columns, SETTINGS)
    assert not any(pair.context and pair.context.age for pair in pairs)


def test_a_report_that_is_too_long_is_refused_not_cut():
    rows = [*ROWS, {"id": "3", "gt": "x" * 50, "model": ""}]
    with pytest.raises(InputError, match="t.csv row 3 holds a text of 50 characters; at most 40"):
        checked_pairs(UploadedTable("t.csv", rows), {"reference": "gt", "prediction": "model"}, settings_from({"CRIMSON_MAX_CHARACTERS": "40"}))  # fmt: skip


# Systems


COLUMNS = {"reference": "reference", "id": "id", "age": None, "sex": None, "indication": None}


def table_of(name, *rows):
    return UploadedTable(name, [dict(zip(("id", "reference", "prediction"), row, strict=True)) for row in rows])


A = table_of("a.csv", ("1", "Effusion.", "Effusion."), ("2", "Mass.", "Clear."))
B = table_of("b.csv", ("2", "Mass.", "Mass."), ("1", "Effusion.", "Clear."))


def test_systems_of_one_file_are_its_columns():
    table = read_table(SYSTEMS_EXAMPLE, "systems.csv", SETTINGS)
    systems = systems_of([table], COLUMNS | {"prediction": ["system_a", "system_b"]}, SETTINGS)
    assert systems.names == ["system_a", "system_b"]
    run = Run("offline", systems.interleaved())
    list(run.watch())
    for name, results in systems.results(run.results).items():
        expected = CrimsonScorer("offline").score(systems.pairs[name])
        assert [r.as_dict() for r in results] == [r.as_dict() for r in expected]


def test_systems_of_several_files_are_joined_by_id():
    systems = systems_of([A, B], COLUMNS | {"prediction": ["prediction"]}, SETTINGS)
    assert {name: [p.candidate for p in pairs] for name, pairs in systems.pairs.items()} == {
        "a": ["Effusion.", "Clear."],
        "b": ["Clear.", "Mass."],
    }


@pytest.mark.parametrize(
    ("tables", "id_column", "said"),
    [
        ([A], "id", "nothing to compare"),
        ([A, B], None, "b row 1: the reference report is not that of a. .* same order"),
        ([A, table_of("b.csv", ("1", "Effusion.", ""))], None, "b has 1 rows and a has 2"),
        ([A, table_of("b.csv", ("1", "Effusion.", ""))], "id", "b lacks 1 of the ids of a: '2'"),
        (
            [A, table_of("b.csv", ("1", "Effusion.", ""), ("2", "Mass.", ""), ("3", "", ""))],
            "id",
            "a lacks 1 .* of b: '3'",
        ),
        (
            [A, table_of("b.csv", ("1", "Effusion.", ""), ("1", "Mass.", ""))],
            "id",
            "row 2 has the id '1' of an earlier",
        ),
        ([A, table_of("b.csv", ("1", "Effusion.", ""), (None, "Mass.", ""))], "id", "row 2 has no id"),
        ([A, table_of("b.csv", ("1", "Effusion.", ""), ("2", "Masses.", ""))], "id", "b id '2': the reference"),
    ],
)
def test_systems_that_do_not_go_together_are_refused(tables, id_column, said):
    with pytest.raises(InputError, match=said):
        systems_of(tables, COLUMNS | {"id": id_column} | {"prediction": ["prediction"]}, SETTINGS)


def test_systems_with_other_contexts_are_refused():
    tables = [UploadedTable(f"{age}.csv", [{"reference": "a", "prediction": "b", "age": age}]) for age in ("50", "60")]
    with pytest.raises(InputError, match="age, sex or indication"):
        systems_of(tables, COLUMNS | {"id": None, "age": "age"} | {"prediction": ["prediction"]}, SETTINGS)


def test_the_limit_of_rows_counts_all_systems():
    with pytest.raises(InputError, match="4 pairs of all systems together; at most 3"):
        systems_of([A, B], COLUMNS | {"prediction": ["prediction"]}, settings_from({"CRIMSON_MAX_ROWS": "3"}))


def test_files_of_one_name_are_told_apart():
    assert systems_of([A, A], COLUMNS | {"prediction": ["prediction"]}, SETTINGS).names == ["1. a.csv", "2. a.csv"]


def test_a_stopped_comparison_has_the_same_pairs_of_all_systems():
    systems = systems_of([A, B], COLUMNS | {"prediction": ["prediction"]}, SETTINGS)
    run = Run("broken:3", systems.interleaved())
    list(run.watch())
    assert len(run.results) == 3
    assert {name: [r.index for r in rs] for name, rs in systems.results(run.results).items()} == {"a": [0], "b": [0]}
