"""Parts of a run's output, made in the process that judges, so that no other process has to read the evaluations."""

from typing import NamedTuple

from crimson_core.compare.summary import Summary
from crimson_core.run.files import json_line
from crimson_core.run.scorer import PairResult


class Part(NamedTuple):
    """Some results of a run."""

    lines: bytes  # a line of JSON per result
    summary: Summary  # of these results alone
    kept: list[PairResult]  # the results that were to be kept


def part_of(results: list[PairResult], keep: int | None = None) -> Part:
    """Make a part of results; None keeps all of them, a number those of so many first pairs of the run."""
    kept = [result.packed() for result in results if keep is None or result.index < keep]
    lines, summary = [], Summary()
    for result in results:
        outcome = result.outcome  # read once for both
        lines.append(json_line(result.as_dict(outcome)))
        summary.add_outcome(result, outcome)
    return Part("".join(lines).encode(errors="backslashreplace"), summary, kept)
