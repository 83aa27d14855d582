"""The Space without a browser: settings, uploads, runs, and the HTML that it shows."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import app_judges
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crimson_core import CrimsonScorer, InputError, JudgeError, PairResult, ReportPair, make_pairs, score_evaluation
from crimson_core.compare.html.marking import locate, mark_reports, pieces
from crimson_core.compare.html.pair import error_rows, pair_html, term_rows
from crimson_core.protocol.evaluation import Evaluation
from space import exports, figures
from space.about_tab import about_text
from space.comparison import systems_of
from space.corpus_view import rows_html, summary_html, table_html, worst_first
from space.judging import Run, judge_in_turns, scorer_for
from space.parts import limits_text
from space.settings import settings_from
from space.uploads import (  # fmt: skip
    EXAMPLES,
    SYSTEMS_EXAMPLE,
    Table,
    checked_pairs,
    guess_columns,
    read_table,
    take_upload,
    take_uploads,
)

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = settings_from({})
HOSTILE = [
    "<script>window.hacked = 1</script> Small left pleural effusion.",
    'Left effusion <img src=x onerror="window.hacked = 1"> <svg/onload=window.hacked=1>.',
    "</div></span></article><style>body { display: none }</style> Cardiomegaly.",
    "# Cardiomegaly\n**bold** [link](javascript:alert(1)) | a | b |\n{{ 7 * 7 }} ${value} {% raw %}",
    "Cardiomegaly \u202eegral\u202c. Épanchement \U0001fa7b \u0627\u0644\u0642\u0644\u0628 effusion. \x00\x07",
    '"\' onmouseover="window.hacked = 1" Right pneumothorax. &lt;b&gt; &amp;',
]
app_judges.register()


# Settings


def test_settings_and_their_defaults():
    assert (SETTINGS.judge, SETTINGS.judges) == ("offline", ("offline",))
    made = settings_from(
        {
            "CRIMSON_JUDGE": "hf:a/b",
            "CRIMSON_JUDGES": "offline, hf:a/b,base=c/d ,hf:a/b",
            "CRIMSON_MAX_ROWS": "7",
            "CRIMSON_MAX_MB": "2",
            "CRIMSON_MAX_CHARACTERS": "300",
        }
    )
    assert made.judges == ("offline", "hf:a/b,base=c/d", "hf:a/b")
    assert (made.judge, made.max_rows, made.max_megabytes, made.max_characters) == ("hf:a/b", 7, 2, 300)
    for limit in ("7 rows", "2 MB", "300 characters"):
        assert limit in limits_text(made, "Rows")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CRIMSON_JUDGE": "default", "CRIMSON_JUDGES": "offline"}, "CRIMSON_JUDGES"),
        ({"CRIMSON_JUDGES": "nope"}, "CRIMSON_JUDGE"),
        ({"CRIMSON_JUDGE": "nope"}, "'nope' is unknown"),
        ({"CRIMSON_MAX_ROWS": "many"}, "CRIMSON_MAX_ROWS"),
        ({"CRIMSON_MAX_MB": "0"}, "CRIMSON_MAX_MB"),
    ],
)
def test_settings_that_cannot_be_are_refused(environment, said):
    with pytest.raises(InputError, match=said):
        settings_from(environment)


@pytest.mark.parametrize("page", ["docs/space.md", "space/README.md"])
def test_the_docs_name_every_setting(page):
    source = (ROOT / "space" / "settings.py").read_text()
    names = {
        word.strip('"') for word in source.replace("(", " ").replace(",", " ").split() if word.startswith('"CRIMSON_')
    }
    assert len(names) == 5
    told = (ROOT / page).read_text()
    assert all(f"`{name}`" in told for name in names)


def test_where_reports_go_is_said():
    assert "in this process" in limits_text(SETTINGS, "x")
    served = settings_from({"CRIMSON_JUDGE": "openai:m"})
    assert "sent to the service" in limits_text(served, "x")
    both = settings_from({"CRIMSON_JUDGES": "offline,openai:m"})
    assert "With the judge openai:m" in limits_text(both, "x")


# Where findings stand


@pytest.mark.parametrize(
    ("finding", "report", "span"),
    [
        ({"finding": "effusion", "span": [6, 14]}, "Small effusion. No effusion.", (6, 14)),
        ({"finding": "effusion", "span": [0, 8]}, "Small effusion.", (6, 14)),  # another text stands there
        ({"finding": "effusion"}, "Small effusion.", (6, 14)),
        ({"finding": "effusion"}, "Small effusion. No effusion.", None),  # which one?
        ({"finding": "mass"}, "Massive mass effect, massive.", (8, 12)),
        ({"finding": "a(b"}, "x a(b y", (2, 5)),
        ({"finding": "effusion", "span": [6, 99]}, "effusion, effusion", None),
        ({"finding": "effusion", "span": [-8, 8]}, "an effusion", (3, 11)),
        ({"finding": "effusion", "span": "0, 8"}, "an effusion", (3, 11)),
        ({"finding": "Effusion in other words"}, "Pleural fluid.", None),
        ({"finding": " "}, "Pleural fluid.", None),
        ({"finding": ""}, "", None),
    ],
)
def test_a_finding_is_located_or_not_but_never_guessed(finding, report, span):
    assert locate(finding, report) == span


def evaluation_of(references, predictions, matches=(), attribute_errors=()):
    """An evaluation from (finding, span) lists and (reference, prediction) numbers."""

    def listed(letter, findings):
        return [
            {"id": f"{letter}{n}", "finding": text, "clinical_significance": level} | ({"span": span} if span else {})
            for n, (text, level, span) in enumerate(findings, 1)
        ]

    return {
        "reference_findings": listed("R", references),
        "predicted_findings": listed("P", predictions),
        "matched_findings": [{"ref_id": f"R{r}", "pred_id": f"P{p}"} for r, p in matches],
        "errors": {
            "false_findings": [f"P{n}" for n in range(1, len(predictions) + 1) if n not in {p for _, p in matches}],
            "missing_findings": [f"R{n}" for n in range(1, len(references) + 1) if n not in {r for r, _ in matches}],
            "attribute_errors": list(attribute_errors),
        },
    }


def result_of(evaluation, **more):
    return PairResult(0, None, score_evaluation(Evaluation.model_validate(evaluation)), **more)


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_spans_cut_a_report_into_itself(report, spans):
    spans = [(a, b) for a, b in spans if a < b <= len(report)]
    evaluation = evaluation_of([(report[a:b], "urgent", [a, b]) for a, b in spans], [])
    marks, _ = mark_reports(evaluation, report, "")
    made = list(pieces(report, marks))
    assert "".join(piece.text for piece in made) == report
    for mark, (start, end) in zip(marks, spans, strict=True):
        assert "".join(piece.text for piece in made if mark in piece.marks) == report[start:end]
        assert sum(mark in piece.starts for piece in made) == sum(mark in piece.ends for piece in made) == 1
    for piece in made:
        lengths = [mark.span[1] - mark.span[0] for mark in piece.marks]
        assert all(outer >= inner for outer, inner in pairwise(lengths))


def test_matches_that_hang_together_share_a_number():
    matches = [(1, 1), (1, 2), (2, 3), (3, 4), (4, 4), (4, 3), (5, 5)]
    evaluation = evaluation_of([("x", "urgent", None)] * 6, [("y", "urgent", None)] * 6, matches)
    references, predictions = mark_reports(evaluation, "", "")
    assert [m.group for m in references] == [1, 2, 2, 2, 3, None]
    assert [m.group for m in predictions] == [1, 1, 2, 2, 3, None]
    assert [m.kind for m in references] == ["matched"] * 5 + ["missing"]
    assert [m.kind for m in predictions] == ["matched"] * 5 + ["false"]


# One pair as HTML


class Shown(HTMLParser):
    """What a browser makes of HTML: the tags, their attributes, and the text of the reports without the page's own words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.reports, self.text = set(), set(), [], ""
        self._open = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.attributes |= attributes.keys()
        if attributes.get("class") == "text":
            self.reports.append("")
        self._open += [] if tag == "br" else [(tag, attributes.get("class", ""))]

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data
        classes = [name for _, name in self._open]
        if "text" in classes and not {"chip", "tip"} & set(classes):
            self.reports[-1] += data


