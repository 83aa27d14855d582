"""`crimson score`: scores the report pairs of a file."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.table import Table as Grid

from crimson_core.cli import options as opt
from crimson_core.cli.results import ENDINGS, Output
from crimson_core.cli.store import StoreOptions, store_line
from crimson_core.compare.formats import count, printable
from crimson_core.compare.parts import part_of
from crimson_core.compare.summary import Summary
from crimson_core.errors import CrimsonError, InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair
from crimson_core.run.accelerate import AccelerateJudge, launched
from crimson_core.run.files import json_line, without_links
from crimson_core.run.pairs import TablePairs
from crimson_core.run.scorer import CrimsonScorer, PairResult
from crimson_core.run.tables import (
    Table,
    first_rows,
    guess_ending,
    open_table,
    parse_table,
    with_names,
)

_STANDARD = "-"  # the file that is standard input or output
_IN_STORE = "What was judged is in the store: run the same command again to go on."
_MOST_ROWS = 50  # of the table; -o has them all
_SHORT = {"false_findings": "false", "missing_findings": "missing", "attribute_errors": "attribute"}


def score(
    file: Annotated[
        Path,
        typer.Argument(help="CSV, TSV, JSONL, JSON or Parquet file with one report pair per row; - is standard input."),
    ],
    *,
    judge: opt.JudgeSpec = "default",
    shared: opt.Columns,
    prediction_column: opt.PredictionColumn = "prediction",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the results to this file; a new one is readable by you only. Its ending sets the format: .jsonl or none (one "
            "JSON line per pair), .json, .parquet, .csv or .tsv (scores and counts, without findings). - writes JSON lines to "
            "standard output, and the tables to standard error.",
        ),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Separator of CSV or TSV: one character, or tab.  [default: detected]")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of CSV or TSV, cp1252 for example.  [default: UTF-8, else detected]")
    ] = None,
    fill_missing: opt.FillMissing = False,
    judging: opt.JudgeOptions,
    repair: opt.Repair = True,
    strict: opt.Strict = False,
    stored: StoreOptions,
    engine: Annotated[
        Literal["ray"] | None, typer.Option(help="Judge in workers of Ray's, on this machine or on a cluster.")
    ] = None,
    workers: opt.Workers = None,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker (ray).")] = 0,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, or auto.  [default: Ray on this machine alone]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only the first rows.")] = None,
    progress: opt.Progress = None,
) -> None:
    """Score the report pairs of a file.

    Prints a table of the first pairs, the corpus summary and the signature. Exit status: 0 if every pair was scored, 3 if
    some were not, 2 if the input, the judge, the store or the output was refused, 130 if the run was interrupted.

    The store keeps judgements as they arrive, and the same judge never judges the same pair twice: to resume an interrupted run,
    give the same command again. Without a store, only -o keeps what was judged.

    With `accelerate launch -m crimson_core.cli score …`, several processes judge a share each; the first one reads, prints and
    writes.
    """
    options = opt.given(**vars(judging))
    if engine is None and (num_gpus or address):
        raise InputError("--num-gpus and --address are options of --engine ray. Add it, or leave them out.")
    if engine and launched():
        raise InputError("--engine ray starts its workers itself. Leave it out, or run it without a launcher.")
    if workers and launched():
        raise InputError("--workers starts processes, as the launcher has done already. Leave one of the two out.")
    if launched() and os.environ["RANK"] != "0":
        AccelerateJudge(judge, **options).serve()
        return
    if output and str(output) != _STANDARD and output.suffix.lower() not in ENDINGS:
        raise InputError(
            f"output {output} has an unknown ending. Give one of {', '.join(filter(None, ENDINGS))}, or none."
        )
    reference_column, optional = shared.reference_column, shared.optional
    with opt.warnings_as_lines(strict):
        table = _table(file, separator, encoding)
        names = [reference_column, prediction_column, *(name or role for role, name in optional.items())]
        table = with_names(table, names) if limit is None else first_rows(with_names(table, names), limit)
        fixed = {"reference": reference_column, "prediction": prediction_column}
        columns = opt.columns_by_role(table.columns, fixed, **optional)
        read = TablePairs(table, columns, fill_missing=fill_missing)
    kept_in = stored.path
    to_standard = output is not None and str(output) == _STANDARD
    if to_standard:
        output = None
    if output and kept_in and without_links(output) == without_links(kept_in.expanduser()):
        raise InputError(f"output {output} is the store, which would be overwritten. Give another path.")
    kept: dict[str, Any] = {
        "repair": repair,
        "strict": strict,
        "store": kept_in,
        "retry_failures": stored.retry_failures,
    }
    if engine == "ray":
        from crimson_core.run.ray import RayJudge

        scorer = CrimsonScorer(RayJudge(judge, workers=workers, num_gpus=num_gpus, address=address, **options), **kept)
    elif launched():
        scorer = CrimsonScorer(AccelerateJudge(judge, **options), **kept)
    else:
        scorer = CrimsonScorer(judge, workers=workers, **kept, **options)

    # A judge that answers in the order of the pairs needs neither pairs nor results to be held: they stand in the files, and are
    # counted. The others need both.
    streaming = scorer.keeps_order
    pairs: TablePairs | list[ReportPair] = read if streaming else list(read)
    summary, shown = Summary(), list[PairResult]()
    interrupted = False
    with Output(output, file, stored=kept_in is not None) as out:
        try:
            each = partial(part_of, keep=_MOST_ROWS if streaming else None)
            shows, total = opt.wanted(progress), len(pairs)
            for part in scorer.stream_in_parts(pairs, each, progress=shows, total=total, copies=True):
                with _undisturbed():
                    out.write(part.lines)
                    if to_standard and streaming:
                        sys.stdout.buffer.write(part.lines)
                    summary.merge(part.summary)
                    shown += part.kept
        except KeyboardInterrupt:
            interrupted = True
        except CrimsonError:
            if scorer.store and summary.n_pairs:
                print(_IN_STORE, file=sys.stderr)
            raise
        if not streaming:
            results = scorer.checked_together(cast(Sequence[ReportPair], pairs), shown)
            summary, shown = Summary(results), results[:_MOST_ROWS]
        if not interrupted:
            out.finish(None if streaming else results, scorer.signature)
            if isinstance(scorer.judge, AccelerateJudge):
                scorer.judge.close()  # where the run broke off, the launcher ends the other processes

    if to_standard and not streaming:
        sys.stdout.buffer.writelines(json_line(result.as_dict()).encode() for result in results)
    context_columns = [column for role, column in columns.items() if role in CONTEXT_FIELDS]
    _print_results(
        shown,
        summary,
        scorer.signature,
        context_columns,
        scorer.store,
        _without_words(read),
        opt.console(stderr=to_standard),
    )
    if interrupted:
        print(f"Interrupted: {summary.n_pairs} of {len(pairs)} pairs were judged.", file=sys.stderr)
        if scorer.store:
            print(_IN_STORE, file=sys.stderr)
        raise typer.Exit(opt.INTERRUPTED)
    if summary.failures:
        raise typer.Exit(opt.UNSCORED)


def _table(file: Path, separator: str | None, encoding: str | None) -> Table:
    if str(file) != _STANDARD:
        return replace(open_table(file, separator, encoding), source=file.name)
    data = sys.stdin.buffer.read()
    return parse_table(data, guess_ending(data), "standard input", separator=separator, encoding=encoding)


def _without_words(read: TablePairs) -> str:
    """Counts of empty reports and blank rows for the summary; an empty string if there are none."""
    counts = {
        "empty reference": read.n_empty["reference"],
        "empty prediction": read.n_empty["prediction"],
        "blank row left out": read.n_blank,
    }
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, which is short."""
    came: list[int] = []
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        if usual is signal.default_int_handler:
            signal.signal(signal.SIGINT, usual)
    if came:
        raise KeyboardInterrupt


