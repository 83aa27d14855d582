"""`crimson store`: export, stats, verify, prune; and what a store that is damaged says."""

import io
import json
import os
import sqlite3
import stat
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyarrow.parquet
import pytest
from counting import PAIRS, CountingJudge

from crimson_core import (
    CrimsonScorer,
    Store,
    StoreError,
    cli,
)
from crimson_core.run.store import Selection, judgement_key


@pytest.fixture
def csv(tmp_path):
    lines = [f"{n},Nodule of {n} mm.,Nodule of {n} mm." for n in range(300)]
    (tmp_path / "p.csv").write_text("\n".join(["id,reference,prediction", *lines]))
    return tmp_path / "p.csv"


def crimson(*arguments, **environment):
    """The command line in this process, which is faster; tests/cli/test_cli.py runs it as one."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["crimson", *map(str, arguments)])
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            cli.main()
            sys.exit(0)
    return SimpleNamespace(returncode=end.value.code or 0, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture
def path(tmp_path):
    """A store with three judgements of each of two judges; one failed."""
    path = tmp_path / "s"
    CrimsonScorer(CountingJudge("one", fails="b"), store=path).score(PAIRS)
    CrimsonScorer(CountingJudge("one+two"), store=path).score(PAIRS)
    return path


def test_export_writes_all_that_is_known(tmp_path, path):
    done = crimson("store", "export", tmp_path / "all.jsonl", CRIMSON_STORE=str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 judgements written to ") and "report text" in done.stdout
    assert stat.S_IMODE((tmp_path / "all.jsonl").stat().st_mode) == 0o600
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().split("\n")[:-1]]
    first, failed = lines[0], lines[1]
    pair = PAIRS[2]
    assert (first["reference"], first["candidate"]) == (pair.reference, pair.candidate)
    assert first["context"] == [["sex", "F"], ["indication", "dyspnoea"]]
    assert first["key"] == judgement_key({"judge": "one", "temperature": "0"}, pair).hex()
    assert first["evaluation"] == CrimsonScorer("offline", repair=False).score([pair])[0].evaluation
    assert (first["repairs"], first["raw_output"], first["cost"]) == (["mended"], "{…}", 0.25)
    assert first["usage"] == {"prompt_tokens": 10, "completion_tokens": 3}
    assert first["asked"] == first["answered"] == {"judge": "one", "temperature": "0"}
    assert datetime.now(UTC) - datetime.fromisoformat(first["judged_at"]) < timedelta(minutes=5)
    assert first["seconds"] >= 0 and first["crimson_core"]
    assert (failed["evaluation"], failed["failure"]) == (None, "no answer")


def test_export_to_parquet_and_filters(tmp_path, path):
    done = crimson(
        *("store", "export", tmp_path / "some.parquet", "--store", path),
        *("--signature", "judge:one", "--no-failures"),
    )
    assert done.returncode == 0, done.stderr
    rows = pyarrow.parquet.read_table(tmp_path / "some.parquet").to_pylist()
    assert [row["reference"] for row in rows] == [PAIRS[2].reference, PAIRS[0].reference]
    assert json.loads(rows[0]["evaluation"])["reference_findings"]
    assert {json.loads(row["answered"])["judge"] for row in rows} == {"one"}  # not "one+two"
    done = crimson("store", "export", tmp_path / "x.csv", "--store", path)
    assert done.returncode == 2 and ".jsonl or .parquet" in done.stderr
    done = crimson("store", "export", tmp_path / "no" / "x.jsonl", "--store", path)
    assert done.returncode == 2 and "cannot be written: No such file" in done.stderr


def test_stats_counts_per_judge(path):
    done = crimson("store", "stats", "--store", path)
    assert done.returncode == 0, done.stderr
    assert "judge:one|temperature:0|crimson_core:" in done.stdout
    assert "3, of them 1 failures" in done.stdout and "3, of them 0 failures" in done.stdout
    assert "25 in prompts, 6 in answers" in done.stdout and "30 in prompts, 9 in answers" in done.stdout
    assert "0.5000 US dollars" in done.stdout and "0.7500 US dollars" in done.stdout
    assert "6 judgements, 0." in done.stdout and str(path) in done.stdout


@pytest.mark.parametrize("none", [["--no-store"], ["--store", "off"]])
def test_a_run_without_a_store_makes_none_and_has_no_failures_to_retry(tmp_path, csv, monkeypatch, none):
    monkeypatch.chdir(tmp_path)
    command = ("score", csv, "-j", "offline", "--no-progress", "--limit", "1", *none)
    done = crimson(*command)
    assert done.returncode == 0 and "Store" not in done.stdout
    done = crimson(*command, "--retry-failures")
    assert done.returncode == 2 and "--retry-failures needs the store" in done.stderr
    assert list(tmp_path.iterdir()) == [csv]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_results_are_the_users_own_unless_they_replace_what_was_not(tmp_path, csv, monkeypatch, name):
    output, modes = tmp_path / name, set()
    replace_file = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (modes.add(stat.S_IMODE(os.stat(a).st_mode)), replace_file(a, b)))
    command = ("score", csv, "-j", "offline", "--no-progress", "--limit", "3", "-o", output, "--store", tmp_path / "s")
    assert crimson(*command).returncode == 0
    assert modes == {0o600} == {stat.S_IMODE(output.stat().st_mode)}
    output.chmod(0o644)
    assert crimson(*command).returncode == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "command", [["store", "stats"], ["score", "p.csv", "-j", "offline", "--no-progress"], ["--help"]]
)
def test_a_reader_that_has_seen_enough_is_exit_status_141_without_a_word(tmp_path, csv, path, monkeypatch, command):
    """As `crimson … | head -1` is; the status is that of a program that SIGPIPE ends. Typer and rich would exit with 1, Python with 120."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRIMSON_STORE", str(path))
    monkeypatch.setattr(sys, "argv", ["crimson", *command])
    reader, writer = os.pipe()
    os.close(reader)
    err = io.StringIO()
    with os.fdopen(writer, "w") as out, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, err.getvalue()) == (141, "")


