"""RadJudge: does a judge rank the candidates of each case as it should?

"A > B" holds if A scores strictly higher than B, "A = B" if their scores differ by at most 0.01. An unscored candidate fails
its rankings.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import JsonOption, JudgesOption, console, run, table
from benchmarks.expectations import Case, compare_judges, read_expectations, scores_line


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="RadJudge cases, as JSON.")],
    judges: JudgesOption = ["offline"],  # noqa: B006 - typer copies it
    json_file: JsonOption = None,
) -> None:
    """Rank the candidates of RadJudge cases; exit status 1 if a case fails."""
    if not compare_judges(judges, read_expectations(file, "category"), "category", _show, json_file):
        raise typer.Exit(1)


def _show(judge: str, _: list[Case], done: list[Case]) -> None:
    shown = table(f"RadJudge cases: {judge}", ("case", "category", "scores", "result"), left=4)
    for case in done:
        result = "pass" if not case["failed"] else f"FAIL {', '.join(case['failed'])}"
        shown.add_row(case["id"], case["category"], scores_line(case["scores"]), result)
    console.print(shown)
    console.print()


if __name__ == "__main__":
    run(main)
