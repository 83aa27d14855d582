"""Judgements that are kept: what is read, what is judged, and what a kill, a full disk or a crowd does to them."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from counting import PAIRS, CountingJudge

from crimson_core import (
    CrimsonScorer,
    InputError,
    JudgeError,
    Judgement,
    ReportPair,
    Store,
    StoreError,
)
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.run.store import Selection, default_path, judgement_key, made_now

RUNS = Path(__file__).with_name("store_runs.py")


def shown(results):
    """What must not depend on whether a judgement was read or made."""
    return [replace(result, from_store=False) for result in results]


def test_a_second_run_reads_what_the_first_has_judged(tmp_path):
    path, judge = tmp_path / "s.sqlite", CountingJudge()
    first = CrimsonScorer(judge, store=path).score(PAIRS)
    assert judge.asked == ["c", "b", "a"]
    again, other = CrimsonScorer(CountingJudge(), store=str(path)), CrimsonScorer(CountingJudge())
    assert shown(again.score(PAIRS)) == first == other.score(PAIRS)
    assert again.judge.asked == []
    assert [r.from_store for r in first] == [False] * 3
    assert [r.from_store for r in again.score(PAIRS)] == [True] * 3
    assert again.score(PAIRS)[0].as_dict()["from_store"] is True
    assert again.signature == other.signature
    more = [ReportPair("", "Effusion.", id="d"), *PAIRS]
    assert [r.from_store for r in again.score(more)] == [False, True, True, True]
    assert again.judge.asked == ["d"]
    assert [r.id for r in again.score(more)] == ["d", "a", "b", "c"]
    with Store(path) as store:
        assert CrimsonScorer(CountingJudge(), store=store).score(PAIRS)[1].from_store


def test_a_store_of_the_first_version_is_read(tmp_path):
    path = tmp_path / "s.sqlite"
    with closing(sqlite3.connect(path)) as written:
        written.executescript(RUNS.with_name("store_v1.sql").read_text())
    scorer = CrimsonScorer(CountingJudge(), store=path)
    results = scorer.score(PAIRS)
    assert scorer.judge.asked == ["c"]  # which it does not hold
    assert shown(results)[:2] == CrimsonScorer(CountingJudge()).score(PAIRS)[:2]
    with Store(path) as store:
        assert store.verify() == (3, [], [])
        assert sorted(entry["candidate"] for entry in store.entries()) == sorted(pair.candidate for pair in PAIRS)


def test_whatever_decides_a_judgement_is_part_of_its_key():
    pair, asked = PAIRS[2], {"judge": "x", "revision": "1"}
    context = pair.context
    others = [
        judgement_key({"judge": "x", "revision": "2"}, pair),
        judgement_key({"judge": "x"}, pair),
        judgement_key(asked, replace(pair, reference=pair.candidate, candidate=pair.reference)),
        judgement_key(asked, replace(pair, candidate=pair.candidate + " ")),
        judgement_key(asked, replace(pair, context=None)),
        judgement_key(asked, replace(pair, context=replace(context, sex="M"))),
        judgement_key(asked, replace(pair, context=replace(context, keys=("indication", "sex")))),
        judgement_key(asked, replace(pair, context=replace(context, keys=("Sex", "indication")))),
    ]
    assert len({judgement_key(asked, pair), *others}) == 9
    assert judgement_key({"revision": "1", "judge": "x"}, replace(pair, id="other")) == judgement_key(asked, pair)


def test_the_repair_is_not_kept(tmp_path):
    contradictory = Evaluation.model_validate(
        {
            "reference_findings": [{"id": "R1", "finding": "x", "clinical_significance": "urgent"}],
            "errors": {"false_findings": [], "missing_findings": []},
        }
    )

    class Contradictory(CountingJudge):
        def judge(self, pairs):
            yield 0, Judgement(contradictory)

    for _ in range(2):
        (repaired,) = CrimsonScorer(Contradictory(), store=tmp_path / "s").score(PAIRS[:1])
        (plain,) = CrimsonScorer(CountingJudge(), store=tmp_path / "s", repair=False).score(PAIRS[:1])
        assert plain.from_store and not plain.repairs
        assert repaired.evaluation["errors"]["missing_findings"] == ["R1"]
        assert plain.evaluation["errors"]["missing_findings"] == []


def test_identical_pairs_are_judged_once(tmp_path):
    judge = CountingJudge(fails="b")
    pairs = [*PAIRS, *(replace(pair, id=pair.id * 2) for pair in PAIRS)]
    results = CrimsonScorer(judge, store=tmp_path / "s").score(pairs)
    assert judge.asked == ["c", "b", "a"]
    assert [r.id for r in results] == ["a", "b", "c", "aa", "bb", "cc"]
    assert [r.from_store for r in results] == [False] * 3 + [True] * 3
    assert [r.evaluation for r in results[:3]] == [r.evaluation for r in results[3:]]


def test_failures_are_kept_and_tried_again_only_when_asked(tmp_path):
    path = tmp_path / "s"
    assert CrimsonScorer(CountingJudge(fails="b"), store=path).score(PAIRS)[1].failure == "no answer"
    well = CountingJudge()
    read = CrimsonScorer(well, store=path).score(PAIRS)
    assert read[1].failure == f"no answer (on {datetime.now(UTC):%Y-%m-%d}, read from the store)"
    assert read[1].from_store and read[1].raw_output == "? {" and read[1].usage == {"prompt_tokens": 5}
    assert well.asked == []
    still = CrimsonScorer(CountingJudge(fails="b"), store=path, retry_failures=True).score(PAIRS)
    assert (still[1].failure, still[1].from_store, still[0].from_store) == ("no answer", False, True)
    assert CrimsonScorer(well, store=path, retry_failures=True).score(PAIRS)[1].score
    assert well.asked == ["b"]
    assert CrimsonScorer(CountingJudge(fails="b"), store=path).score(PAIRS)[1].score
    with pytest.raises(InputError, match="retry_failures is given without store"):
        CrimsonScorer("offline", retry_failures=True)
    with pytest.raises(InputError, match="store is of type bool"):
        CrimsonScorer("offline", store=True)


def test_what_failures_have_used_counts_when_they_are_tried_again(tmp_path):
    with Store(tmp_path / "store") as store:
        failed = Judgement(failure="no answer", usage={"prompt_tokens": 7, "completion_tokens": 0}, cost=0.5)
        judged = Judgement(Evaluation(), usage={"prompt_tokens": 5, "batch_prompt_tokens": 2}, cost=0.25)
        for pair, judgement in ((PAIRS[0], failed), (PAIRS[0], judged), (PAIRS[1], judged)):
            key, signature = judgement_key({"judge": "a"}, pair), {"judge": "a"}
            assert store.add(signature, [made_now(key, pair, judgement, signature, 1.0)]) == [True]
        assert store.usage() == {"prompt_tokens": 17, "completion_tokens": 0, "batch_prompt_tokens": 4}
        assert store.stats()[0].cost == 1.0


def test_what_stops_a_run_is_not_kept_and_loses_nothing(tmp_path):
    class Broken(CountingJudge):
        def judge(self, pairs):
            yield from list(super().judge(pairs))[:2]
            raise JudgeError("the server is gone")

    with pytest.raises(JudgeError, match="gone"):
        CrimsonScorer(Broken(), store=tmp_path / "s").score(PAIRS)
    judge = CountingJudge()
    assert [r.from_store for r in CrimsonScorer(judge, store=tmp_path / "s").score(PAIRS)] == [False, True, True]

    class Stuttering(CountingJudge):
        def judge(self, pairs):
            yield from [(0, Judgement(failure="x"))] * 2

    with pytest.raises(JudgeError, match="pair 0 twice"):
        CrimsonScorer(Stuttering("s"), store=tmp_path / "s").score(PAIRS)

    class Forgetful(CountingJudge):
        def judge(self, pairs):
            yield from ()

    results = CrimsonScorer(Forgetful("f"), store=tmp_path / "s").score(PAIRS)
    assert {r.failure for r in results} == {"the judge gave no judgement"}
    assert not CrimsonScorer(CountingJudge("f"), store=tmp_path / "s").score(PAIRS)[0].from_store


def test_stopping_early_keeps_what_was_judged_and_closes_the_judge(tmp_path):
    closed = []

    class Watched(CountingJudge):
        def judge(self, pairs):
            try:
                yield from super().judge(pairs)
            finally:
                closed.append(True)

    stream = CrimsonScorer(Watched(), store=tmp_path / "s").stream(PAIRS)
    assert next(stream).id == "c"
    stream.close()
    assert closed
    assert [r.from_store for r in CrimsonScorer(CountingJudge(), store=tmp_path / "s").score(PAIRS)] == [0, 0, 1]


def test_a_run_may_be_taken_on_by_another_thread(tmp_path):
    stream = CrimsonScorer(CountingJudge(), store=tmp_path / "s").stream(PAIRS)
    next(stream)
    rest = []
    thread = threading.Thread(target=lambda: rest.extend(stream))
    thread.start()
    thread.join()
    assert len(rest) == 2


def test_the_signature_of_scores_tells_what_the_answers_told(tmp_path):
    """The revision behind an API model's name is known only in answers: it is kept, and not part of the key."""

    class Api(CountingJudge):
        def __init__(self, revision):
            super().__init__()
            self.revision, self.answered = revision, False

        def judge(self, pairs):
            self.answered = True
            yield from super().judge(pairs)

        def asked_signature(self):
            return {"judge": "api", "model": "m"}

        def signature(self):
            return self.asked_signature() | ({"revision": self.revision} if self.answered else {})

    def score(judge, pairs):
        scorer = CrimsonScorer(judge, store=tmp_path / "s")
        results = scorer.score(pairs)
        return scorer.signature.split("|")[1:-2], len(judge.asked), [r.from_store for r in results]

    old = Api("m-old")
    assert score(old, PAIRS[:1]) == (["judge:api", "model:m", "revision:m-old"], 1, [False])
    assert score(old, PAIRS[:1])[2] == [True]  # although the judge's signature has changed meanwhile
    assert score(Api("m-new"), PAIRS[:1]) == (["judge:api", "model:m", "revision:m-old"], 0, [True])
    assert score(Api("m-new"), PAIRS[:2])[0] == ["judge:api", "model:m", "revision:m-new+m-old"]
    with Store(tmp_path / "s") as store:
        assert [judge.signature.split("|")[2] for judge in store.stats()] == ["revision:m-old", "revision:m-new"]


