"""Leaderboards: from a config or the command line to tables, pages and the Hub's files."""

import csv
import gzip
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from app_judges import register
from typer.testing import CliRunner

from crimson_core import InputError
from crimson_core.cli.app import app
from crimson_core.compare.exports import as_csv, as_json, as_jsonl, escaped, markdown, safe_cell
from crimson_core.compare.leaderboard.config import Source, load_config, parse_config
from crimson_core.compare.leaderboard.data import read_source
from crimson_core.compare.leaderboard.hub import as_dataset, eval_results, merged_card, model_card, write_hub_files
from crimson_core.compare.leaderboard.page import page_html
from crimson_core.compare.leaderboard.run import read_test_sets, run_leaderboard
from crimson_core.compare.statistics import mean_interval
from crimson_core.compare.summary import CLINICAL_FIGURES
from crimson_core.compare.tables import all_tables, differences_table, how_to_read, systems_table

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "leaderboard.yaml"
CHROMIUM = shutil.which("chromium")
REFERENCES = {"1": "Small left pleural effusion.", "2": "Large right pneumothorax.", "3": "Clear lungs.", "4": "Mass."}
HOSTILE = '<img src=x onerror="document.title=1"> <script>document.title=1</script> | `$x$` & </style> \x1b[31m\x00\x07'


def rows(**candidates):
    """Rows with ids and references, and a column of candidate reports for each system."""
    return [
        {"id": i, "reference": reference, **{name: texts[i] for name, texts in candidates.items()}}
        for i, reference in REFERENCES.items()
    ]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def board(folder, config):
    parsed = parse_config(config, "config")
    return run_leaderboard(parsed, read_test_sets(parsed, folder))


def crimson(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def refusal(*arguments):
    """The message of a command that is refused."""
    result = crimson(*arguments)
    assert isinstance(result.exception, InputError), result
    return str(result.exception)


@pytest.fixture(scope="module")
def example():
    """The example under two judges, the second of which leaves some pairs unscored."""
    register()
    config = yaml.safe_load(EXAMPLE.read_text()) | {"judges": ["offline", "moody:3"]}
    return board(EXAMPLE.parent, config)


# What goes in


def test_the_example_config_is_read_as_it_says():
    config = load_config(EXAMPLE)
    assert [judge.spec for judge in config.judges] == ["offline"]
    assert (config.test_sets["examples"].data.path, config.systems["B"].column) == ("systems.csv", "system_b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("judges: [offline]\ntest_sets: {a: x.csv}\nsystem: {A: a}", "system is an unknown key. Did you mean systems?"),
        (
            "judges: [offline]\ntest_sets: {a: {data: {path: x, splt: y}}}\nsystems: {A: a}",
            "test_sets.a.data.splt is an unknown key. Did you mean split?",
        ),
        ("judges: [offline]\ntest_sets: {a: {data: x, zzz: 1}}\nsystems: {A: a}", "The keys are data, columns, sub"),
        ("judges: []\ntest_sets: {a: x}\nsystems: {A: a}", "judges: list should have at least 1 item"),
        ("judges: [offline]\ntest_sets: {a: x}\nsystems: {A: a, A: b}", "line 3 .* the key 'A' is given twice"),
        (
            "judges: [offline]\ntest_sets: {rare: x}\nsystems: {A: {data: {rar: y}}}",
            "systems.A.data names the test set 'rar', which is none. Did you mean rare?",
        ),
        (
            "judges: [offline]\ntest_sets: {a: x}\nsystems: {1: a, yes: b}",
            "line 3 .* the key 1 is no text to YAML: quote it",
        ),
        (
            "judges: [offline]\ntest_sets: {2020-01-01: x}\nsystems: {A: a}",
            "the key 2020-01-01 is no text .*: quote it",
        ),
        ("judges: [offline]\ntest_sets: {a: x}\nsystems: {A: {column: 1}}", "valid string. Quote it."),
        (
            "judges: [offline]\ntest_sets: {a: x, b: y}\nsystems: {A: {column: c, data: {a: z}}, B: c}",
            "systems.A and systems.B are the same column 'c' on the test set 'b'",
        ),
        ("judges: [offline, offline]\ntest_sets: {a: x}\nsystems: {A: a}", "judges has 'offline' twice"),
        ("- a", "must hold the keys judges, test_sets, systems"),
        ("a: [", "line 1 is no YAML"),
    ],
)
def test_a_config_that_says_something_else_is_refused(tmp_path, text, said):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        load_config(file)