OUR_TAGS = frozenset(
    re.findall(r"\S+", "article section p span div i b ul li h2 h3 h4 button table thead tbody tr th td br code")
)
OUR_ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        "class id type role style dir tabindex scope colspan aria-label aria-hidden aria-describedby data-mark data-group data-label",
    )
)


def shown_pair(reference, candidate, judge="offline", **context):
    (pair,) = make_pairs([candidate], [reference], [context])
    (result,) = CrimsonScorer(judge).score([pair])
    return result, Shown(pair_html(pair, result, "crimson|signature"))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_report_holds_is_text(text):
    for reference, candidate in ((text, "Cardiomegaly."), ("Cardiomegaly.", text), (text, text)):
        _, shown = shown_pair(reference, candidate, indication=text)
        assert shown.reports == [reference, candidate]
        assert shown.tags <= OUR_TAGS
        assert shown.attributes <= OUR_ATTRIBUTES


@given(st.text(), st.text())
@settings(max_examples=25, deadline=None)
def test_any_reports_are_shown_to_the_character(reference, candidate):
    _, shown = shown_pair(reference + " Cardiomegaly.", candidate + "\nSmall effusion")
    assert shown.reports == [reference + " Cardiomegaly.", candidate + "\nSmall effusion"]
    assert shown.tags <= OUR_TAGS


