"""Cases with expectations about the scores of their candidates; shared by the benchmarks RadJudge and wording.

An expectation compares two candidates ("A > B") or a candidate with a number ("A >= 0.9") by one of `>`, `>=`, `<`, `<=`
and `=`, which means within 0.01. An unscored candidate meets no expectation.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.common import console, number, ratio, read_cases, score_with, table, write_json
from crimson_core import make_pairs
from crimson_core.errors import InputError

_TOLERANCE = 0.01
_ROUNDING = 1e-9  # scores have four decimals; their difference in floating point is a little off
_SIGNS: dict[str, Callable[[float], bool]] = {  # of the difference between the two sides; NaN fulfils none
    ">": lambda difference: difference > _ROUNDING,
    ">=": lambda difference: difference >= -_ROUNDING,
    "<": lambda difference: difference < -_ROUNDING,
    "<=": lambda difference: difference <= _ROUNDING,
    "=": lambda difference: abs(difference) <= _TOLERANCE + _ROUNDING,
}


Case = dict[str, Any]


def read_expectations(file: Path, group: str) -> list[Case]:
    """Read and check the cases of a file; each has the keys id, `group`, reference, candidates and expected.

    A candidate is a record with `text` and perhaps `context`; in the file it may be the text alone. The id defaults to the
    case's number.

    Raises:
        InputError: The file cannot be read, a case lacks a key, or an expectation is invalid.
    """
    cases = []
    for position, case in enumerate(read_cases(file), 1):
        lacking = {group, "reference", "candidates", "expected"} - case.keys()
        if lacking:
            raise InputError(f"{file} case {position} has no {min(lacking)!r}.")
        candidates = {name: {"text": c} if isinstance(c, str) else c for name, c in case["candidates"].items()}
        for expectation in case["expected"]:
            holds(expectation, dict.fromkeys(candidates, 0.0))  # refuses a bad one before any report is judged
        cases.append({"id": str(position)} | case | {"candidates": candidates})
    return cases


def holds(expectation: str, scores: Mapping[str, float]) -> bool:
    """Whether an expectation holds for the scores of a case's candidates.

    Raises:
        InputError: It is not an expectation about these candidates.
    """
    try:
        first, sign, second = expectation.split()
        difference = scores[first] - (scores[second] if second in scores else float(second))
        return _SIGNS[sign](difference)
    except (ValueError, KeyError):
        raise InputError(
            f"expectation {expectation!r} is none. Write 'A > B' or 'A > 0.5' with the case's names; "
            f"the signs are {', '.join(_SIGNS)}."
        ) from None


def compare_judges(
    judges: list[str],
    cases: list[Case],
    group: str,
    show: Callable[[str, list[Case], list[Case]], None],
    json_file: Path | None,
) -> bool:
    """Judge cases, print each judge's results with `show` and pass rates by `group`, and return whether all pass."""
    figures = {}
    for judge in judges:
        done, signature = _judge_cases(judge, cases, group)
        passed = _count_passed(done, group)
        show(judge, cases, done)
        console.print(_passed_table(judge, group, passed))
        console.print(f"\nSignature  {signature}", soft_wrap=True)
        figures[judge] = {"signature": signature, "cases": done, "passed": passed}
    write_json(json_file, figures)
    return not any(case["failed"] for result in figures.values() for case in result["cases"])


def scores_line(scores: Mapping[str, float]) -> str:
    """The scores of a case's candidates in one line."""
    return "  ".join(f"{name} {number(score, 3)}" for name, score in scores.items())


def _judge_cases(judge: str, cases: list[Case], group: str) -> tuple[list[Case], str]:
    """Each case's scores and failed expectations, without its texts, and the signature of the scores."""
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
        failed = [expectation for expectation in case["expected"] if not holds(expectation, case_scores)]
        done.append({"id": case["id"], group: case[group], "scores": case_scores, "failed": failed})
    return done, signature


def _count_passed(done: list[Case], group: str) -> dict[str, dict[str, int]]:
    """How many cases of each group there are, and how many pass."""
    counts: dict[str, dict[str, int]] = {}
    for case in done:
        count = counts.setdefault(case[group], {"passed": 0, "cases": 0})
        count["cases"] += 1
        count["passed"] += not case["failed"]
    return counts


def _passed_table(judge: str, group: str, counts: dict[str, dict[str, int]]) -> Table:
    """The pass rate of each group and of all cases."""
    made = table(f"Cases that pass: {judge}", (group, "passed", "cases", "rate"))
    every = {key: sum(count[key] for count in counts.values()) for key in ("passed", "cases")}
    for name, count in (*counts.items(), ("all", every)):
        rate = number(ratio(count["passed"], count["cases"]))
        made.add_row(name, str(count["passed"]), str(count["cases"]), rate, style="bold" if count is every else None)
    return made
