"""The offline judge in several processes: the same as in one, and nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from unruly import UnrulyJudge

from crimson_core import CrimsonScorer, InputError, JudgeError, ReportPair, Store
from crimson_core.run import scorer as scorers
from crimson_core.run.processes import in_processes


def pairs(n, said="Nodule of {} mm."):
    return [ReportPair(f"Nodule of {i} mm.", said.format(i % 9), None, str(i)) for i in range(n)]


others: set[int] = set()  # processes of other tests


@pytest.fixture(autouse=True)
def _others():
    others.clear()
    others.update(children())


def children():
    return [process.pid for process in psutil.Process().children(recursive=True) if process.pid not in others]


def test_two_processes_give_what_one_gives_in_the_same_order(tmp_path):
    asked = pairs(1_100)
    expected = CrimsonScorer("offline", workers=1).score(asked)
    scorer = CrimsonScorer("offline", workers=2)
    assert scorer.score(asked) == expected
    assert [result.index for result in scorer.stream(iter(asked))] == list(range(1_100))
    assert scorer.signature == CrimsonScorer("offline").signature
    assert children() == []
    stored = CrimsonScorer("offline", workers=2, store=tmp_path / "s.sqlite")
    assert stored.score(asked) == expected
    with Store(tmp_path / "s.sqlite") as store:
        assert store.verify() == (1_100, [], [])
    assert all(result.from_store for result in stored.score(asked))
    assert stored.signature == scorer.signature


def test_the_same_pair_in_two_processes_is_kept_once(tmp_path):
    asked = [ReportPair("Large effusion.", "Small effusion.")] * 1_000
    results = CrimsonScorer("offline", workers=2, store=tmp_path / "s.sqlite").score(asked)
    assert {result.crimson_score for result in results} == {results[0].crimson_score}
    with Store(tmp_path / "s.sqlite") as store:
        assert store.verify().judgements == 1


def test_a_pair_that_breaks_the_judge_is_that_pairs_failure():
    asked = pairs(600)
    asked[300] = ReportPair("Nodule.", "break off")
    results = CrimsonScorer(UnrulyJudge(), workers=2).score(asked)
    assert {result.index: result.failure for result in results if result.failure} == {
        300: "the judge broke on this pair (ValueError)"
    }
    assert results == CrimsonScorer(UnrulyJudge(), workers=1).score(asked)


@pytest.mark.parametrize(("word", "said"), [("refuse", "Try another one"), ("die", "exit status -9")])
def test_what_ends_a_process_is_told_and_ends_the_others(word, said):
    asked = pairs(2_000)
    asked[300] = ReportPair("Nodule.", word)
    with pytest.raises(JudgeError, match=said):
        CrimsonScorer(UnrulyJudge(), workers=2).score(asked)
    assert children() == []


def test_stopping_early_ends_the_processes():
    stream = CrimsonScorer("offline", workers=2).stream(pairs(100_000))
    next(stream)
    assert len(children()) == 2
    stream.close()
    assert children() == []


def test_pairs_are_taken_as_they_are_needed():
    taken = []
    stream = CrimsonScorer("offline", workers=2).stream(taken.append(1) or pair for pair in pairs(20_000))
    next(stream)
    assert len(taken) < 10_000
    stream.close()


def test_many_pairs_start_processes_by_themselves(monkeypatch):
    monkeypatch.setattr(scorers, "_MANY", 500)
    monkeypatch.setattr(scorers, "cores", lambda: 2)

    def at_work(n, **options):
        stream = CrimsonScorer("offline", **options).stream(pairs(n))
        next(stream)
        found = len(children())
        stream.close()
        return found

    assert at_work(499) == 0
    assert at_work(2_000) == 2
    assert at_work(2_000, workers=1) == 0


@pytest.mark.parametrize(("judge", "workers"), [("offline", 0), ("offline", "2"), ("openai:m", 2)])
def test_impossible_workers(judge, workers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(InputError, match="workers"):
        CrimsonScorer(judge, workers=workers)


def test_work_that_breaks_is_an_error_without_its_text():
    with pytest.raises(JudgeError, match="ValueError") as told:
        list(in_processes(int, ["secret"], 1))
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(tmp_path, stop):
    file = tmp_path / "pairs.csv"
    rows = (f"Nodule of {n} mm.,Nodule of {n % 9} mm.\n" for n in range(100_000))
    file.write_text("reference,prediction\n" + "".join(rows))
    command = [sys.executable, "-m", "crimson_core.cli", "score", str(file), "-j", "offline", "--no-store"]
    run = subprocess.Popen(
        [*command, "--workers", "2", "--progress"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a test run in the background ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(at_work := psutil.Process(run.pid).children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(at_work) == 2
    if sys.platform == "linux":  # copies, also beside a progress bar
        assert all("score" in process.cmdline() for process in at_work)
    time.sleep(1)  # in the midst of it
    os.killpg(run.pid, stop) if stop == signal.SIGINT else run.send_signal(stop)
    out, err = run.communicate(timeout=30)
    psutil.wait_procs(at_work, timeout=10)
    assert not [process for process in at_work if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert "Traceback" not in err and "Error" not in err
    if stop == signal.SIGINT:
        assert run.returncode == 130
        assert "Interrupted: " in err and "Signature" in out


def test_the_command_writes_the_same_in_one_process_and_in_two(tmp_path):
    file = tmp_path / "pairs.csv"
    rows = (f"Nodule of {n} mm.,Nodule of {n % 9} mm.\n" for n in range(1_100))
    file.write_text("reference,prediction\n" + "".join(rows))
    written = []
    for workers in "1", "2":
        output, store = tmp_path / f"{workers}.jsonl", tmp_path / f"{workers}.sqlite"
        command = [sys.executable, "-m", "crimson_core.cli", "score", file, "-j", "offline", "-o", output]
        subprocess.run([*command, "--workers", workers, "--store", store], check=True, capture_output=True)
        written.append(output.read_text())
        with Store(store) as kept:
            assert kept.verify() == (1_100, [], [])
        assert not store.with_name(f"{store.name}-wal").exists()
    assert written[0] == written[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_loses_at_most_a_second_of_judging(tmp_path, workers):
    log, store, count = tmp_path / "log", tmp_path / "s.sqlite", 1_500
    arguments = [sys.executable, "-c", "import unruly; unruly.run()", log, store, workers, count]
    command, folders = list(map(str, arguments)), [Path(__file__).parent, Path(__file__).parents[2]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}

    def judged():
        lines = log.read_text().splitlines() if log.exists() else []
        return [(name, float(when)) for name, when in map(str.split, lines)]

    lost = []
    for more in (150, 400):
        run = subprocess.Popen(command, env=environment)
        before, deadline = len(judged()), time.monotonic() + 60
        while len(judged()) < before + more and time.monotonic() < deadline:
            time.sleep(0.01)
        at_work = psutil.Process(run.pid).children()
        run.kill()
        killed = time.time()
        run.wait()
        psutil.wait_procs(at_work, timeout=10)  # they end with what they have in hand
        with Store(store) as kept:
            there = {entry["reference"] for entry in kept.entries()}
        gone = [when for name, when in judged() if f"Nodule of {name} mm." not in there]
        assert all(killed - when < 1 for when in gone)
        lost += gone
    subprocess.run(command, env=environment, check=True)
    with Store(store) as kept:
        assert kept.verify() == (count, [], [])
    assert len(judged()) == count + len(lost), "nothing else was judged twice"