def test_commands_about_a_store_make_none(tmp_path):
    for command in (["stats"], ["verify"], ["export", tmp_path / "x.jsonl"], ["prune", "--failures"]):
        done = crimson("store", *command, "--store", tmp_path / "none")
        assert done.returncode == 2 and "There is no store" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "The store is off" in crimson("store", "stats", CRIMSON_STORE="off").stderr
    assert "The store is off" in crimson("store", "stats", "--store", "off").stderr


@pytest.mark.parametrize(
    "damage",
    [
        "candidate = candidate || ' '",
        "context = '[]'",
        "evaluation = '{}'",
        "evaluation = substr(evaluation, 9)",
        "key = zeroblob(32)",
        "usage = ''",
        "judge = 77",
        "evaluation = NULL, failure = NULL",
    ],
)
def test_verify_finds_what_is_damaged_and_prune_takes_it_out(path, damage):
    assert crimson("store", "verify", "--store", path).stdout.startswith("6 judgements checked, 0 damaged")
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE judgement SET {damage} WHERE rowid = 1")
    done = crimson("store", "verify", "--store", path)
    assert done.returncode == 3
    assert done.stdout.startswith("Damaged: ") and "6 judgements checked, 1 damaged" in done.stdout
    assert "1 judgements deleted" in crimson("store", "prune", "--damaged", "--store", path).stdout
    assert crimson("store", "verify", "--store", path).returncode == 0
    assert CrimsonScorer(CountingJudge("one"), store=path).score(PAIRS)[2].score


