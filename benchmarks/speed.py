"""Speed: pairs per second compared with BLEU and ROUGE-L, files in several processes, a comparison, a store, and cold start.

Measurements that need a fresh process start one.
"""

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.common import JUDGE_HELP, JsonOption, console, number, report_pairs, run, table, write_csv, write_json
from crimson_core import CrimsonScorer
from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges import parse_spec
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.processes import cores

_STORED = 1_000  # pairs
_SYSTEMS, _GROUP = 5, 8
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
SENTENCES = (
    "There is a {} mm nodule in the right upper lobe.",
    "Small left pleural effusion, measuring {} cm in depth.",
    "The heart is mildly enlarged with a cardiothoracic ratio of {} %.",
    "No pneumothorax is seen {} hours after drainage.",
    "The endotracheal tube ends {} cm above the carina.",
    "Patchy opacity at the left base, unchanged since {} days ago.",
)

_NO_CODE = "PYTHONDONTWRITEBYTECODE"  # with which each process would compile the lexicon again
_ROOT = Path(__file__).resolve().parent.parent
_METRIC = _ROOT / "crimson_metric.py"

# Run by a fresh Python. evaluate's own import is timed apart: it takes longer than all else, and is not ours.
_LOAD_AND_COMPUTE = """
import json, sys, time
started = time.perf_counter()
import evaluate
imported = time.perf_counter()
metric, judge, prediction, reference = sys.argv[1:]
evaluate.load(metric, judge).compute(predictions=[prediction], references=[reference])
print(json.dumps([imported - started, time.perf_counter() - imported]))
"""
# Run by a fresh Python in a checkout: the seconds that its judge takes for each kind of text, and the scores.
_SCORE = """
import json, sys, time
from crimson_core import CrimsonScorer, make_pairs
file, judge = sys.argv[1:]
clock = time.process_time if judge == "offline" else time.perf_counter  # of this process, whatever else the machine does
scorer, seconds, scores = CrimsonScorer(judge), {}, {}
for name, groups in json.load(open(file)).items():
    groups = [make_pairs(*group) for group in groups]
    for _ in range(2):  # what a judge does once only is part of the cold start
        started = clock()
        results = [result for group in groups for result in scorer.score(group)]
        seconds[name] = clock() - started
    scores[name] = [result.crimson_score for result in results]
print(json.dumps([seconds, scores, scorer.signature]))
"""
# The command line, which tells its peak memory last.
_COMMAND = """
import atexit
from benchmarks.common import peak_mb
from crimson_core.cli import main
atexit.register(lambda: print(peak_mb()))
main()
"""


