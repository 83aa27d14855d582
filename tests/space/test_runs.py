"""Runs, what is shown of them, and what can be downloaded."""

import csv
import io
import json
import threading
import time

import app_judges
import pytest
from pages import HOSTILE, OUR_TAGS, Shown

from crimson_core import CrimsonScorer, JudgeError, PairResult, ReportPair, make_pairs
from crimson_core.compare import exports
from crimson_core.compare.section import Systems
from crimson_core.run.files import json_line
from crimson_core.run.processes import Pool, TookTooLongError
from space import judging
from space.judging import Run, judge_in_turns, scorer_for
from space.settings import settings_from
from space.uploads import EXAMPLES, UploadedTable, checked_pairs, guess_columns, read_table
from space.views import outcome_html, rows_html, section_of, uploaded_html, worst_first

SETTINGS = settings_from({})
app_judges.register()


def pairs_of(n):
    return make_pairs(["Large effusion."] * n, ["Small effusion."] * n, ids=range(n))


def ended(run):
    list(run.watch())
    return run


def summary_text(run):
    section = section_of(run, Systems({"model": run.pairs}), "file.csv")
    return " ".join(Shown(outcome_html(run, section)).text.split())


def test_a_run_gives_what_the_scorer_gives():
    pairs = pairs_of(200)
    run = ended(Run("offline", pairs))
    assert [r.as_dict() for r in run.results] == [r.as_dict() for r in CrimsonScorer("offline").score(pairs)]
    assert (run.error, run.stopped) == (None, False)
    assert run.signature == CrimsonScorer("offline").signature
    assert scorer_for("offline") is scorer_for("offline")


def test_stop_keeps_what_is_done():
    run = Run("slow:0.02", pairs_of(1000))
    for _ in run.watch():
        if run.n_done >= 5:
            assert 1 < run.seconds_left < 1000
            run.stop()
    done = run.n_done
    assert 5 <= done < 900
    assert run.stopped
    assert [r.index for r in run.results][:5] == list(range(5))
    time.sleep(0.2)
    assert run.n_done <= done + 1  # the pair in hand
    text = summary_text(run)
    assert "of 1,000 pairs were judged" in text
    assert "0.5" in text


def test_a_page_that_goes_away_stops_its_run():
    run = Run("slow:0.02", pairs_of(1000))
    watched = run.watch()
    next(watched)
    watched.close()
    assert ended(run).stopped


def test_a_judge_that_breaks_off_keeps_what_is_done():
    run = ended(Run("broken:3", pairs_of(10)))
    assert run.error == "The server is gone."
    assert len(run.results) == 3
    assert "The server is gone." in summary_text(run)


def test_a_judge_that_cannot_be_loaded_says_so_in_its_own_words():
    run = ended(Run("broken:0", pairs_of(2)))
    assert run.error == "The model cannot be had. Accept its terms first."
    assert run.results == []
    with pytest.raises(JudgeError, match="Accept its terms"):
        list(judge_in_turns("broken:0", pairs_of(1)))


def test_sessions_share_a_judge_in_turns():
    app_judges.SlowJudge.most_at_once = 0
    long = Run("slow:0.005", pairs_of(400))
    time.sleep(0.05)
    short = list(judge_in_turns("slow:0.005", pairs_of(1)))
    done = len(long.results)
    long.stop()
    ended(long)
    assert len(short) == 1
    assert done < 400, "it did not wait for the whole run"
    assert app_judges.SlowJudge.most_at_once == 1


def test_turns_of_the_offline_judge_come_in_order_and_end_with_the_run(monkeypatch):
    begun = []

    def told(pairs):
        begun.append(len(pairs))
        time.sleep(0.1 / len(begun))  # a later turn is done first
        return [PairResult(index, pair.id, failure="none") for index, pair in enumerate(pairs)]

    monkeypatch.setattr(judging, "_in_time", told)
    results = judge_in_turns("offline", pairs_of(200))
    assert [(result.index, result.id) for result in results] == [(n, str(n)) for n in range(200)]
    assert begun == [64, 64, 64, 8]
    begun.clear()
    results = judge_in_turns("offline", pairs_of(640))
    next(results)
    results.close()
    assert len(begun) == 2