def test_a_judgement_that_cannot_be_read_is_an_error_without_report_text(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE judgement SET evaluation = replace(evaluation, '\"R1\"', 'secret') WHERE rowid = 1")
    with pytest.raises(StoreError, match="cannot be read.*prune --damaged") as caught:
        CrimsonScorer(CountingJudge("one"), store=path).score(PAIRS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("damage", ["judgement SET judge = 77", "judgement SET evaluation = NULL, failure = NULL"])
def test_a_row_that_is_no_judgement_is_an_error_that_names_the_remedy(path, damage):
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE {damage} WHERE rowid = 1")
    with pytest.raises(StoreError, match="holds a judgement .*cannot be read.*store verify.*prune --damaged"):
        CrimsonScorer(CountingJudge("one"), store=path).score(PAIRS)
    done = crimson("store", "export", path.with_name("x.jsonl"), "--store", path)
    assert done.returncode == 2 and "holds a judgement" in done.stderr


@pytest.mark.parametrize(
    "damage",
    [
        "judge SET answered = '{bad'",
        "judge SET answered = '[]'",
        "judgement SET judge = 77",
        "judgement SET usage = '{'",
    ],
)
def test_what_stats_cannot_read_is_damage(tmp_path, path, damage):
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE {damage} WHERE rowid = 1")
    done = crimson("store", "stats", "--store", path)
    assert done.returncode == 2 and "prune --damaged" in done.stderr
    with Store(path) as store:
        n_damaged = len(store.verify().damaged)
    assert n_damaged == (3 if "answered" in damage else 1)
    assert f"{n_damaged} judgements deleted" in crimson("store", "prune", "--damaged", "--store", path).stdout
    assert crimson("store", "stats", "--store", path).returncode == 0
    assert (
        crimson("store", "export", tmp_path / "x.jsonl", "--store", path, "--signature", "judge:one+two").returncode
        == 0
    )


def test_verify_says_that_a_file_was_cut(path):
    for end in (path.stat().st_size // 2, 50):
        os.truncate(path, end)
        done = crimson("store", "verify", "--store", path)
        assert (done.returncode, done.stderr) == (3, "")
        assert "is damaged: database disk image is malformed. Move it away" in done.stdout


@pytest.mark.parametrize("column", ["reference", "candidate", "evaluation", "repairs", "raw_output", "usage"])
def test_bytes_that_are_no_text_are_damage_and_not_quoted(path, column):
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE judgement SET {column} = CAST(x'ff' || 'secret' || {column} AS TEXT) WHERE rowid = 1")
    assert "6 judgements checked, 1 damaged" in crimson("store", "verify", "--store", path).stdout
    done = crimson("store", "export", path.with_name("x.jsonl"), "--store", path)
    assert done.returncode == 2 and "holds a judgement" in done.stderr and "secret" not in done.stderr
    if column not in ("reference", "candidate"):  # which only their key stands for where judgements are read
        with pytest.raises(StoreError, match="holds a judgement.*prune --damaged") as caught:
            CrimsonScorer(CountingJudge("one"), store=path).score(PAIRS)
        assert "secret" not in str(caught.value)


def test_verify_finds_a_damaged_file(path):
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 4] = os.urandom(4096)
    path.write_bytes(content)
    done = crimson("store", "verify", "--store", path)
    assert (done.returncode, done.stderr) == (3, "")
    assert "is damaged" in done.stdout


def test_damage_that_sqlite_quotes_in_bytes_that_are_no_text_is_told(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes().replace(b"asked TEXT NOT NULL", b"asked TEXT NOT N\xd7LL", 1))
    done = crimson("store", "stats", "--store", path)
    assert done.returncode == 2 and "is damaged" in done.stderr and "Traceback" not in done.stderr


def test_prune_deletes_what_is_meant_and_its_text(path):
    def prune(*options):
        done = crimson("store", "prune", "--store", path, *options)
        assert done.returncode == 0, done.stderr
        with Store(path) as store:
            return int(done.stdout.split()[0]), store.verify().judgements

    nothing = crimson("store", "prune", "--store", path)
    assert nothing.returncode == 2 and "no selection is given" in nothing.stderr
    assert prune("--failures", "--dry-run") == (1, 6)
    assert prune("--failures") == (1, 5)
    assert prune("--older-than", "1") == (0, 5)
    assert prune("--signature", "judge:none") == (0, 5)
    assert prune("--signature", "crimson|judge:one|temperature:0|repair:yes") == (2, 3)
    text = PAIRS[0].candidate.encode()
    assert text in path.read_bytes()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE judgement SET judged_at = '2020-01-31T12:00:00+00:00'")
    assert prune("--older-than", "1000", "--no-failures") == (3, 0)
    assert text not in b"".join(p.read_bytes() for p in path.parent.iterdir())


@pytest.mark.parametrize("signature", ["crimson|repair:no", "crimson", "repair:no", "", "|"])
def test_a_signature_without_a_judge_is_refused_rather_than_meaning_every_judge(tmp_path, path, signature):
    output = tmp_path / "x.jsonl"
    for command in (["prune"], ["prune", "--dry-run"], ["export", output]):
        done = crimson("store", *command, "--store", path, "--signature", signature)
        assert done.returncode == 2 and "names no field of a judge" in done.stderr
    assert not output.exists()
    with Store(path) as store:
        assert store.verify().judgements == 6


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_an_export_of_nothing_leaves_the_file_that_is_there(tmp_path, path, name):
    output = tmp_path / name
    output.write_text("precious")
    done = crimson("store", "export", output, "--store", path, "--signature", "judge:none")
    assert done.returncode == 2 and "has no such judgements" in done.stderr and "store stats" in done.stderr
    assert output.read_text() == "precious"
    assert not output.with_name(name + ".partial").exists()


def test_prune_bounds_its_days(path):
    done = crimson("store", "prune", "--older-than", "999999", "--dry-run", "--store", path)
    assert done.returncode == 2 and "older-than" in done.stderr
    done = crimson("store", "prune", "--older-than", "36500", "--dry-run", "--store", path)
    assert done.stdout.startswith("0 judgements")


def test_selections_are_joined_by_and(path):
    with Store(path) as store:
        assert len(list(store.entries(Selection("judge:one", failures=True)))) == 1
        assert len(list(store.entries(Selection("judge:one+two", failures=True)))) == 0
        assert len(list(store.entries(Selection(before=datetime.now(UTC) + timedelta(days=1))))) == 6
        assert len(list(store.entries(Selection(keys=frozenset())))) == 0
