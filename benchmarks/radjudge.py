"""RadJudge: does a judge rank the candidates of each case as it should?

"A > B" holds where A scores strictly higher than B, "A = B" where their scores are within 0.01. Exit status 1 if any
ranking fails; an unscored candidate fails its rankings.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import JsonOption, JudgesOption, console, number, read_cases, run, score_with, table, write_json
from crimson_core import make_pairs
from crimson_core.errors import InputError

_TOLERANCE = 0.01
_ROUNDING = 1e-9  # scores have four decimals; their difference in floating point is a little off


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="RadJudge cases, as JSON.")],
    judges: JudgesOption = ["offline"],  # noqa: B006 - typer copies it
    json_file: JsonOption = None,
) -> None:
    """Rank the candidates of RadJudge cases; exit status 1 if a case fails."""
    cases = read_cases(file)
    figures = {judge: _judge(judge, cases) for judge in judges}
    write_json(json_file, figures)
    if any(case["failed"] for result in figures.values() for case in result["cases"]):
        raise typer.Exit(1)


def _judge(judge: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [(case, candidate) for case in cases for candidate in case["candidates"].values()]
    pairs = make_pairs(
        predictions=[candidate["text"] for _, candidate in rows],
        references=[case["reference"] for case, _ in rows],
        patient_contexts=[candidate.get("context") for _, candidate in rows],
    )
    results, signature = score_with(judge, pairs)
    scores = iter(result.crimson_score for result in results)
    done = []
    for case in cases:
        case_scores = {name: next(scores) for name in case["candidates"]}
        failed = [ranking for ranking in case["expected"] if not _holds(ranking, case_scores)]
        done.append({"id": case["id"], "category": case["category"], "scores": case_scores, "failed": failed})
    categories = _categories(done)
    _show(judge, signature, done, categories)
    return {"signature": signature, "cases": done, "categories": categories}


def _holds(ranking: str, scores: dict[str, float]) -> bool:
    try:
        first, sign, second = ranking.split()
        difference = scores[first] - scores[second]
    except (ValueError, KeyError):
        raise InputError(f"ranking {ranking!r} is none. Write 'C1 > C2' or 'C1 = C2', with the case's names.") from None
    if sign == ">":
        return difference > 0
    if sign == "=":
        return abs(difference) <= _TOLERANCE + _ROUNDING
    raise InputError(f"ranking {ranking!r} has the unknown sign {sign!r}. The signs are > and =.")


def _categories(cases: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for case in cases:
        count = counts.setdefault(case["category"], {"passed": 0, "cases": 0})
        count["cases"] += 1
        count["passed"] += not case["failed"]
    return counts


def _show(judge: str, signature: str, cases: list[dict[str, Any]], categories: dict[str, dict[str, int]]) -> None:
    cases_table = table(f"RadJudge cases: {judge}", ("case", "category", "scores", "result"), left=4)
    for case in cases:
        scores = "  ".join(f"{name} {number(score, 3)}" for name, score in case["scores"].items())
        result = "pass" if not case["failed"] else f"FAIL {', '.join(case['failed'])}"
        cases_table.add_row(case["id"], case["category"], scores, result)
    summary = table(f"RadJudge categories: {judge}", ("category", "passed", "cases"))
    for category, count in categories.items():
        summary.add_row(category, str(count["passed"]), str(count["cases"]))
    passed = sum(not case["failed"] for case in cases)
    summary.add_row("all", str(passed), str(len(cases)), style="bold")
    for made in (cases_table, summary):
        console.print(made)
        console.print()
    console.print(f"Signature  {signature}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