def test_a_model_in_memory_has_no_signature_to_keep_judgements_under(tmp_path):
    class Training(CountingJudge):
        def signature(self):
            return {"judge": "hf:step 8", "revision": "in-memory"}

    with pytest.raises(InputError, match="store: .*in memory"):
        CrimsonScorer(Training(), store=tmp_path / "s")


def test_the_progress_bar_says_what_was_read(tmp_path, capfd):
    CrimsonScorer(CountingJudge(), store=tmp_path / "s").score(PAIRS[:2], progress=True)
    assert "2/2" in capfd.readouterr().err
    CrimsonScorer(CountingJudge(), store=tmp_path / "s").score(PAIRS, progress=True)
    told = capfd.readouterr().err
    assert "3/3" in told and "2 read from the store" in told and "tokens/s" in told


def test_files_and_folders_are_the_users_own(tmp_path, monkeypatch):
    path = tmp_path / "new" / "folder" / "s.sqlite"
    stream = CrimsonScorer("offline", store=path).stream(PAIRS)
    next(stream)
    assert sorted(p.name for p in path.parent.iterdir()) == ["s.sqlite", "s.sqlite-shm", "s.sqlite-wal"]
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    monkeypatch.setenv("CRIMSON_STORE", "here.sqlite")
    assert default_path() == Path("here.sqlite")
    monkeypatch.setenv("CRIMSON_STORE", "off")
    assert default_path() is None
    monkeypatch.delenv("CRIMSON_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_path() == tmp_path / "crimson" / "judgements.sqlite"


def newer(path):
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")


def foreign(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (newer, "created by a newer crimson-metric (its schema is 2, this one knows 1). Update"),
        (foreign, "is another kind of SQLite database. Give another path"),
        (lambda path: path.write_text("reference,prediction\n" * 100), "is not a SQLite database. Give another path"),
        (lambda path: path.mkdir(), "is a folder. Give the path of a file"),
        (lambda path: path.symlink_to("/proc/none/s"), "cannot be created: No such file or directory"),
    ],
)
def test_what_is_no_store_is_one_clear_error_before_anything_is_judged(tmp_path, make, said):
    path = tmp_path / "s"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        CrimsonScorer(CountingJudge(), store=path)
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.fixture
def _no_root():
    """Root may write anywhere."""
    if os.geteuid():
        yield
    else:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)