def test_all_that_datasets_reads_gives_the_same_rows(tmp_path):
    import datasets

    records = rows(a=REFERENCES)
    made = datasets.Dataset.from_list([record | {"unwanted": "x"} for record in records])
    made.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "splits")
    (tmp_path / "folder").mkdir()
    made.to_parquet(tmp_path / "folder" / "test-00000.parquet")
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(made.to_pandas().to_csv(index=False).encode()))
    wanted = ["id", "reference", "a"]
    for source in (
        {"path": "saved"},
        {"path": "splits", "split": "test"},
        {"path": "folder"},
        {"path": "folder/test-00000.parquet"},
    ):
        found = read_source(Source(**source), tmp_path, wanted)
        assert [{key: row[key] for key in wanted} for row in found] == records, source
    assert [row["a"] for row in read_source(Source(path="packed.csv.gz"), tmp_path, wanted)] == [*REFERENCES.values()]
    with pytest.raises(InputError, match="needs a split. It has: train, test"):
        read_source(Source(path="splits"), tmp_path, wanted)
    (tmp_path / "table.csv").write_text(made.to_pandas().to_csv(index=False))
    for path, option in (
        ("saved", "revision"),
        ("saved", "name"),
        ("saved", "split"),
        ("splits", "name"),
        ("table.csv", "split"),
        ("packed.csv.gz", "name"),
    ):
        with pytest.raises(InputError, match=f"has no {option} 'v1'"):
            read_source(Source(path=path, **{option: "v1"}), tmp_path, wanted)
    with pytest.raises(InputError, match="is no file or folder"):
        read_source(Source(path="gone.csv"), tmp_path, wanted)


def test_a_system_with_a_table_of_its_own_is_joined_by_id_and_may_lack_the_references(tmp_path):
    write(tmp_path / "set.jsonl", [row | {"age": "50"} for row in rows(a=REFERENCES)])
    own = [{"id": i, "prediction": text} for i, text in reversed(REFERENCES.items())]
    write(tmp_path / "b.jsonl", own)
    config = {
        "judges": ["offline"],
        "test_sets": {"s": "set.jsonl"},
        "systems": {"A": "a", "B": {"data": {"s": "b.jsonl"}}},
    }
    (section,) = board(tmp_path, config).sections
    assert section.systems.pairs["B"] == section.systems.pairs["A"]
    assert section.systems.joined_by == "id"

    for records, said in (
        (own[1:], "system B lacks 1 of the ids of test set s: '4'"),
        ([*own, {"id": "9", "prediction": ""}], "test set s lacks 1 of the ids of system B: '9'"),
        ([*own, own[0]], "B (b.jsonl) row 5 has the id '4' of an earlier row"),
        (
            [row | {"reference": "Other."} for row in own],
            "system B id '1': the reference report is not that of test set s",
        ),
        ([{"prediction": "x"}], "neither a column 'reference' of references nor a column 'id'"),
    ):
        write(tmp_path / "b.jsonl", records)
        with pytest.raises(InputError, match=re.escape(said)):
            board(tmp_path, config)