def main(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="RadPref cases, as JSON, or a table of report pairs, such as examples/reports.csv."
        ),
    ],
    judge: Annotated[str, typer.Option("--judge", "-j", help=JUDGE_HELP)] = "offline",
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Pairs of the smaller of two files (5,000), or of an hf judge's runs (16)."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Times that all is measured (5), or an hf judge's runs (3).")
    ] = None,
    studies: Annotated[int, typer.Option(min=2, help="Of the comparison of five systems.")] = 2_000,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Batch sizes of an hf judge's runs.  [default: 1, 4, 8, 16]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest output in an hf judge's runs.")] = 300,
    beside: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Compare the throughput with that of another checkout, in turns."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure only throughput, other_metrics, files, comparison, store or cold_start; may be given several "
            "times.  [default: all; with --beside throughput]"
        ),
    ] = None,
    way: Annotated[
        list[str] | None, typer.Option(help="Part of an hf judge's runs, such as 'drafts, compact'.  [default: all]")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the speed of a judge."""
    first, *_ = reports = report_pairs(file)
    if parse_spec(judge).prefix == "hf":
        from benchmarks.generation import measure  # and with it torch

        figures = measure(
            judge,
            reports[: pairs or 16],
            batch_sizes=batch_size or (1, 4, 8, 16),
            rounds=rounds or 3,
            max_new_tokens=max_new_tokens,
            wanted=way or (),
        )
    else:
        rounds = rounds or 5
        parts = {
            "throughput": lambda: _throughput(judge, reports, rounds, beside),
            "other_metrics": lambda: _other_metrics(reports, rounds),
            "files": lambda: _files(judge, reports, (20_000, 60_000) if pairs is None else (pairs, 4 * pairs), rounds),
            "comparison": lambda: _comparison(judge, reports, studies),
            "store": lambda: _store(judge, reports, rounds),
            "cold_start": lambda: _cold_start(judge, first, rounds),
        }
        wanted = part or (["throughput"] if beside else list(parts))
        if unknown := sorted(set(wanted) - parts.keys()):
            raise InputError(f"There is no part {unknown[0]!r}. The parts are {', '.join(parts)}.")
        figures = {name: measured() for name, measured in parts.items() if name in wanted}
    write_json(json_file, {"judge": judge, **figures})


# Throughput


def _throughput(judge: str, pairs: Sequence[ReportPair], rounds: int, beside: Path | None = None) -> dict[str, Any]:
    """Pairs per second in one process on each kind of text, in turns with another checkout if there is one."""
    texts = _texts(pairs)
    counts = {name: sum(len(predictions) for predictions, *_ in groups) for name, groups in texts.items()}
    checkouts = {"here": _ROOT} | ({"there": beside.resolve()} if beside else {})
    seconds: dict[str, dict[str, list[float]]] = {place: {name: [] for name in texts} for place in checkouts}
    scores, signatures = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "texts.json")
        file.write_text(json.dumps(texts), encoding="utf-8")
        for _ in range(rounds):
            for place, root in checkouts.items():
                taken, scores[place], signatures[place] = json.loads(_python("-c", _SCORE, str(file), judge, root=root))
                for name in texts:
                    seconds[place][name].append(taken[name])

    rates = {place: {name: counts[name] / median(seconds[place][name]) for name in texts} for place in checkouts}
    made = table(
        f"Throughput: one process, medians of {rounds} rounds",
        ("", "pairs", "pairs/s", *(("there", "times", "same scores") if beside else ())),
    )
    for name, count in counts.items():
        figures = [number(rates["here"][name], 0)]
        if beside:
            there = rates["there"][name]
            same = sum(one == other for one, other in zip(scores["here"][name], scores["there"][name], strict=True))
            figures += [number(there, 0), number(rates["here"][name] / there), str(same)]
        made.add_row(name, str(count), *figures)
    console.print(made)
    for place, signature in signatures.items():
        console.print(f"{place}: {signature}")
    console.print()
    return {"pairs": counts, "seconds": seconds, "pairs_per_second": rates, "signatures": signatures}


def _texts(pairs: Sequence[ReportPair]) -> dict[str, list[tuple[list[str], list[str], list[dict[str, str] | None]]]]:
    """Kinds of text, each as calls with predictions, references and contexts: the pairs; a leaderboard, the systems of which write
    the reports of other pairs; and groups with one reference, as in GRPO.
    """

    def call(rows: Sequence[tuple[ReportPair, str]]) -> tuple[list[str], list[str], list[dict[str, str] | None]]:
        contexts = [pair.context.as_dict() if pair.context else None for pair, _ in rows]
        return [candidate for _, candidate in rows], [pair.reference for pair, _ in rows], contexts

    def other(place: int) -> str:
        return pairs[place % len(pairs)].candidate

    systems = [(pair, other(place * 7 + n)) for place, pair in enumerate(pairs) for n in range(_SYSTEMS)]
    groups = [
        [(pair, _sampled(pair.candidate, n, other(place * 7 + n))) for n in range(_GROUP)]
        for place, pair in enumerate(pairs)
    ]
    return {
        "as they are": [call([(pair, pair.candidate) for pair in pairs])],
        f"{_SYSTEMS} systems": [call(systems)],
        f"groups of {_GROUP}": list(map(call, groups)),
    }


def _sampled(report: str, n: int, other: str) -> str:
    """A report with one of its sentences left out and one of another report behind, as samples of one model differ."""
    told = _SENTENCE_END.split(report)
    added = _SENTENCE_END.split(other)
    return " ".join(
        [*(sentence for place, sentence in enumerate(told) if place != n % len(told)), added[n % len(added)]]
    )


def _other_metrics(pairs: Sequence[ReportPair], rounds: int) -> dict[str, float]:
    """Pairs per second of two word-based metrics, one pair at a time."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    bleu, rouge = BLEU(effective_order=True), RougeScorer(["rougeL"], use_stemmer=True)
    metrics: dict[str, Callable[[ReportPair], Any]] = {
        "sacreBLEU, a sentence": lambda pair: bleu.sentence_score(pair.candidate, [pair.reference]),
        "ROUGE-L, stemmed": lambda pair: rouge.score(pair.reference, pair.candidate),
    }
    rates = {}
    for name, metric in metrics.items():
        seconds = [_timed(lambda metric=metric: [metric(pair) for pair in pairs]) for _ in range(rounds)]  # type: ignore[misc]
        rates[name] = len(pairs) / median(seconds)
    console.print(f"Beside it: {', '.join(f'{name} {rate:.0f} pairs/s' for name, rate in rates.items())}\n")
    return rates


# Files: the command line over many pairs


def _files(judge: str, pairs: Sequence[ReportPair], sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """`crimson score -o` over files of distinct pairs, in one process and in one for each core, in turns."""
    ways = [1, *([cores()] if judge == "offline" and cores() > 1 else [])]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            file = Path(folder, f"{size}.csv")
            write_csv(file, map(_row, islice(endless_pairs(pairs), size)))
            command = ("score", str(file), "-j", judge, "-o", str(file.with_suffix(".jsonl")), "--workers")
            seconds: dict[int, list[float]] = {n: [] for n in ways}
            peaks: dict[int, float] = {}
            for _ in range(rounds):
                for n in ways:
                    started = time.perf_counter()
                    peaks[n] = measured_command(*command, str(n))
                    seconds[n].append(time.perf_counter() - started)
            rows += [{"pairs": size, "workers": n, "seconds": seconds[n], "peak_mb": peaks[n]} for n in ways]
    made = table(
        f"crimson score -o, a file: medians of {rounds} rounds",
        ("pairs", "processes", "seconds", "pairs/s", "times", "peak MB"),
        left=0,
    )
    for row in rows:
        taken = median(row["seconds"])
        alone = next(median(other["seconds"]) for other in rows if other["pairs"] == row["pairs"])
        figures = (number(taken, 1), number(row["pairs"] / taken, 0), number(alone / taken), number(row["peak_mb"], 0))
        made.add_row(f"{row['pairs']:,}", str(row["workers"]), *figures)
    console.print(made)
    console.print("From start to end; the peak is that of the first process.\n")
    return rows


def _comparison(judge: str, pairs: Sequence[ReportPair], studies: int) -> dict[str, Any]:
    """`crimson compare` on five systems with reports of other pairs."""
    reports = [pair.candidate for pair in pairs]
    rows = [
        {"reference": pair.reference}
        | {name: reports[(place * 7 + shift) % len(reports)] for shift, name in enumerate("abcde")}
        for place, pair in enumerate(islice(endless_pairs(pairs), studies))
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "systems.csv")
        write_csv(file, rows)
        started = time.perf_counter()
        systems = [word for name in "abcde" for word in ("--prediction-column", name)]
        peak = measured_command("compare", str(file), "-j", judge, *systems)
        seconds = time.perf_counter() - started
    console.print(f"crimson compare, five systems on {studies:,} studies: {seconds:.1f} s, peak {peak:.0f} MB\n")
    return {"studies": studies, "seconds": seconds, "peak_mb": peak}


def _row(pair: ReportPair) -> dict[str, str]:
    return {"reference": pair.reference, "prediction": pair.candidate}


def measured_command(*arguments: str) -> float:
    """Peak memory of a command, in MB."""
    return float(_python("-c", _COMMAND, *arguments, "--no-store", "--no-progress").splitlines()[-1])


# Store


def _store(judge: str, pairs: Sequence[ReportPair], rounds: int) -> dict[str, Any]:
    """Seconds without a store, while a new one is filled, and while it is read; in turns, since timings drift."""
    pairs = list(islice(endless_pairs(pairs), _STORED))
    seconds: dict[str, list[float]] = {"without a store": [], "a new store is filled": [], "the store is read": []}
    at_work: dict[str, list[float]] = {name: [] for name in seconds}  # of this process, whatever else the machine does
    with tempfile.TemporaryDirectory() as folder:
        for n in range(rounds):
            plain, kept = CrimsonScorer(judge), CrimsonScorer(judge, store=Path(folder, f"{n}.sqlite"))
            for name, scorer in zip(seconds, (plain, kept, kept), strict=True):
                gc.collect()  # so that none pays for what the one before it has left
                before = time.process_time()
                seconds[name].append(_timed(lambda scorer=scorer: scorer.score(pairs)))
                at_work[name].append(time.process_time() - before)
        size = Path(folder, "0.sqlite").stat().st_size / len(pairs)

    without, without_work = median(seconds["without a store"]), min(at_work["without a store"])
    made = table(
        f"Store: {len(pairs):,} pairs, {rounds} rounds",
        ("", "median s", "of that without", "least CPU s", "of that without"),
    )
    for name, values in seconds.items():
        least = min(at_work[name])
        figures = (median(values), median(values) / without, least, least / without_work)
        made.add_row(name, *map(number, figures))
    console.print(made)
    console.print(f"The file grows by {size / 1000:.1f} kB a pair.\n")
    return {"pairs": len(pairs), "seconds": seconds, "cpu_seconds": at_work, "bytes_per_pair": size}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# Cold start


def _cold_start(judge: str, pair: ReportPair, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pair.csv")
        write_csv(file, [_row(pair)])
        command = ("-m", "crimson_core.cli", "score", str(file), "--judge", judge, "--no-progress", "--store")
        stores = (str(Path(folder, f"{n}.sqlite")) for n in range(rounds))  # a new one each time, so that it is judged
        cli = [_timed(lambda: _python(*command, next(stores))) for _ in range(rounds)]
    arguments = (str(_METRIC), judge, pair.candidate, pair.reference)
    seconds = [json.loads(_python("-c", _LOAD_AND_COMPUTE, *arguments)) for _ in range(rounds)]
    imports, loads = zip(*seconds, strict=True)
    figures = {"crimson score": cli, "import evaluate": imports, "evaluate.load and compute": loads}

    made = table(f"Cold start: one pair, {rounds} fresh processes", ("", "median s", "least s", "most s"))
    for name, seconds in figures.items():
        made.add_row(name, *(number(value) for value in (median(seconds), min(seconds), max(seconds))))
    console.print(made)
    console.print("evaluate.load and compute is the time after import evaluate.\n")
    return figures


def _python(*arguments: str, root: Path = _ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env={name: value for name, value in os.environ.items() if name != _NO_CODE} | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CrimsonError(f"a fresh process failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def endless_pairs(pairs: Sequence[ReportPair]) -> Iterator[ReportPair]:
    """The pairs over and over, each with a new number, so that no cache helps."""
    for n, pair in enumerate(cycle(pairs)):
        yield ReportPair(f"{pair.reference} Accession {n}.", f"{pair.candidate} Accession {n}.", pair.context)


if __name__ == "__main__":
    run(main)
