"""The command line, as a process."""

import csv
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "reports.csv"
ROWS = [
    {"id": "a", "reference": "Small left effusion.", "prediction": "Left effusion, small.", "age": "072Y"},
    {"id": "b", "reference": 'Large, "tension" pneumothorax.', "prediction": "", "age": ""},
]


def crimson(*arguments, cwd=None):
    command = [sys.executable, "-m", "crimson_core.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


FULL = [ROWS[0], ROWS[1] | {"prediction": "Clear lungs."}]


def write(path, rows=None):
    if rows is None:
        rows = FULL if path.suffix == ".csv" else ROWS
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def many(count):
    """Rows like `ROWS`, each with an id of its own."""
    return [row | {"id": f"{number}{row['id']}"} for number in range(count) for row in ROWS]


def test_the_examples_cover_every_error_kind(tmp_path):
    done = crimson("score", EXAMPLES, "--judge", "offline", "-o", tmp_path / "out.jsonl", "--progress")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(EXAMPLES.open()))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert all(any(line["error_counts"][kind] for line in lines) for kind in lines[0]["error_counts"])
    assert len(rows) >= 12
    assert all(row["age"] and row["sex"] and row["indication"] for row in rows)
    for words in (
        "CRIMSON score",
        "Unscored       0",
        "age, sex, indication",
        "crimson|judge:offline|",
        "Research use only",
    ):
        assert words in done.stdout
    assert f"{len(rows)}/{len(rows)}" in done.stderr  # the progress bar
    for row in rows:
        assert row["reference"] not in done.stdout + done.stderr


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same(tmp_path, ending):
    filled = ["--fill-missing"] * (ending in (".csv", ".tsv"))  # which do not tell an empty report from a missing one
    done = crimson("score", write(tmp_path / f"pairs{ending}", ROWS), "-j", "offline", "-o", tmp_path / "out", *filled)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert (first["crimson_score"], second["crimson_score"]) == (1.0, 0.0)
    assert second["raw_evaluation"]["predicted_findings"] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", f"pairs{ending}"]


def test_columns_are_options(tmp_path):
    path = write(tmp_path / "p.csv", [{"study": "s1", "gt": "Tortuous aorta.", "model": "No.", "years": "82"}])
    names = [
        "--reference-column",
        "gt",
        "--prediction-column",
        "model",
        "--age-column",
        "years",
        "--id-column",
        "study",
    ]
    done = crimson("score", path, "-j", "offline", "-o", tmp_path / "out", *names)
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert line["id"] == "s1"
    assert line["raw_evaluation"]["reference_findings"][0]["clinical_significance"] == "benign_expected"
    assert "Context        years" in done.stdout


