"""The Space in a real browser: Debian's Chromium, driven by Playwright. Screenshots are left in `.cache/screenshots`.

Without a browser these tests are skipped, but where CRIMSON_NEED_BROWSER is set, as in CI, they fail.
"""

import csv
import gc
import json
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import app_judges
import pytest
from pages import HOSTILE, as_shown

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / ".cache" / "screenshots"
CHROMIUM = shutil.which("chromium")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
_TEXT_OF_REPORT_JS = """report => {
  const copy = report.cloneNode(true);
  for (const ours of copy.querySelectorAll(".chip, .tip")) ours.remove();
  return copy.textContent;
}"""

if not CHROMIUM and os.environ.get("CRIMSON_NEED_BROWSER"):
    pytest.fail(
        "CRIMSON_NEED_BROWSER is set and there is no chromium. Install it: apt-get install chromium", pytrace=False
    )
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH: apt-get install chromium")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The page as app.py serves it, with a slow judge to choose and narrow limits."""
    app_judges.register()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRIMSON_JUDGES", "offline,slow:0.05,moody:2,broken:0")
        patch.setenv("CRIMSON_MAX_ROWS", "1000")
        patch.setenv("CRIMSON_MAX_MB", "1")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "True")  # app.py turns it off
        patch.setenv("GRADIO_TEMP_DIR", "elsewhere")
        import app

        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        options = app.launch_options(app.settings)
        app.warm_up("offline")
        _, url, _ = app.demo.launch(**options, prevent_thread_lock=True, quiet=True)
        app.url, app.uploads = url, Path(os.environ["GRADIO_TEMP_DIR"])
        yield app
        app.demo.close()


@pytest.fixture(scope="module")
def browser():
    """A browser window. Each page in it is a session of its own; Gradio's files are loaded once."""
    from playwright.sync_api import sync_playwright

    arguments = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments.split())
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        context.set_default_timeout(90_000)  # for machines that do something else too
        yield context
        browser.close()


@pytest.fixture
def visit(space, browser):
    """Opens the page in a fresh session; at the end asks that nothing went wrong in it and that it talked to nobody else."""
    pages, troubles = [], []

    def opened(width="desktop", scheme="light", window=browser):
        page = window.new_page()
        pages.append(page)
        page.set_viewport_size(dict(zip(("width", "height"), WIDTHS[width], strict=True)))
        page.emulate_media(color_scheme=scheme)
        host = urlsplit(space.url).netloc
        page.on("request", lambda request: urlsplit(request.url).netloc in (host, "") or troubles.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append("a dialog"), dialog.dismiss()))
        page.goto(space.url)
        page.locator("#score").wait_for()
        return page

    yield opened
    for page in pages:
        page.close()
    assert troubles == []


def shot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def example(page, name="wrong severity"):
    page.get_by_role("button", name=name, exact=True).click()
    page.locator("#answer .score").wait_for()


def score_sample(page):
    tab(page, "A file")
    page.locator("#sample").click()
    page.locator("#table table").wait_for()
    page.locator("#start").click()
    page.locator("#rows table").wait_for()
    drawn(page, 3)


def drawn(page, n):
    """Wait for the figures of the tab, which come after the tables."""
    page.wait_for_function(
        "n => [...document.querySelectorAll('.figure .main-svg:first-child')].filter(e => e.checkVisibility()).length >= n",
        arg=n,
    )


def compare_sample(page):
    tab(page, "Compare")
    page.locator("#compare-sample").click()
    page.locator("#compare-table table").wait_for()
    page.locator("#compare-start").click()
    page.locator("#compare-rows table").wait_for()
    drawn(page, 5)


def choose(page, label, value):
    """Take an option of the visible dropdown of that name."""
    page.locator(f'input[aria-label="{label}"]:visible').click()
    page.get_by_role("option", name=value, exact=True).click()