def _print_results(
    first: list[PairResult],
    summary: Summary,
    signature: str,
    context_columns: list[str],
    store: Path | None,
    empty: str,
    out: Console,
) -> None:
    table = Grid("row", box=None, pad_edge=False, header_style="bold")
    table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=40)
    for header in ("score", *_SHORT.values()):
        table.add_column(header, justify="right")
    table.add_column("attribute errors, repairs or why unscored", overflow="fold")
    for result in first:
        table.add_row(str(result.index + 1), printable(result.id or ""), *_cells(result))
    out.print(table)
    if summary.n_pairs > len(first):
        out.print(f"… and {summary.n_pairs - len(first)} more pairs; -o writes them all")

    out.print()
    out.print(f"CRIMSON score  {_number(summary.crimson_score)}  mean of {count(summary.n_scored, 'pair')}")
    means = "  ".join(f"{name} {_number(summary.mean_errors[kind], 2)}" for kind, name in _SHORT.items())
    out.print(f"Errors a pair  {means}")
    suspect = f"   suspect {summary.n_suspect}" if summary.n_suspect else ""
    out.print(f"Unscored       {summary.n_unscored}   repaired {summary.n_repaired}{suspect}")
    if summary.n_unrecognised:
        out.print(
            f"Unrecognised   {count(summary.n_unrecognised, 'pair')}: of a report this judge knows hardly a word, so that findings may be missing"
        )
    if empty:
        out.print(f"No words       {empty}")
    out.print(f"Context        {', '.join(context_columns) or 'none'}")
    out.print(f"Signature      {signature}", soft_wrap=True)
    if store:
        line = store_line(summary.n_pairs, summary.n_read, summary.n_failures_read, store)
        out.print(f"Store          {line}", soft_wrap=True)
    out.print("Research use only, not for clinical decisions.")


def _cells(result: PairResult) -> list[str]:
    outcome = result.outcome
    if outcome is None:
        return ["", "", "", "", f"unscored: {result.failure}"]
    counts = outcome.error_counts
    kinds = [f"{kind.removesuffix('_errors')} {n}" for kind, n in counts.items() if n and kind not in _SHORT]
    notes = ", ".join(kinds) + (f" ({len(result.repairs)} repairs)" if result.repairs else "")
    notes += f" suspect: {'; '.join(result.suspicions)}" if result.suspicions else ""
    notes += f" unrecognised: {' and '.join(result.unrecognised)}" if result.unrecognised else ""
    return [_number(result.crimson_score), *(str(counts[kind]) for kind in _SHORT), notes]


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"
