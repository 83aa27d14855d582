"""Files as people have them: other separators, encodings and names, missing cells, pipes, endings."""

import csv
import io
import json
import subprocess
import sys

import pytest

LINES = "reference,prediction\nSmall left effusion.,Left effusion.\nClear lungs.,Clear lungs.\n"


def crimson(*arguments, cwd, stdin=None):
    command = [sys.executable, "-m", "crimson_core", *map(str, arguments)]
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(command, capture_output=True, cwd=cwd, **given)


def score(content, tmp_path, *options, name="p.csv"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = crimson("score", name, "-j", "offline", *options, cwd=tmp_path)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (LINES, [], ""),
        (LINES.replace(",", ";"), [], "crimson: p.csv: separator ';' found.\n"),
        (LINES.replace(",", "\t"), [], "crimson: p.csv: separator tab found.\n"),
        (LINES.replace(",", "#"), ["--separator", "#"], ""),
        (LINES.encode("utf-16"), [], "crimson: p.csv: encoding utf-16 found.\n"),
        (LINES.replace("left effusion", "left effusion (3–5 mm)").encode("cp1252"), [], "crimson: p.csv is not UTF-8: read as Windows-1252, which spreadsheet programs write.\n"),
        (LINES.replace("left effusion", "left effusion (3–5 mm)").encode("cp1252"), ["--encoding", "cp1252"], ""),
        (LINES.replace("reference", " Reference "), [], "crimson: p.csv: column ' Reference ' taken for 'reference'.\n"),
    ],
)  # fmt: skip
def test_what_is_found_out_is_told(tmp_path, content, options, told):
    status, out, err = score(content, tmp_path, *options)
    assert status == 0, err
    assert err.replace(f"{tmp_path}/", "") == told
    assert "mean of 2 pairs" in out


@pytest.mark.parametrize("word", ["", "  ", "nan", "NaN", "None", "N/A", "null"])
def test_what_is_no_report_is_not_scored(tmp_path, word):
    content = LINES + f"Effusion.,{word}\n" * 2
    status, out, err = score(content, tmp_path)
    assert (status, out) == (2, "")
    assert "column 'prediction': the report is missing in rows 3, 4." in err and "--fill-missing" in err
    status, out, err = score(content, tmp_path, "--fill-missing", "--no-store")
    assert status == 0, err
    assert "No words       empty prediction 2" in out


def test_blank_rows_are_refused_or_left_out(tmp_path):
    content = LINES + ",\n" * 7
    status, _, err = score(content, tmp_path)
    assert status == 2 and "rows 3, 4, 5, 6, 7 and 2 more are blank. Delete them." in err
    status, out, err = score(content, tmp_path, "--fill-missing")
    assert status == 0, err
    assert "mean of 2 pairs" in out and "No words       blank row left out 7" in out


def test_an_empty_report_that_is_given_as_one_is_scored(tmp_path):
    status, out, err = score('{"reference": "Effusion.", "prediction": ""}\n', tmp_path, name="p.jsonl")
    assert status == 0, err
    assert "No words       empty prediction 1" in out


def test_an_age_that_cannot_be_read_is_told_and_absent(tmp_path):
    content = "reference,prediction,age\n" + "".join(
        f"Effusion.,Effusion.,{age}\n" for age in ("60-69", "70", "old", "")
    )
    status, _, err = score(content, tmp_path, "-o", "out.jsonl")
    assert status == 0
    assert err == "crimson: p.csv, column 'age': the age can't be read in rows 1, 3, and is taken as unknown.\n"
    status, _, err = score(content, tmp_path, "--strict")
    assert status == 2 and "rows 1, 3" in err and "--strict" in err


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    status, _, err = score("id,reference,prediction\n7,a,b\n8,a,b\n7,a,b\n", tmp_path)
    assert status == 2 and "p.csv row 3 has the id '7' of an earlier row" in err