def uploads(space):
    """The files on the server's disk. Gradio leaves empty ones without a name."""
    return [path for path in space.uploads.rglob("*") if path.is_file() and path.stat().st_size]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_an_example_shows_score_findings_errors_and_terms(visit):
    page = visit()
    example(page)
    answer = page.locator("#answer")
    assert answer.locator(".score").inner_text().split("\n")[1] == "0.7778"
    assert answer.locator(".report").count() == 2
    assert answer.locator('.report .mark[data-group="1"]').count() == 2
    assert "S = (C − F) / N = (0.5833 − 0) / 0.75 = 0.7778" in answer.inner_text()
    assert "crimson|judge:offline|" in answer.inner_text()
    # pointing at a finding explains it and lights up its match
    answer.locator(".mark.flawed").first.hover()
    assert "severity error, significant" in answer.locator(".tip.shown").inner_text()
    assert answer.locator(".report .mark.lit").count() == 2
    shot(page, "pair-light")
    page.get_by_role("button", name="Evaluation as JSON").click()
    page.locator(".cm-content").wait_for()
    page.get_by_role("button", name="Copy", exact=False).click()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["crimson_score"] == 0.7778
    assert copied["raw_evaluation"]["matched_findings"]
    assert copied["signature"].startswith("crimson|judge:offline|")
    page.locator("#clear").click()
    answer.locator(".score").wait_for(state="detached")
    assert page.locator("#reference textarea").input_value() == ""


