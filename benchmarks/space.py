"""The speed of the Space in a browser: first paint, and the time from a click to the answer for one pair and for a file.

Runs `app.py` with the offline judge in Debian's Chromium, driven by Playwright; each round is a fresh session.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.common import (
    JsonOption,
    RadPrefArgument,
    console,
    number,
    report_pairs,
    run,
    table,
    write_csv,
    write_json,
)
from crimson_core.errors import CrimsonError

_ROOT = Path(__file__).resolve().parent.parent
_STARTS_WITHIN = 120  # seconds
_BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_FIRST_PAINT_JS = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"


def main(
    radpref: RadPrefArgument,
    pairs: Annotated[
        int, typer.Option(min=1, help="Rows of the file, made of the RadPref pairs again and again.")
    ] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Sessions that are timed.")] = 5,
    json_file: JsonOption = None,
) -> None:
    """Time the steps of a visit."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if not chromium:
        raise CrimsonError("there is no chromium on the PATH. Install it: apt-get install chromium")
    cases = report_pairs(radpref)
    with tempfile.TemporaryDirectory() as folder, _serve() as url, sync_playwright() as playwright:
        file = Path(folder) / "pairs.csv"
        rows = ({"reference": pair.reference, "prediction": pair.candidate} for pair in islice(cycle(cases), pairs))
        write_csv(file, rows)
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER)
        visits = [_visit(browser, url, file, cases[0]) for _ in range(rounds)]
    figures = {what: {"median": median(times), "all": times} for what, times in _columns(visits).items()}
    made = table(f"Seconds in a browser, median of {rounds} sessions (lowest to highest)", ("what", "median", "range"))
    for what, row in figures.items():
        made.add_row(what, number(row["median"]), f"{number(min(row['all']))} to {number(max(row['all']))}")
    console.print(made)
    write_json(json_file, {"pairs": pairs, "seconds": figures})


def _visit(browser: Any, url: str, file: Path, pair: Any) -> dict[str, float]:
    context = browser.new_context()
    page = context.new_page()
    started = time.perf_counter()
    page.goto(url)
    page.locator("#score").wait_for()
    times = {"first contentful paint": page.evaluate(_FIRST_PAINT_JS), "page ready": time.perf_counter() - started}

    page.locator("#reference textarea").fill(pair.reference)
    page.locator("#candidate textarea").fill(pair.candidate)
    started = time.perf_counter()
    page.locator("#score").click()
    page.locator("#answer .score").wait_for()
    times["one pair, click to answer"] = time.perf_counter() - started

    page.get_by_role("tab", name="A file").click()
    page.locator("#upload input[type=file]").set_input_files(file)
    page.locator("#table table").wait_for()
    started = time.perf_counter()
    page.locator("#start").click()
    page.locator("#rows table").wait_for(timeout=600_000)
    times["file, click to answer"] = time.perf_counter() - started
    context.close()
    return times


def _columns(visits: list[dict[str, float]]) -> dict[str, list[float]]:
    return {what: [visit[what] for visit in visits] for what in visits[0]}


@contextmanager
def _serve() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "CRIMSON_JUDGE": "offline",
        "CRIMSON_MAX_ROWS": "1000000",
    }
    server = subprocess.Popen([sys.executable, "app.py"], cwd=_ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _STARTS_WITHIN
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise CrimsonError("app.py does not start. Run it alone to see why.") from None
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    run(main)
