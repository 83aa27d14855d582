"""Wording: does a judge read one and the same thing however it is worded?

A file holds small cases of several kinds, `{"cases": [{"kind", "reference", "candidates": {name: text}, "expected", "why"}]}`.
What is expected bounds the scores of the candidates or ranks them: "A >= 0.9", "A > B", "A = B" (within 0.01).
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import JsonOption, JudgesOption, console, run, write_json
from benchmarks.expectations import count_passed, judge_cases, passed_table, read_expectations, scores_line


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Cases with bounds and rankings, as JSON.")],
    judges: JudgesOption = ["offline"],  # noqa: B006 - typer copies it
    failed: Annotated[bool, typer.Option("--failed", help="List the cases that fail, with their texts.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 if a case fails.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Pass rate of small cases per kind, and in all."""
    cases = read_expectations(file, "kind")
    figures = {judge: _judge(judge, cases, failed) for judge in judges}
    write_json(json_file, figures)
    if strict and any(case["failed"] for result in figures.values() for case in result["cases"]):
        raise typer.Exit(1)


def _judge(judge: str, cases: list[dict[str, Any]], failed: bool) -> dict[str, Any]:
    done, signature = judge_cases(judge, cases, "kind")
    kinds = count_passed(done, "kind")
    if failed:
        _list_failed(judge, cases, done)
    console.print(passed_table(f"Wording: {judge}", "kind", kinds))
    console.print(f"\nSignature  {signature}", soft_wrap=True)
    return {"signature": signature, "cases": done, "kinds": kinds}


def _list_failed(judge: str, cases: list[dict[str, Any]], done: list[dict[str, Any]]) -> None:
    for case, result in zip(cases, done, strict=True):
        if not result["failed"]:
            continue
        console.print(f"{judge}: case {case['id']}, {case['kind']}")
        console.print(f"  fails      {', '.join(result['failed'])}   scores  {scores_line(result['scores'])}")
        console.print(f"  reference  {case['reference']}")
        for name, candidate in case["candidates"].items():
            console.print(f"  {name:<9}  {candidate['text']}")
        console.print(f"  why        {case.get('why', '')}\n")


if __name__ == "__main__":
    run(main)
