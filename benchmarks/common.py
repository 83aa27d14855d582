"""Shared by the benchmarks: reads cases, scores them, shows and writes figures."""

import csv
import json
import math
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from crimson_core import CrimsonScorer, make_pairs
from crimson_core.compare.exports import json_ready
from crimson_core.errors import InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair
from crimson_core.run.pairs import pairs_from_rows
from crimson_core.run.scorer import PairResult
from crimson_core.run.tables import column_names, open_table
from training import journal
from training.command import run as command_line

CANDIDATES = ("C1", "C2")  # of a RadPref case

JUDGE_HELP = (
    "Judge spec: offline, offline+minilm, default, hf:<Hub id or folder>, vllm:<Hub id or folder>, "
    "openai:<model> or azure:<deployment>."
)
JudgesOption = Annotated[list[str], typer.Option("--judge", "-j", help=f"{JUDGE_HELP} May be given several times.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file, as JSON.")]
RadPrefArgument = Annotated[Path, typer.Argument(metavar="FILE", help="RadPref cases, as JSON.")]

console = Console(highlight=False, markup=False, emoji=False)  # ids and reasons are data
if not console.is_terminal:
    console.width = 160  # a file or pipe has no width, and rich would fold the tables to 80


def read_cases(file: Path) -> list[dict[str, Any]]:
    """The cases of a benchmark file.

    Raises:
        InputError: The file cannot be read or holds no cases.
    """
    try:
        cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} is no benchmark file: give JSON with a list 'cases'.") from None
    if not cases:
        raise InputError(f"{file} holds no cases.")
    return cases


def report_pairs(file: Path) -> list[ReportPair]:
    """The report pairs of RadPref cases (JSON), or of a table in a format of `crimson score`.

    Raises:
        InputError: The file cannot be read or holds no report pairs.
    """
    if file.suffix.lower() == ".json":
        return radpref_pairs(read_cases(file))
    rows = open_table(file).rows
    columns = {name: name for name in ("id", *CONTEXT_FIELDS) if name in column_names(rows)}
    return pairs_from_rows(rows, {"prediction": "prediction", "reference": "reference", **columns}, file.name)


def radpref_pairs(cases: Sequence[dict[str, Any]]) -> list[ReportPair]:
    """The report pairs of RadPref cases, case by case."""
    rows = [(case, case["candidates"][name]) for case in cases for name in CANDIDATES]
    return make_pairs(
        predictions=[candidate["report"] for _, candidate in rows],
        references=[case["reference"]["report"] for case, _ in rows],
        patient_contexts=[case["context"] for case, _ in rows],
    )


def score_with(judge: str, pairs: Sequence[ReportPair]) -> tuple[list[PairResult], str]:
    """Score pairs with a judge; return the results and the signature, and print why pairs are unscored."""
    scorer = CrimsonScorer(judge)
    results = scorer.score(pairs, progress=sys.stderr.isatty())
    for result in results:
        if result.evaluation is None:
            console.print(f"{judge}: pair {result.index + 1} is unscored: {result.failure}")
    return results, scorer.signature


def table(title: str, headers: Iterable[str], left: int = 1) -> Table:
    """An empty table; its first `left` columns are for words, the others for numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, header in enumerate(headers):
        made.add_column(header, justify="left" if number < left else "right", overflow="fold")
    return made


def number(value: float, digits: int = 2) -> str:
    """Format a figure for a table; an undefined one is a dash."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def ratio(part: float, whole: float) -> float:
    """`part / whole`; NaN if `whole` is 0."""
    return part / whole if whole else math.nan


def write_json(file: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON if a file is given; NaN becomes null, since JSON has no NaN."""
    if file:
        journal.write_json(file, json_ready(figures))


def write_csv(file: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write rows with the same keys as CSV."""
    rows = iter(rows)
    first = next(rows)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(first))
        writer.writeheader()
        writer.writerows(chain([first], rows))


run = partial(command_line, name="benchmark")  # a function as a command line


def peak_mb() -> float:
    """Peak resident memory of this process."""
    try:  # Linux's getrusage would also count the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except FileNotFoundError:
        from resource import RUSAGE_SELF, getrusage

        return getrusage(RUSAGE_SELF).ru_maxrss / 2**20  # in bytes on macOS