def test_a_slow_text_keeps_nobody_waiting_and_has_a_limit(monkeypatch):
    monkeypatch.setattr(judging, "_LONGEST", 3.0)
    monkeypatch.setattr(judging, "_pool", Pool(2))
    list(judge_in_turns("offline", pairs_of(1)))  # a process is started
    endless = " ".join(f"Nodule of {n} mm in the {'right' if n % 2 else 'left'} lung." for n in range(150_000))
    slow = Run("offline", [*pairs_of(1), ReportPair(endless, endless, id="slow")])
    time.sleep(0.3)
    (quick,) = judge_in_turns("offline", pairs_of(1))
    assert slow.n_done == 0, "it did not wait for the slow text"
    assert quick.score is not None
    first, second = ended(slow).results
    assert slow.error is None
    assert first.crimson_score == quick.crimson_score, "the pair beside it is judged"
    assert (second.id, second.failure) == ("slow", "It took more than 3 s. Give shorter reports.")
    assert list(judge_in_turns("offline", pairs_of(1)))[0].score is not None, "another process has taken its place"
    judging._pool.close()


def test_where_all_processes_are_busy_it_is_told():
    pool = Pool(1)
    thread = threading.Thread(target=lambda: pool.ask(5, time.sleep, 2))
    thread.start()
    time.sleep(0.2)
    with pytest.raises(TookTooLongError, match="busy for 0.1 s"):
        pool.ask(0.1, len, "")
    thread.join()
    assert pool.ask(5, len, "abc") == 3
    pool.close()


def test_offline_results_do_not_depend_on_threads():
    pairs = checked_pairs(read_table(EXAMPLES, "x", SETTINGS), guess_columns(["reference", "prediction"]), SETTINGS)
    expected = [r.as_dict() for r in CrimsonScorer("offline").score(pairs)]
    scorer, found = CrimsonScorer("offline"), []
    threads = [
        threading.Thread(target=lambda: found.append([r.as_dict() for r in scorer.score(pairs)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_unscored_pairs_stand_first_and_are_counted():
    run = ended(Run("moody:3", pairs_of(7)))
    failed = [r.index for r in run.results if r.score is None]
    assert len(failed) == 2
    assert [r.index for r in worst_first(run.results)][:2] == failed
    shown = Shown(rows_html(run, 0))
    assert shown.text.count("unscored") >= 2
    assert "the model <b>refused</b>" in shown.text
    summary = summary_text(run)
    assert "Unscored2of 7 pairs" in summary
    assert "over 5 scored pairs" in summary


def test_tables_of_a_file_and_of_a_run_escape_what_they_show():
    rows = [{"<script>": text, "b": None} for text in HOSTILE]
    tags = Shown(uploaded_html([UploadedTable("<img src=x>.csv", rows)])).tags
    run = ended(Run("offline", make_pairs(HOSTILE, HOSTILE, ids=HOSTILE)))
    tags |= Shown(rows_html(run, 0)).tags
    tags |= Shown(
        outcome_html(run, section_of(run, Systems({HOSTILE[0]: run.pairs, HOSTILE[1]: run.pairs}), HOSTILE[0]))
    ).tags
    assert tags <= OUR_TAGS | {"dl", "dt", "dd", "small"}


# Downloads


def test_downloads_hold_every_pair():
    run = ended(Run("moody:3", make_pairs(["Effusion."] * 4, [""] * 4, ids=["=1+1", "b", "c", None])))
    rows = list(csv.DictReader(io.StringIO(exports.pairs_csv({"": run.results}, run.signature))))
    lines = [json.loads(line) for line in map(json_line, exports.pair_records({"": run.results}, run.signature))]
    assert len(rows) == len(lines) == 4
    assert rows[0]["id"] == "'=1+1"  # no formula for a spreadsheet
    assert lines[0]["id"] == "=1+1"
    assert [row["row"] for row in rows] == ["1", "2", "3", "4"]
    for row, line, result in zip(rows, lines, run.results, strict=True):
        assert row["signature"] == line["signature"] == run.signature
        assert row["crimson_score"] == ("" if result.score is None else str(result.crimson_score))
        assert line["failure"] == result.failure
    named = exports.pairs_csv({"a": run.results, "b": run.results}, "s")
    assert [row["system"] for row in csv.DictReader(io.StringIO(named))] == ["a"] * 4 + ["b"] * 4