def test_what_a_judge_writes_is_text_too():
    hostile = HOSTILE[1]
    error = {"ref_id": "R1", "pred_id": "P1", "severity": hostile, "error_types": [hostile], "explanation": hostile}
    evaluation = evaluation_of([(hostile, hostile, None)], [(hostile, hostile, None)], [(1, 1)], [error])
    result = result_of(evaluation, repairs=[hostile])
    shown = Shown(pair_html(ReportPair("a", "b"), result, hostile, hostile))
    assert shown.tags <= OUR_TAGS
    assert shown.attributes <= OUR_ATTRIBUTES
    assert shown.text.count(hostile) >= 6


def test_every_example_locates_its_findings_and_adds_up():
    for pair in checked_pairs(
        read_table(EXAMPLES, "x.csv", SETTINGS), guess_columns(["reference", "prediction"]), SETTINGS
    ):
        (result,) = CrimsonScorer("offline").score([pair])
        evaluation, metrics = result.score["raw_evaluation"], result.score["metrics"]
        for marks in mark_reports(evaluation, pair.reference, pair.candidate):
            assert all(mark.span for mark in marks)
        rows = term_rows(evaluation)
        n = sum(row["weight"] for row in rows["references"])
        c = sum(row["credit"].credit for row in rows["references"] if row["credit"])
        f = sum(row["weight"] for row in rows["false"])
        assert (n, c, f) == pytest.approx((metrics["N_G"], metrics["correct"], metrics["E_penalty"]))
        text = Shown(pair_html(pair, result, "s")).text
        assert f"N = {n:g}" in text
        assert f"F = {f:g}" in text
        counts = result.score["error_counts"]
        assert len(error_rows(evaluation)) == sum(counts[k] for k in ("false_findings", "missing_findings", "attribute_errors"))  # fmt: skip


@pytest.mark.parametrize(
    ("references", "predictions", "matches", "said"),
    [
        ([], [], [], ["S = 1", "it is the score: 1"]),
        ([], [("x", "urgent", None)], [], ["N = 0", "−(1 + 0 + 1) = −2", "d = F − C = 1", "−0.5"]),
        ([("x", "benign_expected", None)], [], [], ["N = 0", "S = 1"]),
        (
            [("x", "urgent", None)],
            [("y", "actionable_not_urgent", None)] * 3,
            [(1, 1)],
            ["(1 − 1) / 1 = 0", "score: 0"],
        ),
        ([("x", "actionable_not_urgent", None)], [("y", "urgent", None)], [], ["(0 − 1) / 0.5 = −2", "d = F − C = 1"]),
    ],
)
def test_the_score_is_told_so_that_a_person_can_add_it_up(references, predictions, matches, said):
    shown = Shown(pair_html(ReportPair("a", "b"), result_of(evaluation_of(references, predictions, matches)), "s"))
    text = " ".join(shown.text.split())
    for words in said:
        assert words in text


def test_findings_say_what_they_are_in_words_and_not_by_colour_alone():
    _, shown = shown_pair("Large right pneumothorax. Small left effusion.", "Large left effusion. Cardiomegaly.")
    for words in (
        "− missing",
        "R1, missing finding",
        "+ false",
        "P2, false finding",
        "R2, match 1",
        "P1, match 1",
        "urgent",
    ):
        assert words in shown.text


def test_findings_without_a_place_are_listed_beneath_the_report():
    evaluation = evaluation_of([("fluid", "urgent", None)], [("no such words", "urgent", None)])
    shown = Shown(pair_html(ReportPair("fluid here, fluid there", "b"), result_of(evaluation), "s"))
    assert shown.text.count("Not located in the text") == 2
    assert "no such words" in shown.text


def test_an_unscored_pair_says_why_and_shows_no_score():
    shown = Shown(pair_html(ReportPair("a", "b"), PairResult(0, failure="the output ends early"), "sig"))
    assert "Unscored. the output ends early." in shown.text
    assert "not a 0" in shown.text
    assert shown.reports == ["a", "b"]
    assert "scale" not in shown.text


def test_repairs_are_shown():
    shown = Shown(pair_html(ReportPair("a", "b"), result_of(evaluation_of([], []), repairs=["dropped R1-P9"]), "s"))
    assert "dropped R1-P9" in shown.text


