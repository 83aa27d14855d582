"""The Space's API for programs: scores one pair, or a table that is given as text.

Each endpoint takes one object: Gradio logs the inputs of a call that has too few of them, and reports must stay out of the log.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from crimson_core import CrimsonError, InputError, PairResult, ReportPair, make_pairs, summarize
from crimson_core.protocol.pair import CONTEXT_FIELDS
from crimson_core.run.tables import READABLE, guess_ending, parse_table
from space.judging import judge_in_turns, scorer_for
from space.settings import Settings
from space.uploads import UploadedTable, check_lengths, checked_pairs, guess_columns

_TEXT = tuple(ending for ending in READABLE if ending != ".parquet")
_DELIMITED = (".csv", ".tsv")


def add(settings: Settings) -> None:
    """Add the endpoints `score` and `score_table` to the Blocks that are open."""

    def score(pair: dict) -> dict:
        """Score one report pair: {"reference", "candidate", "age", "sex", "indication", "judge"}; the last four are optional."""
        try:
            given = _texts(pair, ("reference", "candidate"), (*CONTEXT_FIELDS, "judge"))
            (result,), signature = _judged(_pairs(given, settings), given.get("judge"), settings)
        except CrimsonError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return {"signature": signature} | result.as_dict()

    def score_table(table: dict) -> dict:
        """Score the pairs of a table: {"table": content of a file, "ending": ".csv", "judge"}; the last two are optional.

        Its columns are those of an upload: reference and prediction, and any of id, age, sex and indication.
        """
        try:
            given = _texts(table, ("table",), ("ending", "judge"))
            read = _read(given["table"], given.get("ending", ".csv"), settings)
            pairs = checked_pairs(read, guess_columns(read.columns), settings)
            results, signature = _judged(pairs, given.get("judge"), settings)
        except CrimsonError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return summarize(results, signature) | {"pairs": [result.as_dict() for result in results]}

    gr.api(score, api_name="score")
    gr.api(score_table, api_name="score_table")


def _texts(given: Any, needed: Sequence[str], possible: Sequence[str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise InputError(f"Give one object of texts with the keys {', '.join((*needed, *possible))}.")
    for key in needed:
        if key not in given:
            raise InputError(f"The key {key!r} is missing.")
    for key in given:
        if key not in (*needed, *possible):
            raise InputError(f"The key {key[:40]!r} is unknown. The keys are {', '.join((*needed, *possible))}.")
    for key, value in given.items():
        if not isinstance(value, str):
            unknown = ", or leave it out" * (key in possible)
            raise InputError(f"{key!r} is of type {type(value).__name__}. Give a text{unknown}.")
    return dict(given)


def _pairs(given: Mapping[str, str], settings: Settings) -> list[ReportPair]:
    context = {field: given.get(field) for field in CONTEXT_FIELDS}
    try:
        pairs = make_pairs([given["candidate"]], [given["reference"]], [context], where=lambda argument, row: argument)
    except InputError as error:
        raise InputError(str(error).replace("patient_contexts['age']", "'age'")) from None
    check_lengths(pairs, settings, lambda row: "The pair")
    return pairs


def _read(text: str, ending: str, settings: Settings) -> UploadedTable:
    if ending not in _TEXT:
        raise InputError(f"ending is {ending!r}. Give one of {', '.join(_TEXT)}.")
    data = text.encode(errors="replace")
    if len(data) > settings.max_bytes:
        raise InputError(f"The table is larger than {settings.max_megabytes} MB. Send a part of it.")
    if ending in _DELIMITED and guess_ending(data) not in _DELIMITED:
        raise InputError(f"The table looks like JSON, and ending is {ending!r}. Give '.json' or '.jsonl' as ending.")
    rows = parse_table(data, ending, "the table", tell=gr.Warning).rows
    if len(rows) > settings.max_rows:
        raise InputError(f"The table has {len(rows):,} rows; at most {settings.max_rows:,} are accepted.")
    return UploadedTable("the table", rows)


def _judged(pairs: list[ReportPair], judge: str | None, settings: Settings) -> tuple[list[PairResult], str]:
    judge = judge or settings.judge
    if judge not in settings.judges:
        raise InputError(f"judge {judge!r} is not offered here. Give one of {', '.join(settings.judges)}.")
    results = sorted(judge_in_turns(judge, pairs), key=lambda result: result.index)
    return results, scorer_for(judge).signature