def test_duplicate_ids_of_a_test_set_and_empty_patients_are_refused(tmp_path):
    twice = rows(a=REFERENCES, b=REFERENCES)
    twice[1]["id"] = "1"
    file = write(tmp_path / "set.jsonl", twice)
    command = ["compare", file, "--prediction-column", "a", "--prediction-column", "b", "-j", "offline"]
    assert "set (set.jsonl) row 2 has the id '1' of an earlier row" in refusal(*command)
    write(file, [row | {"id": row["id"] + "\ud800"} for row in rows(a=REFERENCES, b=REFERENCES)])
    assert "row 1, column 'id' is not valid Unicode text" in refusal(*command)
    write(file, [row | {"who": ""} for row in rows(a=REFERENCES, b=REFERENCES)])
    assert "row 1, column 'who', is empty" in refusal(*command, "--patient-column", "who")
    assert "no column 'scanner' for the subgroups" in refusal(*command, "--subgroup", "scanner")
    assert "there is no age" in refusal(*command, "--subgroup", "age_band")


# What comes out


def test_the_figures_of_the_example(example):
    section = example.sections[0]
    assert list(section.figures) == ["A", "B"]  # the better one first
    assert section.figures["A"]["crimson_score"].value == pytest.approx(section.summaries["A"].crimson_score)
    (comparison,) = section.comparisons
    assert (comparison.wins, comparison.losses, comparison.ties) == (4, 0, 4)
    assert comparison.p_value == 2 / 2**4  # the four pairs that differ, all in one direction
    assert comparison.adjusted_p_value == 2 * comparison.p_value  # two judges, two comparisons
    assert sum(group.n_pairs for group in section.subgroups) == 8
    assert section.most_separated(1)[0][1] == pytest.approx(4 / 3, abs=1e-4)


def test_unscored_pairs_are_counted_wherever_they_are_left_out(example):
    moody = example.sections[1]
    unscored = {name: summary.n_unscored for name, summary in moody.summaries.items()}
    assert sum(unscored.values()) == example.n_unscored > 0
    (comparison,) = moody.comparisons
    assert comparison.difference.n + comparison.difference.n_left_out == 8
    (agreed,) = example.agreements
    assert agreed.overall.difference.n_left_out == example.n_unscored
    told = json.loads(as_json(example))
    data = told["sections"][1]["systems"]
    assert {name: len(system["unscored"]) for name, system in data.items()} == unscored
    assert told["agreements"][0]["overall"]["difference"]["value"] == agreed.overall.difference.value


def test_every_table_has_a_signature_and_every_output_the_same_figures(example):
    tables = all_tables(example)
    assert all(table.signature.startswith("crimson|judge:") for table in tables)
    assert markdown(example).count("Signature: `crimson|") == len(tables)
    mean = example.sections[0].figures["B"]["crimson_score"].value
    data = json.loads(as_json(example))
    assert data["sections"][0]["systems"]["B"]["figures"]["crimson_score"]["value"] == mean
    found = [
        row for row in csv.DictReader(io.StringIO(as_csv(example))) if row["system"] == "B" and not row["subgroup"]
    ]
    assert float(found[0]["value"]) == mean
    assert all(row["signature"] for row in found)
    compared = [row for row in csv.DictReader(io.StringIO(as_csv(example))) if row["figure"] == "difference"]
    assert [float(row["p_value"]) for row in compared] == [s.comparisons[0].p_value for s in example.sections]
    missed = "A: 1 of 2 urgent findings missed; mean score 0.896, better than a normal template."
    assert missed in markdown(example)
    assert all(f"- {figure.title}: " in markdown(example) for figure in CLINICAL_FIGURES.values())
    assert all(f"- {note[:40]}" in markdown(example) for note in how_to_read(example.sections, example.agreements))
    assert "<br>n 8 |" in markdown(example)  # a figure, its interval and n stay in one cell
    assert page_html(example).index(missed) < page_html(example).index("<table>")  # what matters first
    assert data["sections"][0]["systems"]["A"]["n_urgent_missed"] == 1
    lines = [json.loads(line) for line in as_jsonl(example).splitlines()]
    assert len(lines) == 2 * 2 * 8
    assert "pleural" not in as_json(example) + as_csv(example) + markdown(example)  # no report text