# Files


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
    table = take_upload(saved(tmp_path / "hash" / f"pairs{ending}", ROWS), SETTINGS)
    assert table.name == f"pairs{ending}"
    assert table.rows == ROWS
    assert list(tmp_path.iterdir()) == []
    assert "effusion" not in repr(table)


@pytest.mark.parametrize(
    ("name", "content", "limits", "said"),
    [
        ("p.xlsx", b"x", {}, "p.xlsx has an unknown ending"),
        ("p.csv", b"", {}, "p.csv holds no rows"),
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
        take_upload(str(path), settings_from(limits))
    assert said in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_parquet_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path):
    path = saved(tmp_path / "p.parquet", [{"gt": "x" * 2_000_000, "model": str(n)} for n in range(2)])
    assert Path(path).stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacks to"):
        take_upload(path, settings_from({"CRIMSON_MAX_MB": "1"}))
    (tmp_path / "hash").mkdir(parents=True)
    path = saved(tmp_path / "hash" / "p.parquet", ROWS * 10)
    with pytest.raises(InputError, match="20 rows; at most 5"):
        take_upload(path, settings_from({"CRIMSON_MAX_ROWS": "5"}))


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
        take_upload(str(tmp_path / "hash" / "p.csv"), SETTINGS)


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
        checked_pairs(Table("t.csv", ROWS), columns, SETTINGS)


def test_ages_that_cannot_be_read_are_told():
    with pytest.warns(UserWarning, match="t.csv, column 'model': the age can't be read in row"):
        pairs = checked_pairs(
            Table("t.csv", ROWS), {"reference": "gt", "prediction": "model", "age": "model"}, SETTINGS
        )
    assert not any(pair.context and pair.context.age for pair in pairs)


def test_a_report_that_is_too_long_is_refused_not_cut():
    rows = [*ROWS, {"id": "3", "gt": "x" * 50, "model": ""}]
    with pytest.raises(InputError, match="t.csv row 3 holds a text of 50 characters; at most 40"):
        checked_pairs(Table("t.csv", rows), {"reference": "gt", "prediction": "model"}, settings_from({"CRIMSON_MAX_CHARACTERS": "40"}))  # fmt: skip


# Runs


def pairs_of(n):
    return make_pairs(["Large effusion."] * n, ["Small effusion."] * n, ids=range(n))


def ended(run):
    list(run.watch())
    return run


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
    text = Shown(summary_html(run)).text
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
    assert "The server is gone." in Shown(summary_html(run)).text


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
    shown = Shown(rows_html(run.results, run.pairs, 0))
    assert shown.text.count("unscored") >= 2
    assert "the model <b>refused</b>" in shown.text
    summary = " ".join(Shown(summary_html(run)).text.split())
    assert "Unscored2of 7 pairs" in summary
    assert "over 5 scored pairs" in summary


def test_tables_of_a_file_and_of_a_run_escape_what_they_show():
    rows = [{"<script>": text, "b": None} for text in HOSTILE]
    tags = Shown(table_html([Table("<img src=x>.csv", rows)])).tags
    run = ended(Run("offline", make_pairs(HOSTILE, HOSTILE, ids=HOSTILE)))
    tags |= Shown(rows_html(run.results, run.pairs, 0)).tags | Shown(summary_html(run)).tags
    assert tags <= OUR_TAGS | {"dl", "dt", "dd", "small"}


def test_figures_count_what_the_summary_counts():
    results = ended(Run("offline", checked_pairs(read_table(EXAMPLES, "x", SETTINGS), guess_columns(["reference", "prediction"]), SETTINGS))).results  # fmt: skip
    counts = [result.score["error_counts"] for result in results]
    bars = figures.errors_by_type(results).data[0]
    assert list(bars.x[:2]) == [sum(c[k] for c in counts) for k in ("false_findings", "missing_findings")]
    stacks = {bar.name: sum(bar.x) for bar in figures.errors_by_significance(results).data}
    assert stacks == {k: sum(c[key] for c in counts) for k, key in (("false", "false_findings"), ("missing", "missing_findings"), ("attribute", "attribute_errors"))}  # fmt: skip
    assert len(figures.score_histogram(results).data[0].x) == len(results)
    figures.score_histogram([PairResult(0, failure="x")])  # nothing to draw is no error


# Downloads


def test_downloads_hold_every_pair():
    run = ended(Run("moody:3", make_pairs(["Effusion."] * 4, [""] * 4, ids=["=1+1", "b", "c", None])))
    rows = list(csv.DictReader(io.StringIO(exports.as_csv({"": run.results}, run.signature))))
    lines = [json.loads(line) for line in exports.jsonl({"": run.results}, run.signature).splitlines()]
    assert len(rows) == len(lines) == 4
    assert rows[0]["id"] == "'=1+1"  # no formula for a spreadsheet
    assert lines[0]["id"] == "=1+1"
    for row, line, result in zip(rows, lines, run.results, strict=True):
        assert row["signature"] == line["signature"] == run.signature
        assert row["crimson_score"] == ("" if result.score is None else str(result.crimson_score))
        assert line["failure"] == result.failure
    named = exports.as_csv({"a": run.results, "b": run.results}, "s")
    assert [row["system"] for row in csv.DictReader(io.StringIO(named))] == ["a"] * 4 + ["b"] * 4


# Systems


COLUMNS = {"reference": "reference", "id": "id", "age": None, "sex": None, "indication": None}


def table_of(name, *rows):
    return Table(name, [dict(zip(("id", "reference", "prediction"), row, strict=True)) for row in rows])


A = table_of("a.csv", ("1", "Effusion.", "Effusion."), ("2", "Mass.", "Clear."))
B = table_of("b.csv", ("2", "Mass.", "Mass."), ("1", "Effusion.", "Clear."))


def test_systems_of_one_file_are_its_columns():
    table = read_table(SYSTEMS_EXAMPLE, "systems.csv", SETTINGS)
    systems = systems_of([table], ["system_a", "system_b"], COLUMNS, SETTINGS)
    assert systems.names == ["system_a", "system_b"]
    run = ended(Run("offline", systems.interleaved()))
    for name, results in systems.results(run.results).items():
        expected = CrimsonScorer("offline").score(systems.pairs[name])
        assert [r.as_dict() for r in results] == [r.as_dict() for r in expected]


def test_systems_of_several_files_are_joined_by_id():
    systems = systems_of([A, B], ["prediction"], COLUMNS, SETTINGS)
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
        systems_of(tables, ["prediction"], COLUMNS | {"id": id_column}, SETTINGS)


def test_systems_with_other_contexts_are_refused():
    tables = [Table(f"{age}.csv", [{"reference": "a", "prediction": "b", "age": age}]) for age in ("50", "60")]
    with pytest.raises(InputError, match="age, sex or indication"):
        systems_of(tables, ["prediction"], COLUMNS | {"id": None, "age": "age"}, SETTINGS)


def test_the_limit_of_rows_counts_all_systems():
    with pytest.raises(InputError, match="4 pairs of all systems together; at most 3"):
        systems_of([A, B], ["prediction"], COLUMNS, settings_from({"CRIMSON_MAX_ROWS": "3"}))


def test_files_of_one_name_are_told_apart():
    assert systems_of([A, A], ["prediction"], COLUMNS, SETTINGS).names == ["1. a.csv", "2. a.csv"]


def test_a_stopped_comparison_has_the_same_pairs_of_all_systems():
    systems = systems_of([A, B], ["prediction"], COLUMNS, SETTINGS)
    run = ended(Run("broken:3", systems.interleaved()))
    assert len(run.results) == 3
    assert {name: [r.index for r in rs] for name, rs in systems.results(run.results).items()} == {"a": [0], "b": [0]}


# About


def test_about_has_the_weights_and_the_readmes_citation():
    text = about_text(SETTINGS)
    assert "urgent 1; actionable, not urgent 0.5; not actionable, not urgent 0.25; benign or expected 0" in text
    citation = text.split("```bibtex\n")[1].split("```")[0]
    assert citation.startswith("@article{baharoon2026crimson,")
    assert citation in (ROOT / "README.md").read_text()
    assert "Research use only" in text


# The folder of the Hub Space


def test_the_space_folder_starts(tmp_path):
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns(".*", "dist", "checkpoints", "training", "tests", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, checkout, ignore=ignore)
    subprocess.run(["make", "space"], cwd=checkout, check=True, capture_output=True)
    folder = checkout / "dist" / "space" / "crimson"
    requirements = (folder / "requirements.txt").read_text()
    assert "gradio==" in requirements
    assert "torch" not in requirements
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(tmp_path), "CRIMSON_MAX_ROWS": "77"}
    server = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for _ in range(600):
            assert server.poll() is None, server.stdout.read()
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=60).read().decode()
                break
            time.sleep(0.2)
        assert "**77 rows**" in page
        for outside in ("fonts.googleapis", "cdn."):
            assert outside not in page
    finally:
        server.terminate()
        server.wait(60)
    assert not list(tmp_path.glob("crimson-space-*"))  # uploads are gone with the process
