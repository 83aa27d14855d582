"""Wording: does a judge read the same thing in other words?

A file contains small cases, `{"cases": [{"kind", "reference", "candidates": {name: text}, "expected", "why"}]}`. Expectations
bound or rank the scores of the candidates: "A >= 0.9", "A > B", "A = B" (within 0.01).
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import JsonOption, JudgesOption, console, run
from benchmarks.expectations import Case, compare_judges, read_expectations, scores_line


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Cases with bounds and rankings, as JSON.")],
    judges: JudgesOption = ["offline"],  # noqa: B006 - typer copies it
    failed: Annotated[bool, typer.Option("--failed", help="List the cases that fail, with their texts.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 if a case fails.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Print the pass rate of small cases, per kind and in all."""
    show = _list_failed if failed else lambda *_: None
    if not compare_judges(judges, read_expectations(file, "kind"), "kind", show, json_file) and strict:
        raise typer.Exit(1)


def _list_failed(judge: str, cases: list[Case], done: list[Case]) -> None:
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