@pytest.fixture
def locked_folder():
    """A folder with a store, which other users can reach but not write."""
    with tempfile.TemporaryDirectory() as folder:
        CrimsonScorer(CountingJudge(), store=Path(folder) / "s").score(PAIRS)
        Path(folder, "s").chmod(0o644)
        Path(folder).chmod(0o555)
        yield Path(folder)
        Path(folder).chmod(0o755)


@pytest.mark.parametrize("name", ["s", "new", "new/folder/s"])
def test_a_read_only_folder_is_one_clear_error(locked_folder, name, request):
    request.getfixturevalue("_no_root")
    with pytest.raises(StoreError, match=r"(cannot be created: Permission|cannot be read or written: ).*--no-store"):
        CrimsonScorer(CountingJudge(), store=locked_folder / name)


def test_a_read_only_folder_can_be_read(locked_folder, request):
    before = Path(locked_folder, "s").read_bytes()
    request.getfixturevalue("_no_root")
    with Store(locked_folder / "s", create=False) as store:
        assert store.verify() == (3, [], [])
        assert [judge.judgements for judge in store.stats()] == [3]
        assert len(list(store.entries())) == 3
        with pytest.raises(StoreError, match="readonly.*are writable"):
            store.prune(Selection(failures=False))
    assert Path(locked_folder, "s").read_bytes() == before