def test_judges_that_agree_and_a_judge_without_scores(tmp_path):
    write(tmp_path / "set.jsonl", rows(a=REFERENCES))
    config = {
        "judges": ["offline", {"spec": "offline", "repair": False}],
        "test_sets": {"s": "set.jsonl"},
        "systems": {"A": "a"},
    }
    found = board(tmp_path, config)  # a leaderboard of one
    assert [section.comparisons for section in found.sections] == [[], []]
    assert found.agreements[0].most_apart == []
    assert math.isnan(found.agreements[0].overall.kendall)  # all scores are 1
    assert found.agreements[0].overall.n_within == 4
    assert "They agree on every pair" in page_html(found)
    assert "no spread" in markdown(found)


@pytest.mark.parametrize("judge", ["offline", "moody:1"])
def test_one_pair_equal_systems_and_nothing_scored_are_plainly_marked(tmp_path, judge):
    register()
    write(tmp_path / "set.jsonl", rows(a=REFERENCES, b=REFERENCES)[:1])
    config = {"judges": [judge], "test_sets": {"s": "set.jsonl"}, "systems": {"A": "a", "B": "b"}}
    found = board(tmp_path, config)
    text, page = markdown(found), page_html(found)
    assert "Few pairs" in text
    if judge == "offline":
        assert "No two systems differ on any pair" in text
        assert "None: no two systems differ" in page
        assert (found.sections[0].comparisons[0].p_value, found.n_unscored) == (1.0, 0)
    else:
        assert "No pair of any system was scored." in text
        assert "No two systems have a score for the same pair: nothing could be compared." in text
        assert "No two systems differ" not in text
        assert "None: no two systems have a score for the same pair." in page
        assert found.n_unscored == 2
        assert ("data-figure=" in page, page.count("<script>")) == (False, 1)
    json.loads(as_json(found), parse_constant=lambda constant: pytest.fail(constant))
    assert "No pair was scored" in model_card(found, "A") or judge == "offline"


def test_patients_are_what_is_resampled(tmp_path):
    records = [row | {"who": "p"} for row in rows(a=REFERENCES, b=dict.fromkeys(REFERENCES, "Clear lungs."))]
    write(tmp_path / "set.jsonl", records)
    test_set = {"data": "set.jsonl", "columns": {"patient": "who"}}
    found = board(tmp_path, {"judges": ["offline"], "test_sets": {"s": test_set}, "systems": {"A": "a", "B": "b"}})
    (section,) = found.sections
    assert section.n_units == 1
    assert math.isnan(section.figures["A"]["crimson_score"].low)  # one patient says nothing about the next one
    assert section.comparisons[0].p_value == 1.0
    assert "1 patient is resampled" in systems_table(section).notes[0]
    assert json.loads(as_json(found))["sections"][0]["resampled"] == "patients"
    assert differences_table(section).rows[0][5] == "–"


def test_hostile_text_is_text_in_every_output(tmp_path):
    records = rows(a=REFERENCES, b=REFERENCES)
    for row in records:
        row |= {"id": HOSTILE + row["id"], "b": f"{HOSTILE} Right pneumothorax."}
    file = write(tmp_path / "set.jsonl", records)
    config = {
        "title": HOSTILE,
        "judges": ["offline"],
        "test_sets": {HOSTILE: str(file)},
        "systems": {"=A": "a", HOSTILE: "b"},
    }
    found = board(tmp_path, config)
    page = page_html(found)
    own, plotly, _ = page.split("<script>")  # plotly's script, and ours
    assert plotly.startswith("/**\n* plotly.js")
    page = own
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert not {*map(chr, (*range(32), 127))} - {*"\n\r\t"} & {*page}
    assert "\ufffd[31m\ufffd\ufffd" in page
    assert "<img" not in markdown(found).replace("\\<", "")
    assert "\x1b" not in markdown(found)
    assert "'=A" in as_csv(found)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *((text, text) for text in ("a", "study-1", "a=b", "1,5", "a; b", "x - y", "")),
        *((text, f"'{text}") for text in ("=1+1", "+1", "-1", "@SUM(A1)", " =1", '"=1"', "＝1", "＠x", "-")),
        ("a;=HYPERLINK(1)", "a;'=HYPERLINK(1)"),  # cells of a spreadsheet that parts them at semicolons
        ("a\t=1", "a\t'=1"),
        ("\t=1", "'\t'=1"),
        ('a,"=1"', 'a,\'"=1"'),
        ("a|+1|-1", "a|'+1|'-1"),
        ("a\n@x", "a\n'@x"),
    ],
)
def test_no_cell_is_a_formula(text, cell):
    assert safe_cell(text) == cell


