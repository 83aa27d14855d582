"""RadJudge: does a judge rank the candidates of each case as it should?

"A > B" holds where A scores strictly higher than B, "A = B" where their scores are within 0.01. Exit status 1 if any
ranking fails; an unscored candidate fails its rankings.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import JsonOption, JudgesOption, console, run, table, write_json
from benchmarks.expectations import count_passed, judge_cases, passed_table, read_expectations, scores_line


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="RadJudge cases, as JSON.")],
    judges: JudgesOption = ["offline"],  # noqa: B006 - typer copies it
    json_file: JsonOption = None,
) -> None:
    """Rank the candidates of RadJudge cases; exit status 1 if a case fails."""
    cases = read_expectations(file, "category")
    figures = {judge: _judge(judge, cases) for judge in judges}
    write_json(json_file, figures)
    if any(case["failed"] for result in figures.values() for case in result["cases"]):
        raise typer.Exit(1)


def _judge(judge: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    done, signature = judge_cases(judge, cases, "category")
    categories = count_passed(done, "category")
    shown = table(f"RadJudge cases: {judge}", ("case", "category", "scores", "result"), left=4)
    for case in done:
        result = "pass" if not case["failed"] else f"FAIL {', '.join(case['failed'])}"
        shown.add_row(case["id"], case["category"], scores_line(case["scores"]), result)
    for made in (shown, passed_table(f"RadJudge categories: {judge}", "category", categories)):
        console.print(made)
        console.print()
    console.print(f"Signature  {signature}", soft_wrap=True)
    return {"signature": signature, "cases": done, "categories": categories}


if __name__ == "__main__":
    run(main)