def test_a_file_may_start_with_a_byte_order_mark(tmp_path):
    path = write(tmp_path / "p.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert crimson("score", path, "-j", "offline").returncode == 0


def bad(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path.name


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("none.csv", None, [], ["none.csv is not a file"]),
        ("p.xlsx", "x", [], ["unknown ending", ".parquet"]),
        ("p.csv", "", [], ["no rows"]),
        ("p.csv", "reference,prediction\n", [], ["no rows"]),
        ("p.csv", "reference,text\na,b\n", [], ["no column 'prediction'", "'text'", "--prediction-column"]),
        ("p.csv", "reference,prediction\na,b\n", ["--age-column", "years"], ["no column 'years'", "--age-column"]),
        ("p.csv", "reference,prediction\na,b,c\n", [], ["row 1", "cells"]),
        ("p.csv", "reference,prediction\na\n", [], ["row 1", "cells"]),
        ("p.csv", "reference,prediction,age\na,b,60\na,b,60-69\n", ["--strict"], ["row 2", "'age'", "can't be read"]),
        ("p.csv", b"reference,prediction\n\x81,b\n", [], ["UTF-8"]),
        ("p.csv", b"reference,prediction\n\xff\x00,b\n", [], ["utf-8", "encoding"]),
        ("p.json", b'[{"reference": "\xe9", "prediction": "b"}]', [], ["p.json is not UTF-8 text (byte 16)"]),
        ("p.jsonl", b'{"reference": "\xe9"}\n', [], ["p.jsonl is not UTF-8 text (byte 15)"]),
        ("p.json", '[{"reference": "a", "prediction": "b"}, 3]', [], ["p.json row 2 is not an object"]),
        ("p.jsonl", '{"reference": "a", "prediction": "b"}\n{', [], ["line 2", "JSON"]),
        ("p.jsonl", '{"reference": "a", "prediction": "b"}\n[]', [], ["row 2", "object"]),
        ("p.jsonl", '{"reference": "a", "prediction": "b"}\n{"reference": "a"}', [], ["row 2", "'prediction'"]),
        ("p.jsonl", '{"reference": "a", "prediction": null}', [], ["row 1", "'prediction'", "missing"]),
        ("p.jsonl", '{"reference": 5, "prediction": "a"}', [], ["row 1", "'reference'", "int"]),
        ("p.json", '{"reference": "a"}', [], ["list of objects"]),
        ("p.json", "[", [], ["not JSON"]),
        ("p.parquet", "x", [], ["not a Parquet file"]),
        ("p.csv", "reference,prediction\na,b\n", ["-j", "nope"], ["judge 'nope' is unknown"]),
        ("p.csv", "reference,prediction\na,b\n", ["--batch-size", "3"], ["no option 'batch_size'"]),
        ("p.csv", "reference,prediction\na,b\n", ["-o", "no/such/out"], ["no/such/out cannot be written"]),
        ("p.csv", "reference,prediction\na,b\n", ["-o", "."], ["is not a regular file"]),
        ("p.csv", "reference,prediction\na,b\n", ["--limit", "0"], ["limit"]),
        ("p.csv", "reference,prediction\na,b\n", ["-o", "p.csv"], ["p.csv", "would be overwritten"]),
        ("p.csv", "reference,prediction\na,b\n", ["-o", "/dev/stdout"], ["not a regular file"]),
        ("p.csv", "reference,prediction,prediction\na,b,c\n", [], ["two columns 'prediction'"]),
        ("p.csv", 'reference,prediction\n"a"x,b\n', [], ["quotation marks"]),
        ("p.json", "[" * 100_000, [], ["cannot be read", "nested too deeply"]),
        ("p.jsonl", '{"reference": "a", "prediction": "b", "age": ' + "9" * 5000 + "}", [], ["cannot be read"]),
        ("p.jsonl", '{"reference": "a", "prediction": "b", "age": ' + "9" * 400 + "}", ["--strict"], ["row 1", "'age'"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message_and_status_2(tmp_path, name, content, options, said):
    if content is not None:
        bad(tmp_path / name, content)
    before = sorted(tmp_path.iterdir())
    judge = [] if "-j" in options else ["-j", "offline"]
    done = crimson("score", name, *judge, *options, cwd=tmp_path)
    assert done.returncode == 2
    for words in said:
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written


def test_an_interrupted_run_keeps_what_is_done(tmp_path):
    path = write(tmp_path / "p.jsonl", many(100_000))
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "crimson_core.cli", "score", str(path), "-j", "offline", "-o", str(out)]
    process = subprocess.Popen(
        [*command, "--no-store"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    partial = tmp_path / "out.jsonl.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 10_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    assert partial.name in err
    assert not out.exists()
    lines = partial.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    assert f"{len(lines)} of 200000" in err


def test_an_output_is_not_named_like_one_that_is_not_complete(tmp_path):
    output = tmp_path / "out.csv.partial.jsonl"
    done = crimson("score", write(tmp_path / "p.csv"), "-j", "offline", "-o", output)
    assert done.returncode == 2 and "partial.jsonl has the name of a run that is not complete" in done.stderr
    assert not output.exists()


def test_results_of_an_interrupted_run_are_not_overwritten(tmp_path):
    (tmp_path / "out.partial").write_text("precious")
    command = ["score", write(tmp_path / "p.csv"), "-j", "offline", "-o", tmp_path / "out"]
    done = crimson(*command, "--no-store")
    assert done.returncode == 2 and "out.partial contains" in done.stderr
    assert not (tmp_path / "out").exists()
    assert crimson(*command, "--store", tmp_path / "s").returncode == 0  # which writes no such file
    assert (tmp_path / "out").exists() and (tmp_path / "out.partial").read_text() == "precious"


def run_until(condition, command, stop):
    """Start a command, send it a signal once the condition holds, and return its exit status and standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "crimson_core.cli", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def holds_more_than(judgements, store):
    """A condition: the store has more judgements than that."""

    def holds():
        try:
            with closing(sqlite3.connect(store.as_uri() + "?mode=ro", uri=True)) as db:
                return db.execute("SELECT count(*) FROM judgement").fetchone()[0] > judgements
        except sqlite3.OperationalError:  # it is not there yet
            return False

    return holds


def evaluations(path):
    return [json.loads(line)["raw_evaluation"] for line in path.read_text().splitlines()]


def test_a_run_that_was_killed_goes_on_with_the_same_command(tmp_path):
    rows = [
        {"reference": f"Nodule of {n} mm.", "prediction": f"Nodule of {n % 9} mm on the left."} for n in range(3000)
    ]
    path, out, store = write(tmp_path / "p.csv", rows), tmp_path / "out", tmp_path / "s.sqlite"
    command = ["score", path, "-j", "offline", "-o", out, "--store", store]
    for judgements, stop, status in ((0, signal.SIGKILL, -9), (600, signal.SIGINT, 130), (1_100, signal.SIGKILL, -9)):
        ended, err = run_until(holds_more_than(judgements, store), command, stop)
        assert ended == status, err
        if stop == signal.SIGINT:
            assert "What was judged is in the store: run the same command again to go on." in err
        assert {p.name for p in tmp_path.iterdir()} <= {"p.csv", "s.sqlite", "s.sqlite-wal", "s.sqlite-shm"}
    done = crimson(*command, "--progress")
    assert done.returncode == 0, done.stderr
    assert "Store          read " in done.stdout and "Store          read 0" not in done.stdout
    assert "read from the store" in done.stderr  # the progress bar
    assert crimson("score", path, "-j", "offline", "-o", tmp_path / "undisturbed", "--no-store").returncode == 0
    assert evaluations(out) == evaluations(tmp_path / "undisturbed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "p.csv", "s.sqlite", "undisturbed"]


def test_where_judgements_are_kept(tmp_path, monkeypatch):
    path = write(tmp_path / "p.csv")
    monkeypatch.setenv("CRIMSON_STORE", str(tmp_path / "by-variable"))
    assert "Store          read 0, judged 2: " in crimson("score", path, "-j", "offline").stdout
    assert "Store          read 2, judged 0: " in crimson("score", path, "-j", "offline").stdout
    assert (tmp_path / "by-variable").exists()
    done = crimson("score", path, "-j", "offline", "--store", tmp_path / "x", "--no-store")
    assert done.returncode == 2 and "--store and --no-store" in done.stderr
    assert "Store" not in crimson("score", path, "-j", "offline", "--no-store").stdout
    monkeypatch.setenv("CRIMSON_STORE", "off")
    assert "Store" not in crimson("score", path, "-j", "offline").stdout
    monkeypatch.delenv("CRIMSON_STORE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(Path("~", ".cache", "crimson", "judgements.sqlite")) in crimson("score", path, "-j", "offline").stdout
    done = crimson("score", path, "-j", "offline", "--store", "/proc/none/x")
    assert done.returncode == 2 and done.stdout == "" and "cannot be created" in done.stderr
    done = crimson("score", path, "-j", "offline", "--store", tmp_path / "x", "-o", tmp_path / "x")
    assert done.returncode == 2 and "is the store, which would be overwritten" in done.stderr


def test_a_link_to_an_output_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert crimson("score", write(tmp_path / "p.csv"), "-j", "offline", "-o", tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "target").read_text().splitlines()) == 2


def test_a_full_disk_is_one_line_and_keeps_what_was_written(tmp_path):
    path = write(tmp_path / "p.jsonl", many(50))
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); import crimson_core.cli as c; c.main()"
    command = [sys.executable, "-c", limited, "score", str(path), "-j", "offline", "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--no-store"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be written: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out.partial").stat().st_size > 1000
    assert not (tmp_path / "out").exists()


def test_a_column_that_only_later_rows_have_is_used(tmp_path):
    rows = [{"reference": "a", "prediction": "b"}, {"reference": "a", "prediction": "b", "id": "s2", "age": 50}]
    done = crimson("score", write(tmp_path / "p.jsonl", rows), "-j", "offline", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Context        age" in done.stdout
    assert [json.loads(line)["id"] for line in (tmp_path / "out").read_text().splitlines()] == [None, "s2"]


def test_a_nameless_index_column_is_no_harm(tmp_path):
    (tmp_path / "p.csv").write_text(",reference,prediction\n0,a,b\n")
    assert crimson("score", tmp_path / "p.csv", "-j", "offline").returncode == 0


def test_a_long_table_is_cut_and_says_so(tmp_path):
    done = crimson("score", write(tmp_path / "p.jsonl", many(40)), "-j", "offline")
    assert "30 more pairs" in done.stdout
    assert len(done.stdout.splitlines()) < 70


def test_ids_are_text_and_not_markup(tmp_path):
    path = write(tmp_path / "p.csv", [{"id": "[bold]x[/]:smile:\x1b[31m", "reference": "a", "prediction": "b"}])
    printed = crimson("score", path, "-j", "offline").stdout
    assert "[bold]x[/]:smile:" in printed
    assert "\x1b" not in printed


def test_help_and_version():
    done = crimson("score", "--help")
    for option in ("--judge", "--reference-column", "--output", "--batch-size", "--no-repair"):
        assert option in done.stdout
    assert crimson("--version").stdout.startswith("crimson-metric ")
    assert crimson("score").returncode == 2


def test_unscored_pairs_give_status_3(tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from crimson_core import Judgement
    from crimson_core.cli.app import app
    from crimson_core.run import scorer

    class Mute:
        def judge(self, pairs):
            yield from ((i, Judgement(failure="mute today")) for i in range(len(pairs)))

        def signature(self):
            return {"judge": "mute"}

    monkeypatch.setattr(scorer, "load_judge", lambda spec, **_: Mute())
    done = CliRunner().invoke(app, ["score", str(write(tmp_path / "p.csv"))])
    assert done.exit_code == 3
    assert "unscored: mute today" in done.stdout
    assert "nan" in done.stdout
    done = CliRunner().invoke(app, ["score", str(write(tmp_path / "p.csv"))])
    assert done.exit_code == 3
    assert "read from the store)" in done.stdout
    assert "read 2 (2 of them unscored: --retry-failures judges these again), judged 0" in done.stdout
    done = CliRunner().invoke(app, ["score", str(write(tmp_path / "p.csv")), "--retry-failures"])
    assert "read 0, judged 2" in done.stdout