def test_markdown_has_no_links_that_nobody_wrote():
    assert escaped("https://x.org, www.x.org") == "http<!-- -->s://x.org, www<!-- -->.x.org"


def test_the_page_asks_for_nothing_and_names_everything_once(example):
    page, *scripts = page_html(example).split("<script>")
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "default-src 'none'" in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count('class="plot" role="img" aria-label="') == page.count("data-figure=") == 2 * 5
    assert len(scripts) == 2  # plotly's is there once for all figures


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH: apt-get install chromium")
def test_the_page_in_a_browser_fits_and_is_accessible(tmp_path):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    write(tmp_path / "set.jsonl", rows(a=REFERENCES, b=dict.fromkeys(REFERENCES, "Small right effusion."))[:2])
    judges = ["offline", {"spec": "offline", "repair": False}]
    found = board(tmp_path, {"judges": judges, "test_sets": {"s": "set.jsonl"}, "systems": {"A": "a", "B": "b"}})
    (tmp_path / "page.html").write_text(page_html(found), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        troubles = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda request: request.url.startswith("file:") or troubles.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator(".plot .main-svg:first-child").count() == 2 * 5
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert {plot.bounding_box()["width"] for plot in page.locator(".plot > div > .svg-container").all()} == {310}
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        for width, scheme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
            page.wait_for_function(
                "w => [...document.querySelectorAll('.plot .main-svg:first-child')].every(e => e.clientWidth < w)",
                arg=width,
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
        chip = page.locator("button.chip:visible").first
        chip.focus()
        assert page.locator(f"#{chip.get_attribute('aria-describedby')}").is_visible()
        assert troubles == []
        browser.close()


# The Hub


def test_the_hubs_own_library_reads_back_what_is_written(example, tmp_path):
    from huggingface_hub import ModelCard

    folder = tmp_path / "new" / "folder"
    written = write_hub_files(example, folder)
    assert len(written) == 2 * 3
    results = ModelCard.load(folder / "A" / "README.md").data.eval_results
    scores = [result for result in results if result.metric_type == "crimson"]
    assert [result.metric_args["signature"] for result in scores] == [s.signature for s in example.sections]
    assert scores[0].metric_value == example.sections[0].figures["A"]["crimson_score"].value
    saved = json.loads((folder / "A" / "1-examples-offline.json").read_text())
    assert saved["crimson_score"] == scores[0].metric_value
    assert {"_timestamp", "_evaluate_version", "signature"} <= saved.keys()


def test_a_model_card_that_is_there_keeps_all_but_the_results_that_are_measured_again(
    example, tmp_path, capfd, monkeypatch
):
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    other = EvalResult(
        task_type="image-to-text", dataset_type="x", dataset_name="x", metric_type="bleu", metric_value=3
    )
    card = tmp_path / "A" / "README.md"
    card.parent.mkdir()
    data = ModelCardData(license="mit", model_name="Mine", eval_results=[other])
    card.write_text(f"---\n{data.to_yaml()}\n---\n\n# Mine\n\nMy text.\n")
    monkeypatch.chdir(tmp_path)  # no repository
    write_hub_files(example, tmp_path)
    once = card.read_text()
    write_hub_files(example, tmp_path)
    assert card.read_text() == once
    found = ModelCard.load(card)
    assert (found.data.license, found.data.model_name, found.text) == ("mit", "Mine", "\n# Mine\n\nMy text.\n")
    assert found.data.eval_results[0] == other
    assert found.data.eval_results[1].metric_type == "crimson"
    undefined = replace(example.sections[0], figures={"A": {"crimson_score": mean_interval([math.nan])}})
    kept = ModelCard(merged_card(found, replace(example, sections=[undefined]), "A")).data.eval_results
    scores = [result for result in kept if result.metric_type == "crimson"]
    assert [result.metric_name for result in scores] == ["CRIMSON score (moody:3)"]
    card.write_text("Text alone.\n")
    write_hub_files(example, tmp_path)
    assert ModelCard.load(card).text.strip() == "Text alone."
    os.write(2, b"Standard error is back.\n")
    said = capfd.readouterr().err
    assert "fatal" not in said and "Standard error is back." in said


def test_a_model_card_names_a_data_set_of_the_hub_by_its_id_and_a_file_by_its_bare_name(example):
    def named(path):
        test_set = example.config.test_sets["examples"].model_copy(update={"data": Source(path=path)})
        config = example.config.model_copy(update={"test_sets": {"examples": test_set}})
        return {result.dataset_type for result in eval_results(replace(example, config=config), "A")}

    assert named("owner/reports") == {"owner/reports"}
    assert (
        named("/home/me/my reports.csv") == named("../me/my reports.csv") == named("my reports.csv") == {"my-reports"}
    )


def test_rows_for_the_hub_hold_every_evaluation(example):
    found = as_dataset(example)
    assert len(found) == 2 * 2 * 8
    first = found[0]
    assert json.loads(first["evaluation"]) == example.sections[0].results["A"][0].evaluation
    assert set(found["signature"]) == {section.signature for section in example.sections}
    unscored = found.filter(lambda row: row["failure"] is not None)
    assert len(unscored) == example.n_unscored
    assert set(unscored["crimson_score"]) == {None}


# The command line


def test_compare_and_leaderboard_write_what_their_endings_say(tmp_path):
    file = write(tmp_path / "set.jsonl", rows(a=REFERENCES, b=dict.fromkeys(REFERENCES, "Clear lungs.")))
    outputs = [tmp_path / f"out{ending}" for ending in (".html", ".md", ".csv", ".json", ".jsonl")]
    flags = [flag for output in outputs for flag in ("-o", output)]
    done = crimson("compare", file, "--prediction-column", "a", "--prediction-column", "b", "-j", "offline", *flags)
    assert done.exit_code == 0, done
    assert "a − b" in done.stdout
    assert all(output.stat().st_size for output in outputs)
    assert outputs[0].read_text().startswith("<!DOCTYPE html>")
    alone = crimson("leaderboard", EXAMPLE, "--no-progress")
    assert alone.exit_code == 0
    assert "A − B" in alone.stdout


def test_compare_joins_files_by_id(tmp_path):
    first = write(tmp_path / "a.jsonl", [row | {"prediction": row["reference"]} for row in rows()])
    second = write(tmp_path / "b.jsonl", [{"id": i, "prediction": ""} for i in reversed(REFERENCES)])
    done = crimson("compare", first, second, "-j", "offline", "--no-progress")
    assert done.exit_code == 0, done
    assert "a − b" in done.stdout


def test_commands_are_refused_before_anything_is_judged(tmp_path):
    file = write(tmp_path / "set.jsonl", rows(a=REFERENCES, b=REFERENCES))
    both = ["compare", file, "--prediction-column", "a", "--prediction-column", "b", "-j", "offline"]
    assert "There is only one system" in refusal("compare", file, "--prediction-column", "a")
    assert "given twice" in refusal("compare", file, "--prediction-column", "a", "--prediction-column", "a")
    assert "unknown ending" in refusal(*both, "-o", tmp_path / "out.txt")
    assert "would be overwritten" in refusal(*both, "-o", file)
    assert "folder does not exist" in refusal(*both, "-o", tmp_path / "gone" / "out.md")
    assert "the same file" in refusal(*both, "-o", tmp_path / "out.md", "-o", tmp_path / "." / "out.md")
    said = refusal("compare", file, "--prediction-column", "a", "--prediction-column", "c")
    assert "has no column 'c' for the prediction" in said
    assert "Name the right one with --prediction-column." in said
    assert "Give both" in refusal(*both, "--public")


def test_unscored_pairs_and_an_interrupt_have_their_own_exit_status(tmp_path, monkeypatch):
    from crimson_core.run.scorer import CrimsonScorer

    register()
    command = ["compare", ROOT / "examples" / "systems.csv", "--prediction-column", "system_a", "--prediction-column", "system_b"]  # fmt: skip
    assert crimson(*command, "-j", "moody:3", "--no-progress", "--no-store").exit_code == 3

    stream = CrimsonScorer.stream

    def interrupted(self, pairs, **options):
        for n, result in enumerate(stream(self, pairs, **options)):
            if n == 5:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(CrimsonScorer, "stream", interrupted)
    whole = tmp_path / "out.jsonl"
    whole.write_text("whole")
    command += ["-j", "offline", "--no-progress", "-o", whole, "--hub-files", tmp_path / "hub"]
    stored = crimson(*command, "--store", tmp_path / "store.sqlite")
    assert (stored.exit_code, "Interrupted: 2 of 8 pairs were judged." in stored.stdout) == (130, True)
    assert f"Not written: {whole}, {tmp_path / 'hub'}." in stored.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "store.sqlite"]
    partial = tmp_path / "out.jsonl.partial"
    done = crimson(*command, "--no-store")
    assert done.exit_code == 130
    assert f"Written to {partial}.\nNot written: {tmp_path / 'hub'}." in done.stderr
    assert len(partial.read_text().splitlines()) == 2 * 2
    assert partial.stat().st_mode & 0o777 == 0o600
    assert whole.read_text() == "whole"
    assert "contains the results of an interrupted run" in refusal(*command, "--no-store")


def test_outputs_are_there_when_nobody_reads_the_tables(tmp_path, monkeypatch):
    from crimson_core.cli import outputs

    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(outputs, "print_board", gone)
    done = crimson("leaderboard", EXAMPLE, "--no-progress", "--no-store", "-o", tmp_path / "out.csv")
    assert isinstance(done.exception, BrokenPipeError) or done.exit_code
    assert (tmp_path / "out.csv").stat().st_size


def test_what_could_not_be_written_is_refused_before_anything_is_judged(tmp_path, monkeypatch):
    command = ["leaderboard", EXAMPLE, "--no-store"]
    monkeypatch.setattr("crimson_core.cli.outputs.run_leaderboard", lambda *_, **__: pytest.fail("judged"))
    (tmp_path / "file").write_text("")
    assert "is no folder" in refusal(*command, "--hub-files", tmp_path / "file")
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "README.md").write_text("---\n[\n---\n")
    assert "is no model card that can be kept" in refusal(*command, "--hub-files", tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode, **_: mode != os.W_OK)  # nothing is forbidden to root
    assert "there is no permission" in refusal(*command, "-o", tmp_path / "out.md")
    assert "there is no permission" in refusal(*command, "--hub-files", tmp_path / "new" / "hub")


def test_a_second_comparison_reads_what_the_first_one_has_judged(tmp_path):
    command = ["leaderboard", EXAMPLE, "--no-progress", "--store", tmp_path / "store.sqlite"]
    first, second, without = crimson(*command), crimson(*command), crimson(*command[:-2], "--no-store")
    assert "Store  read 0, judged 16" in first.stdout
    assert "Store  read 16, judged 0" in second.stdout
    assert "Store" not in without.stdout
    assert first.stdout.split("Store  ")[0] == second.stdout.split("Store  ")[0]
    assert "would be overwritten" in refusal(*command, "-o", tmp_path / "store.sqlite.json", "--store", tmp_path / "store.sqlite.json")  # fmt: skip


def test_a_leaderboard_is_compared_without_loading_what_it_does_not_need():
    code = (
        "import sys; from crimson_core.cli.app import app; "
        "assert not {'plotly', 'jinja2', 'datasets', 'huggingface_hub', 'scipy', 'numpy', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