def test_a_read_only_folder_with_a_log_is_one_clear_error(locked_folder, request):
    (locked_folder / "s-wal").write_bytes(b"")  # what stands there is part of the store, and may not be passed over
    request.getfixturevalue("_no_root")
    with pytest.raises(StoreError, match="cannot be read or written: .*file and folder are writable"):
        Store(locked_folder / "s", create=False)


def test_an_empty_file_that_becomes_a_store_becomes_the_users_own(tmp_path):
    path = tmp_path / "s"
    path.touch(mode=0o644)
    path.chmod(0o644)
    with Store(path):
        assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}
    path.chmod(0o640)
    with Store(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640  # its owner's decision


def limited(size, *arguments):
    """`crimson` that can make no file longer than `size` bytes."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); import crimson_core.cli as c; c.main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def csv(tmp_path):
    lines = [f"{n},Nodule of {n} mm.,Nodule of {n} mm." for n in range(300)]
    (tmp_path / "p.csv").write_text("\n".join(["id,reference,prediction", *lines]))
    return tmp_path / "p.csv"


def test_a_full_disk_is_one_clear_error_before_anything_is_judged(tmp_path, csv):
    done = limited(2000, "score", csv, "-j", "offline", "--store", tmp_path / "s", "--no-progress")
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert "cannot be read or written" in done.stderr and "the disk has space" in done.stderr


def test_a_store_that_cannot_be_written_is_an_error_before_the_judge_is_loaded(tmp_path, csv):
    Store(tmp_path / "s").close()
    done = limited(100, "score", csv, "-j", "hf:no/such-model", "--store", tmp_path / "s", "--no-progress")
    assert done.returncode == 2
    assert f"The store {tmp_path / 's'} cannot be read or written" in done.stderr
    assert "such-model" not in done.stderr


def test_a_disk_that_fills_up_keeps_what_was_written(tmp_path, csv):
    path = tmp_path / "s"
    lines = [f"{n},Nodule of {n} mm.,Nodule of {n} mm." for n in range(3000)]
    csv.write_text("\n".join(["id,reference,prediction", *lines]))
    done = limited(1_000_000, "score", csv, "-j", "offline", "--store", path, "--no-progress")
    assert done.returncode == 2
    what_is_kept, error = done.stderr.splitlines()
    assert done.stdout == "" and "in the store: run the same command again" in what_is_kept
    assert "cannot be read or written" in error
    with Store(path) as store:
        kept = store.verify()
    assert 10 < kept.judgements < 3000 and not kept.damaged and not kept.file


def test_kills_at_fifty_moments_lose_and_corrupt_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, RUNS, tmp_path, "7", "50"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(RUNS.parents[2])},
    )
    found = json.loads(done.stdout)
    assert found["killed"] == 50
    assert found["same"]
    in_flight = {}  # run -> its last batch, which the kill may have lost
    for run, batch in found["bill"]:
        in_flight[run] = batch
    bought = Counter(pair for _, batch in found["bill"] for pair in batch)
    lost = Counter(pair for batch in in_flight.values() for pair in batch)
    assert len(bought) == 800
    assert len(in_flight) > 25  # half of the kills were in the midst of judging
    assert all(times - 1 <= lost[pair] for pair, times in bought.items())
    assert sum(bought.values()) > 800  # else no kill has hit a batch
    with Store(tmp_path / "killed.sqlite") as store:
        assert store.verify() == (800, [], [])


def test_several_writers_at_once_end_with_one_row_a_pair(tmp_path, csv):
    command = [sys.executable, "-m", "crimson_core.cli", "score", csv, "-j", "offline", "--store", tmp_path / "s"]
    outputs = [tmp_path / f"out{n}" for n in range(4)]
    runs = [
        subprocess.Popen([*command, "-o", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for output in outputs
    ]
    ends = [(*run.communicate(timeout=60), run.returncode) for run in runs]
    assert [end[2] for end in ends] == [0] * 4, ends
    with Store(tmp_path / "s") as store:
        assert store.verify() == (300, [], [])
    evaluations = [[json.loads(line)["raw_evaluation"] for line in output.open()] for output in outputs]
    assert evaluations[0] == evaluations[1] == evaluations[2] == evaluations[3]


def test_of_two_judgements_of_a_pair_the_first_counts_in_both_runs(tmp_path):
    class Interrupted(CountingJudge):
        """While it judges, another process is done with the same pair."""

        def judge(self, pairs):
            CrimsonScorer(CountingJudge(), store=tmp_path / "s").score(PAIRS[:1])
            yield 0, Judgement(failure="too late")

    (result,) = CrimsonScorer(Interrupted(), store=tmp_path / "s").score(PAIRS[:1])
    assert result.score and result.from_store


class Paced(CountingJudge):
    """Rules by its signature, with a pause before each judgement."""

    def __init__(self, pause):
        super().__init__("offline")
        self.pause = pause

    def judge(self, pairs):
        for answer in super().judge(pairs):
            time.sleep(self.pause)
            yield answer

    def signature(self):
        return {"judge": "offline+paced"}


def test_judgements_of_rules_are_written_together_but_none_waits_for_long(tmp_path):
    pairs = [ReportPair(f"Nodule of {n} mm.", "Edema.") for n in range(7)]
    CrimsonScorer("offline").score(pairs)  # the first reading takes longer
    for pause, wanted in ((0.0, {7}), (0.6, {1, 2, 3, 4, 5, 6, 7})):  # all at the end, or each at once
        path, seen = tmp_path / f"{pause}", set()
        for _ in CrimsonScorer(Paced(pause), store=path).stream(pairs):
            with Store(path) as store:
                seen.add(sum(judge.judgements for judge in store.stats()))
        assert seen == wanted


def test_what_rules_have_judged_is_written_when_a_run_breaks_off(tmp_path):
    class Breaking(Paced):
        def judge(self, pairs):
            for number, answer in enumerate(super().judge(pairs)):
                if number == 4:
                    raise KeyboardInterrupt
                yield answer

    with pytest.raises(KeyboardInterrupt):
        CrimsonScorer(Breaking(0.0), store=tmp_path / "s").score([ReportPair(str(n), "") for n in range(9)])
    with Store(tmp_path / "s") as store:
        assert [judge.judgements for judge in store.stats()] == [4]


def test_a_group_of_the_offline_judge_is_in_the_store_before_a_result_of_it_is_told(tmp_path):
    pairs = [ReportPair(f"Nodule of {n % 4} mm.", "Edema.", id=str(n)) for n in range(6)]
    stream = CrimsonScorer("offline", store=tmp_path / "s").stream(pairs)
    first = next(stream)
    with Store(tmp_path / "s") as store:
        assert [judge.judgements for judge in store.stats()] == [4]
    results = [first, *stream]
    assert [result.from_store for result in results] == [False] * 4 + [True] * 2
    plain = CrimsonScorer("offline").score(pairs)
    assert [result.evaluation for result in results] == [result.evaluation for result in plain]
    assert all(result.from_store for result in CrimsonScorer("offline", store=tmp_path / "s").score(pairs))