def test_two_columns_that_could_be_meant_are_refused(tmp_path):
    status, _, err = score("Reference,REFERENCE,prediction\na,b,c\n", tmp_path)
    assert status == 2 and "'Reference' and 'REFERENCE' could both be 'reference'" in err


@pytest.mark.parametrize(
    "option", [["--separator", "::"], *(["--encoding", name] for name in ("klingon", "rot13", "zlib", "hex"))]
)
def test_separators_and_encodings_that_are_none(tmp_path, option):
    status, _, err = score(LINES, tmp_path, *option)
    assert status == 2 and option[0][2:] in err and option[1] in err
    status, _, err = score('{"reference": "a", "prediction": "b"}', tmp_path, *option, name="p.jsonl")
    assert status == 2 and "for CSV and TSV" in err


@pytest.mark.parametrize("content", [LINES, LINES.replace(",", ";"), '[{"reference": "a", "prediction": "b"}]', '{"reference": "a", "prediction": "b"}\n'])  # fmt: skip
def test_standard_input_and_output(tmp_path, content):
    done = crimson("score", "-", "-j", "offline", "-o", "-", cwd=tmp_path, stdin=content.encode())
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [line["index"] for line in lines] == list(range(len(lines))) and lines
    assert b"Research use only" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_ending_says_the_format(tmp_path):
    for ending, separator in ((".csv", ","), (".tsv", "\t")):
        assert score(LINES, tmp_path, "-o", f"out{ending}")[0] == 0
        rows = list(csv.DictReader(io.StringIO((tmp_path / f"out{ending}").read_text()), delimiter=separator))
        assert [row["crimson_score"] for row in rows] == ["1.0", "1.0"] and rows[0]["severity_errors"] == "0"
        assert rows[0]["signature"].startswith("crimson|judge:offline|")
        assert (tmp_path / f"out{ending}").stat().st_mode & 0o077 == 0
    assert score(LINES, tmp_path, "-o", "out.json")[0] == 0
    assert [pair["index"] for pair in json.loads((tmp_path / "out.json").read_text())] == [0, 1]
    status, _, err = score(LINES, tmp_path, "-o", "out.xlsx")
    assert status == 2 and "unknown ending" in err and ".parquet" in err
    assert not list(tmp_path.glob("*.partial"))


def test_help_is_h_too_for_every_command(tmp_path):
    for command in ([], ["score"], ["compare"], ["leaderboard"], ["store"], ["store", "prune"], ["metric"]):
        done = crimson(*command, "-h", cwd=tmp_path)
        assert done.returncode == 0 and b"Usage:" in done.stdout


def test_compare_reads_files_in_the_same_way(tmp_path):
    (tmp_path / "s.csv").write_text("Reference;a;b;age\nEffusion.;Effusion.;;60-69\nClear.;Clear.;Clear.;50\n;;;\n")
    options = ["s.csv", "--prediction-column", "a", "--prediction-column", "b", "-j", "offline"]
    done = crimson("compare", *options, cwd=tmp_path)
    assert done.returncode == 2 and b"blank" in done.stderr
    done = crimson("compare", *options, "--fill-missing", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for told in (b"separator ';' found", b"'Reference' taken for 'reference'", b"the age can't be read in row 1,"):
        assert done.stderr.count(told) == 1, done.stderr
    assert crimson("compare", *options, "--fill-missing", "--strict", cwd=tmp_path).returncode == 2


def test_a_separator_that_is_given_is_nothing_to_tell(tmp_path):
    status, _, err = score("reference;prediction\nClear.;Clear.\n", tmp_path, "--strict", "--separator", ";")
    assert status == 0 and "separator" not in err


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_a_key_that_stands_twice_is_refused(tmp_path, name):
    row = '{"reference": "Small left effusion.", "reference": "Clear.", "prediction": "Clear."}'
    status, _, err = score(row if name == "p.jsonl" else f"[{row}]", tmp_path, name=name)
    assert status == 2 and "has a key twice" in err and "effusion" not in err
