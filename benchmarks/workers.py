"""The speed of one process compared with Ray with 1, 2, … workers, on the same pairs."""

import time
from itertools import islice
from typing import Annotated

import typer

from benchmarks.common import (
    JUDGE_HELP,
    JsonOption,
    RadPrefArgument,
    console,
    number,
    report_pairs,
    run,
    table,
    write_json,
)
from benchmarks.speed import endless_pairs
from crimson_core import CrimsonScorer
from crimson_core.errors import CrimsonError


def main(
    file: RadPrefArgument,
    judge: Annotated[str, typer.Option("--judge", "-j", help=JUDGE_HELP)] = "offline",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of each run.")] = 10_000,
    workers: Annotated[int, typer.Option(min=1, help="Most workers.")] = 2,
    json_file: JsonOption = None,
) -> None:
    """Time copies of the RadPref pairs, each with a number of its own."""
    from crimson_core.run.ray import RayJudge  # and with it Ray

    wanted = list(islice(endless_pairs(report_pairs(file)), pairs))
    scorer = CrimsonScorer(judge, workers=1)
    scorer.score(wanted[:1])  # what is done once only
    rows = []
    started = time.perf_counter()
    expected = scorer.score(wanted)
    rows.append({"way": "one process", "start": 0.0, "seconds": time.perf_counter() - started})
    for count in range(1, workers + 1):
        started = time.perf_counter()
        scorer = CrimsonScorer(RayJudge(judge, workers=count))
        ready = time.perf_counter()
        if scorer.score(wanted) != expected:
            raise CrimsonError("the workers' results are not those of one process.")
        rows.append({"way": f"Ray, workers: {count}", "start": ready - started, "seconds": time.perf_counter() - ready})

    made = table(f"{pairs:,} pairs, {judge}", ("", "start of Ray s", "judging s", "pairs/s"))
    for row in rows:
        made.add_row(row["way"], number(row["start"], 1), number(row["seconds"], 1), number(pairs / row["seconds"], 0))
    console.print(made)
    console.print("Judging includes the start of Ray's workers. The results were the same.")
    write_json(json_file, {"judge": judge, "pairs": pairs, "rows": rows})


if __name__ == "__main__":
    run(main)