def test_keyboard_only(visit):
    page = visit()
    page.locator("#reference textarea").focus()
    page.keyboard.type("Left lower lobe pneumonia.")
    page.keyboard.press("Tab")
    page.keyboard.type("Right lower lobe pneumonia.")
    page.keyboard.press("Control+Enter")
    page.locator("#answer .score").wait_for()
    assert page.locator("#answer .score").inner_text().split("\n")[1] == "0.5"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#answer .chip')"):
            break
    tip = page.locator("#answer .tip:visible")
    assert "location error" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.count() == 0
    # an example by the keyboard
    page.get_by_role("button", name="missing urgent", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#answer .missing .chip").first.wait_for()
    # tabs by the keyboard, and a row of a file
    page.get_by_role("tab", name="A file").focus()
    page.keyboard.press("Enter")
    page.locator("#sample").focus()
    page.keyboard.press("Enter")
    page.locator("#start").wait_for()
    page.locator("#start").focus()
    page.keyboard.press("Enter")
    page.locator("#rows button[data-index]").first.wait_for()
    page.locator("#rows button[data-index]").first.focus()
    page.keyboard.press("Enter")
    page.locator("#answer h2").wait_for()
    page.wait_for_function("document.activeElement.matches('#answer article')")


@pytest.mark.parametrize(("width", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_every_view_fits_and_is_accessible(visit, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(width, scheme)
    troubles = []
    for name, act in (
        ("pair", example),
        ("file", score_sample),
        ("compare", compare_sample),
        ("about", lambda page: tab(page, "About")),
    ):
        act(page)
        shot(page, f"{name}-{width}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0], name
        troubles += [
            (name, found["id"], [node["target"] for node in found["nodes"]])
            for found in Axe().run(page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
    assert troubles == []


def test_six_findings_fit_on_three_screens_of_a_phone_which_has_no_keys_to_press(visit):
    page = visit("phone")
    assert (
        page.locator('input[aria-label="Judge"]:visible').input_value() == "offline"
    )  # named before anything is scored
    assert page.evaluate("getComputedStyle(document.querySelector('#score'), '::after').content") == "none"
    page.locator("#reference textarea").fill(
        "Large right pneumothorax. Moderate left pleural effusion. Cardiomegaly. Right lower lobe consolidation. "
        "Old healed left rib fracture. Endotracheal tube 3 cm above the carina."
    )
    page.locator("#candidate textarea").fill(
        "Small left pleural effusion. Cardiomegaly. Left lower lobe consolidation. Pulmonary edema."
    )
    page.locator("#score").click()
    page.locator("#answer .score").wait_for()
    assert page.locator("#answer .answer").inner_text().startswith("1 urgent finding missed")
    assert page.locator("#answer").bounding_box()["height"] <= 3 * WIDTHS["phone"][1]


def test_hostile_reports_are_shown_as_text(visit):
    page = visit()
    for text in HOSTILE:
        text = text.replace("\x00", "")  # no browser lets one type it
        page.locator("#clear").click()
        page.locator("#answer .score").wait_for(state="detached")
        page.locator("#reference textarea").fill(text)
        page.locator("#candidate textarea").fill(text)
        page.locator("#score").click()
        page.locator("#answer .score").wait_for()
        for report in page.locator("#answer .report .text").all():
            assert report.evaluate(_TEXT_OF_REPORT_JS) == as_shown(text)
        assert page.evaluate("window.hacked") is None
        assert page.locator("#answer :is(script, style, img, svg, a, iframe)").count() == 0


def test_hostile_cells_and_columns_of_a_file_are_shown_as_text(visit, tmp_path):
    page = visit()
    rows = [
        {"<img src=x onerror='window.hacked=1'>": t, "reference": t, "prediction": t, "id": t[:20]} for t in HOSTILE
    ]
    rows = [{k: v.replace("\x00", "") for k, v in row.items()} for row in rows]
    tab(page, "A file")
    page.locator("#upload input[type=file]").set_input_files(
        write_csv(tmp_path / "<b>x</b>.csv".replace("/", ""), rows)
    )
    page.locator("#table table").wait_for()
    page.locator("#start").click()
    page.locator("#rows table").wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator(":is(#table, #rows) :is(script, style, img, svg, a)").count() == 0
    page.locator("#rows button[data-index]").first.click()
    page.locator("#answer h2").wait_for()
    assert page.evaluate("window.hacked") is None


def test_a_file_from_upload_to_download(visit, space, tmp_path):
    page = visit()
    rows = [{"gt": "Small left effusion.", "generated": c, "study_id": str(n)} for n, c in enumerate(["Small left effusion.", "Clear lungs.", "Cardiomegaly."] * 40)]  # fmt: skip
    tab(page, "A file")
    assert "1,000 rows" in page.get_by_text("At most").first.inner_text()
    page.locator("#upload input[type=file]").set_input_files(write_csv(tmp_path / "mine.csv", rows))
    page.locator("#table table").wait_for()
    assert "mine.csv: 120 rows, 3 columns" in page.locator("#table").inner_text()
    assert uploads(space) == []  # read, and deleted
    assert page.locator("#column-reference input").input_value() == "gt"
    assert page.locator("#column-id input").input_value() == "study_id"
    page.locator("#start").click()
    page.locator("#rows table").wait_for()
    page.locator(".figure .js-plotly-plot").nth(2).wait_for()
    assert "95 % interval" in page.locator("#summary").inner_text()
    first = page.locator("#rows tbody tr").first
    assert "−1" not in first.inner_text()
    assert page.locator("#rows tbody tr").count() == 50
    page.locator("#later").click()
    page.get_by_text("51 to 100 of 120").wait_for()
    with page.expect_download() as got:
        page.locator("#save-jsonl").click()
    lines = [json.loads(line) for line in Path(got.value.path()).read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["study_id"] for row in rows]
    with page.expect_download() as got:
        page.locator("#save-csv").click()
    assert got.value.suggested_filename == "crimson.csv"
    assert [row["crimson_score"] for row in csv.DictReader(Path(got.value.path()).read_text().splitlines())] == [str(line["crimson_score"]) for line in lines]  # fmt: skip
    page.locator("#rows tbody tr").first.click()
    page.locator("#answer h2").wait_for()
    assert page.locator("#answer h2").inner_text().startswith("Pair ")
    assert uploads(space) == []


def test_a_bad_file_is_a_clear_message(visit, space, tmp_path):
    page = visit()
    tab(page, "A file")
    for name, content, said in (
        ("p.csv", b"a,b\n\x81,x\n", "p.csv is not UTF-8"),
        ("p.docx", b"x", "p.docx has an unknown ending"),
        ("q.csv", b"reference,prediction\n" + b"a,b\n" * 1001, "at most 1,000"),
        ("p.parquet", b"PAR1", "p.parquet is not a Parquet file"),
    ):
        (tmp_path / name).write_bytes(content)
        page.locator("#upload input[type=file]").set_input_files(tmp_path / name)
        page.locator("#table [role=alert]", has_text=said).wait_for()
        assert uploads(space) == []
    assert not page.locator("#start").is_visible()
    # one beyond the limit is not even taken
    (tmp_path / "p.csv").write_bytes(b"x" * 1_100_000)
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "p.csv")
    page.get_by_text("exceed the maximum allowed size of 1.0 M").first.wait_for()
    assert uploads(space) == []


def test_stop_keeps_what_is_done_and_two_sessions_are_apart(visit, browser, tmp_path):
    other_window = browser.browser.new_context()  # Chromium slows down a page behind another one
    one, two = visit(), visit(window=other_window)
    rows = [{"reference": "Small effusion.", "prediction": "Small effusion."}] * 500
    tab(one, "A file")
    one.locator("#upload input[type=file]").set_input_files(write_csv(tmp_path / "one.csv", rows))
    one.locator("#table table").wait_for()
    choose(one, "Judge", "slow:0.05")
    one.locator("#start").click()
    one.get_by_text(re.compile(r"of [\d,]+ .*left")).first.wait_for()
    # meanwhile another session has an answer, and sees nothing of the first one
    example(two, "false finding")
    assert two.locator("#answer .score").inner_text().split("\n")[1] == "−0.3333"
    tab(two, "A file")
    assert "one.csv" not in two.locator("body").inner_text()
    shot(one, "file-running")
    one.locator("#stop").click()
    one.locator("#rows table").wait_for()
    summary = one.locator("#summary").inner_text()
    done = int(summary.split(" of 500 pairs were judged")[0].split()[-1])
    assert 0 < done < 500
    tab(one, "One pair")
    assert one.locator("#reference textarea").input_value() == ""
    other_window.close()


def test_unscored_pairs_and_a_judge_that_cannot_be_loaded(visit):
    page = visit()
    choose(page, "Judge", "broken:0")
    page.get_by_role("button", name="hedged", exact=True).click()
    page.locator("#answer [role=alert]").wait_for()
    assert "The model cannot be had. Accept its terms first." in page.locator("#answer").inner_text()
    choose(page, "Judge", "moody:2")
    for _ in range(2):
        page.locator("#answer .report").or_(page.locator("#answer [role=alert]")).first.wait_for()
        page.locator("#score").click()
        page.wait_for_timeout(700)
        if "Unscored" in page.locator("#answer").inner_text():
            break
    assert "the model <b>refused</b>" in page.locator("#answer").inner_text()
    assert page.locator("#answer .score").count() == 0
    shot(page, "pair-unscored")


def test_systems_are_compared_and_a_score_opens_its_pair(visit, tmp_path):
    page = visit()
    compare_sample(page)
    text = page.locator("#compare-summary").inner_text()
    assert "system_a − system_b" in text
    assert "+0.354" in text
    page.locator("#compare-rows button[data-index]").nth(1).click()
    page.locator("#answer h2").wait_for()
    assert page.locator("#answer h2").inner_text() == "system_b: pair invented"
    # two files of another order without an id are refused, with one they are joined
    one = write_csv(tmp_path / "one.csv", [{"id": "1", "reference": "Effusion.", "prediction": "Effusion."}, {"id": "2", "reference": "Mass.", "prediction": "Clear lungs."}])  # fmt: skip
    two = write_csv(tmp_path / "two.csv", [{"id": "2", "reference": "Mass.", "prediction": "Mass."}, {"id": "1", "reference": "Effusion.", "prediction": "Mass."}])  # fmt: skip
    tab(page, "Compare")
    page.locator("#compare-upload input[type=file]").set_input_files([one, two])
    page.get_by_text("two.csv").first.wait_for()
    choose(page, "Id", "(none)")
    page.locator("#compare-start").click()
    page.locator("#compare-progress [role=alert]").wait_for()
    assert "same order" in page.locator("#compare-progress").inner_text()
    choose(page, "Id", "id")
    page.locator("#compare-start").click()
    page.get_by_text("one − two").first.wait_for()


def test_nothing_is_left_when_the_page_is_closed(space, browser, tmp_path):
    from space.judging import Run

    page = browser.new_page()
    page.goto(space.url)
    rows = [{"reference": "Small effusion.", "prediction": "Small effusion."}] * 900
    tab(page, "A file")
    page.locator("#upload input[type=file]").set_input_files(write_csv(tmp_path / "p.csv", rows))
    page.locator("#table table").wait_for()
    choose(page, "Judge", "slow:0.05")
    page.locator("#start").click()
    page.get_by_text(re.compile(r"of [\d,]+ .*left")).first.wait_for()
    going = [
        thing for thing in gc.get_objects() if isinstance(thing, Run) and not thing.stopped and len(thing.pairs) == 900
    ]
    assert len(going) == 1
    page.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (space.demo.state_holder.session_data or not going[0].stopped):
        time.sleep(0.2)
    assert going[0].stopped
    assert dict(space.demo.state_holder.session_data) == {}
    assert uploads(space) == []


def test_reports_are_not_logged(visit, capfd, caplog):
    page = visit()
    page.locator("#reference textarea").fill("Zebra-coloured cardiomegaly.")
    page.locator("#age textarea").fill("no age at all")
    page.locator("#score").click()
    page.locator("#answer [role=alert]").wait_for()
    assert "can't be read" in page.locator("#answer").inner_text()
    page.locator("#age textarea").fill("")
    page.locator("#score").click()
    page.locator("#answer .score").wait_for()
    out = capfd.readouterr()
    assert "Zebra" not in out.out + out.err + caplog.text
