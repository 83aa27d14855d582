"""Files that do not fit into the memory: read, scored and written some rows at a time."""

import csv
import json
import signal
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from crimson_core import InputError
from crimson_core.run.pairs import TablePairs
from crimson_core.run.tables import open_table

COLUMNS = {"reference": "reference", "prediction": "prediction", "id": "id"}
# The command line, which tells its peak memory last.
TOLD = """
import atexit, pathlib
from crimson_core.cli import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(status.read_text().partition("VmHWM:")[2].split()[0]))
main()
"""


def rows(count):
    for n in range(count):
        yield {
            "id": f"s{n}",
            "reference": "Small left effusion.",
            "prediction": f"Effusion {n % 7}.",
            "notes": f"{n} " * 800,
        }


def write(path, count):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(count))), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "reference", "prediction", "notes"])
            writer.writeheader()
            writer.writerows(rows(count))
    return path


def peak_mb(*arguments):
    command = [sys.executable, "-c", TOLD, "score", *map(str, arguments), "-j", "offline", "--no-store"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) / 1024


@pytest.mark.parametrize(("ending", "out"), [(".csv", ".parquet"), (".jsonl", ".csv"), (".parquet", ".json")])
def test_the_memory_does_not_grow_with_the_rows(tmp_path, ending, out):
    few, many = (write(tmp_path / f"{count}{ending}", count) for count in (2_000, 16_000))
    grown = peak_mb(many, "-o", tmp_path / f"many{out}") - peak_mb(few, "-o", tmp_path / f"few{out}")
    assert grown < 25  # what the rows hold is more than 50


def test_every_format_tells_the_same_of_every_row(tmp_path):
    file = write(tmp_path / "p.csv", 2_600)
    for ending in (".jsonl", ".json", ".csv", ".parquet"):
        peak_mb(file, "-o", tmp_path / f"out{ending}")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"s{n}" for n in range(2_600)]
    assert json.loads((tmp_path / "out.json").read_text()) == lines
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [json.loads(row["raw_evaluation"]) for row in table] == [line["raw_evaluation"] for line in lines]
    with (tmp_path / "out.csv").open() as file:
        assert [float(row["crimson_score"]) for row in csv.DictReader(file)] == [
            line["crimson_score"] for line in lines
        ]
    assert not list(tmp_path.glob("*.partial*"))


def test_what_is_wrong_with_late_rows_is_told_by_their_numbers(tmp_path):
    path = tmp_path / "p.jsonl"

    def told(**changes):
        table = [row | changes.get(f"row{number}", {}) for number, row in enumerate(rows(2_600), 1)]
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
        with pytest.raises(InputError) as refused:
            TablePairs(open_table(path), COLUMNS)
        return str(refused.value)

    assert "row 2500 has the id 's0' of an earlier row" in told(row2500={"id": "s0"})
    assert "the report is missing in rows 3, 2500." in told(row3={"prediction": None}, row2500={"prediction": "n/a"})
    assert "row 2500, column 'reference' is of type int" in told(row2500={"reference": 5})


@pytest.mark.parametrize("change", [lambda text: text + "s10,Clear.,Clear.,\n", lambda text: text.replace("s9", "s8")])
def test_a_file_that_changes_between_the_check_and_the_judging_is_refused(tmp_path, change):
    path = write(tmp_path / "p.csv", 10)
    pairs = TablePairs(open_table(path), COLUMNS)
    assert len(pairs) == len(list(pairs)) == 10
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match="was changed while it was read"):
        list(pairs)


def test_what_an_interrupted_run_leaves_of_another_format_says_that_it_is_json(tmp_path):
    file = write(tmp_path / "p.csv", 30_000)
    partial = tmp_path / "out.csv.partial.jsonl"
    command = [sys.executable, "-m", "crimson_core.cli", "score", file, "-j", "offline", "--no-store", "--workers", "1"]
    run = subprocess.Popen(
        [*map(str, command), "-o", str(tmp_path / "out.csv")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and partial.name in err and not (tmp_path / "out.csv").exists()
    lines = [json.loads(line)["index"] for line in partial.read_text().splitlines()]
    assert lines == list(range(len(lines))) and f"{len(lines)} of 30000" in err
    done = subprocess.run([*map(str, command), "-o", str(tmp_path / "out.csv")], capture_output=True, text=True)
    assert done.returncode == 2 and partial.name in done.stderr
