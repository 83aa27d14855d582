"""`crimson score`: scores the report pairs of a file."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from crimson_core.cli.options import (
    INTERRUPTED,
    UNSCORED,
    AgeColumn,
    BaseUrl,
    BatchSize,
    Compile,
    Concurrency,
    Device,
    Dtype,
    FillMissing,
    IdColumn,
    IndicationColumn,
    JudgeSpec,
    PredictionColumn,
    Progress,
    ReferenceColumn,
    Repair,
    SexColumn,
    Strict,
    Workers,
    columns_by_role,
    console,
    given,
    printable,
    told_once_and_short,
    wanted,
)
from crimson_core.cli.store import NoStoreOption, RetryOption, StoreOption, store_line, store_path
from crimson_core.compare.exports import pairs_csv
from crimson_core.compare.summary import Summary
from crimson_core.errors import CrimsonError, InputError
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair
from crimson_core.run.accelerate import AccelerateJudge, launched
from crimson_core.run.files import check_writable, opened_private, written_whole
from crimson_core.run.scorer import CrimsonScorer, PairResult
from crimson_core.run.tables import (
    Rows,
    guess_ending,
    match_columns,
    pairs_from_rows,
    parse_rows,
    read_rows,
    without_blank_rows,
    write_parquet,
)

_STANDARD = "-"  # the file that is standard input or output
_MOST_ROWS = 50  # of the table; -o has them all
_SHORT = {"false_findings": "false", "missing_findings": "missing", "attribute_errors": "attribute"}


def score(
    file: Annotated[
        Path,
        typer.Argument(help="CSV, TSV, JSONL, JSON or Parquet file with one report pair per row; - is standard input."),
    ],
    judge: JudgeSpec = "default",
    reference_column: ReferenceColumn = "reference",
    prediction_column: PredictionColumn = "prediction",
    id_column: IdColumn = None,
    age_column: AgeColumn = None,
    sex_column: SexColumn = None,
    indication_column: IndicationColumn = None,
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
    fill_missing: FillMissing = False,
    batch_size: BatchSize = None,
    device: Device = None,
    dtype: Dtype = None,
    compile: Compile = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = None,
    repair: Repair = True,
    strict: Strict = False,
    store: StoreOption = None,
    no_store: NoStoreOption = False,
    retry_failures: RetryOption = False,
    engine: Annotated[
        Literal["ray"] | None, typer.Option(help="Judge in workers of Ray's, on this machine or on a cluster.")
    ] = None,
    workers: Workers = None,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker (ray).")] = 0,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, or auto.  [default: Ray on this machine alone]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only the first rows.")] = None,
    progress: Progress = None,
) -> None:
    """Score the report pairs of a file.

    Prints a table of the first pairs, the corpus summary and the signature. Exit status: 0 if every pair was scored, 3 if
    some were not, 2 if the input, the judge, the store or the output was refused, 130 if the run was interrupted.

    The store keeps judgements as they arrive, and the same judge never judges the same pair twice: to resume an interrupted run,
    give the same command again. Without a store, only -o keeps what was judged.

    With `accelerate launch -m crimson_core.cli score …`, several processes judge a share each; the first one reads, prints and
    writes.
    """
    options = given(
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        compile=compile,
        base_url=base_url,
        concurrency=concurrency,
    )
    if engine is None and (num_gpus or address):
        raise InputError("--num-gpus and --address are options of --engine ray. Add it, or leave them out.")
    if engine and launched():
        raise InputError("--engine ray starts its workers itself. Leave it out, or run it without a launcher.")
    if workers and launched():
        raise InputError("--workers starts processes, as the launcher has done already. Leave one of the two out.")
    if launched() and os.environ["RANK"] != "0":
        AccelerateJudge(judge, **options).serve()
        return
    if output and str(output) != _STANDARD and output.suffix.lower() not in _ENDINGS:
        raise InputError(
            f"output {output} has an unknown ending. Give one of {', '.join(filter(None, _ENDINGS))}, or none."
        )
    optional = {"id": id_column, "age": age_column, "sex": sex_column, "indication": indication_column}
    source = "standard input" if str(file) == _STANDARD else file.name
    with told_once_and_short(strict):
        rows = _read(file, source, separator, encoding)
        names = [reference_column, prediction_column, *(name or role for role, name in optional.items())]
        rows = match_columns(rows, names, source)[:limit]
        kept_rows = without_blank_rows(rows) if fill_missing else rows
        columns = columns_by_role(
            kept_rows, {"reference": reference_column, "prediction": prediction_column}, **optional
        )
        pairs = pairs_from_rows(kept_rows, columns, source, fill_missing=fill_missing)
        n_blank = len(rows) - len(kept_rows)
        del rows, kept_rows  # the pairs hold what is judged of them
    kept_in = store_path(store, no_store, retry_failures)
    to_standard = output is not None and str(output) == _STANDARD
    if to_standard:
        output = None
    if output and kept_in and output.resolve() == kept_in.expanduser().resolve():
        raise InputError(f"output {output} is the store, which would be overwritten. Give another path.")
    kept: dict[str, Any] = {"repair": repair, "strict": strict, "store": kept_in, "retry_failures": retry_failures}
    if engine == "ray":
        from crimson_core.run.ray import RayJudge

        scorer = CrimsonScorer(RayJudge(judge, workers=workers, num_gpus=num_gpus, address=address, **options), **kept)
    elif launched():
        scorer = CrimsonScorer(AccelerateJudge(judge, **options), **kept)
    else:
        scorer = CrimsonScorer(judge, workers=workers, **kept, **options)

    # A judge that answers in the order of the pairs needs no results to be held: they stand in the output, and are counted.
    streaming = scorer.keeps_order and not to_standard and (output is None or output.suffix.lower() not in _WRITERS)
    counts, shown_first = Summary(), []
    results: list[PairResult] = []
    n_done, interrupted = 0, False
    with _Output(output, file, lambda: scorer.stored(pairs)) as out:
        try:
            for result in scorer.stream(pairs, progress=wanted(progress)):
                n_done, last = n_done + 1, result
                if not streaming:
                    results.append(result.packed())
                out.write(result)
                if streaming:
                    counts.add(result)
                    if n_done <= _MOST_ROWS:
                        shown_first.append(result)
        except KeyboardInterrupt:
            interrupted = True
            if n_done:
                out.catch_up(n_done, last)
            if streaming and counts.n_pairs < n_done:
                counts.add(last)
        if not streaming:
            results = scorer.checked_together(pairs, results)
            counts, shown_first = Summary(results), results[:_MOST_ROWS]
        if not interrupted:
            out.finish(None if streaming else results, scorer.signature)
            if isinstance(scorer.judge, AccelerateJudge):
                scorer.judge.close()  # where the run broke off, the launcher ends the other processes

    context_columns = [column for role, column in columns.items() if role in CONTEXT_FIELDS]
    if to_standard:
        print("".join(_json_line(result) + "\n" for result in results), end="")
    empty = _empty_reports(pairs, n_blank)
    _print_results(
        shown_first, counts, scorer.signature, context_columns, scorer.store, empty, console(stderr=to_standard)
    )
    if interrupted:
        print(f"Interrupted: {counts.n_pairs} of {len(pairs)} pairs were judged.", file=sys.stderr)
        if scorer.store:
            print("They are in the store: run the same command again to go on.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if counts.failures:
        raise typer.Exit(UNSCORED)


def _read(file: Path, source: str, separator: str | None, encoding: str | None) -> Rows:
    if str(file) != _STANDARD:
        return read_rows(file, separator, encoding)
    data = sys.stdin.buffer.read()
    return parse_rows(data, guess_ending(data), source, separator, encoding)


def _empty_reports(pairs: list[ReportPair], blank_rows: int) -> str:
    """Counts of empty reports and blank rows for the summary; an empty string if there are none."""
    counts = {
        "empty reference": sum(not pair.reference.strip() for pair in pairs),
        "empty prediction": sum(not pair.candidate.strip() for pair in pairs),
        "blank row left out": blank_rows,
    }
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


class _Output:
    """The output of a run: JSON lines, written as pairs are done, sorted at the end, and kept if the run is interrupted.

    Until the end they are in `<output>.partial`, so that a file with the final name is always complete. What an earlier run
    left there is overwritten only if `stored` yields it, that is, if it is in the store. New files are readable by their
    owner only, since findings quote reports; the mode of a replaced file is kept.
    """

    def __init__(self, output: Path | None, source: Path, stored: Callable[[], Iterable[PairResult]]) -> None:
        self.output = output
        if output is None:
            return
        check_writable(output)
        self.output = output = output.resolve()  # a link is kept, and its target is written
        if output.exists() and source.exists() and output.samefile(source):
            raise InputError(
                f"output {output} is the file of the reports, which would be overwritten. Give another path."
            )
        self.partial = output.with_name(output.name + ".partial")
        try:
            self.file = opened_private(self.partial)
        except OSError as error:
            raise InputError(f"{self.partial} cannot be written: {error.strerror}. Give another path.") from None
        if not _locked(self.file, self.partial):
            self.file.close()
            raise InputError(f"{self.partial} is being written by another run. Wait for it, or give another path.")
        if not _is_in_store(self.partial.read_text(encoding="utf-8", errors="replace"), stored):
            self.file.close()
            raise InputError(
                f"{self.partial} contains the results of an interrupted run. Move it away or delete it, then run again."
            )
        self.file.truncate(0)
        self.n_written = 0

    def __enter__(self) -> "_Output":
        return self

    def write(self, result: PairResult) -> None:
        """Add one pair."""
        if self.output:
            with self._writing():
                self.file.write(_json_line(result) + "\n")  # at once, so that no interrupt cuts the line
                self.file.flush()
            self.n_written += 1

    def catch_up(self, n_done: int, last: PairResult) -> None:
        """Write the last of `n_done` pairs, if an interrupt left it unwritten."""
        if not self.output:
            return
        with self._writing():
            self.file.flush()  # in case the interrupt came before
            with self.partial.open(encoding="utf-8") as lines:
                self.n_written = sum(1 for _ in lines)
        if self.n_written < n_done:
            self.write(last)

    def finish(self, results: list[PairResult] | None, signature: str) -> None:
        """Give the file its final name: with these results in the format of its ending, or, for None, as it was written."""
        if not self.output:
            return
        with self._writing():
            if results is not None:
                write = _WRITERS.get(self.output.suffix.lower(), _write_lines)
                with written_whole(self.output, binary=True, private=True) as file:
                    write(results, signature, file)
                self.partial.unlink()
            else:
                os.fsync(self.file.fileno())
                if self.output.exists():
                    shutil.copymode(self.output, self.partial)
                os.replace(self.partial, self.output)

    def __exit__(self, *_: object) -> None:
        if not self.output:
            return
        with self._writing():
            self.file.close()
        if self.partial.exists():
            if self.n_written:
                print(f"The pairs that were judged are kept in {self.partial}.", file=sys.stderr)
            else:
                self.partial.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CrimsonError(f"output {self.output} cannot be written: {error.strerror}.") from None


def _locked(file: IO[str], path: Path) -> bool:
    """Lock a file for this process; False if another one has locked it, or has just renamed it."""
    with suppress(ImportError):  # Windows has no such locks
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            return False
    return True


def _is_in_store(lines: str, stored: Callable[[], Iterable[PairResult]]) -> bool:
    """Whether everything in the lines of an earlier run is in the store."""
    if not lines:
        return True
    whole, _, _ = lines.rpartition("\n")  # a kill may cut the last line, whose pair was stored before
    try:
        records = [json.loads(line) for line in whole.split("\n")]
        evaluations = {record["index"]: record["raw_evaluation"] for record in records}
    except (ValueError, KeyError, TypeError):
        return False  # no lines of ours
    for result in stored():
        if result.index in evaluations and evaluations[result.index] in (None, result.evaluation):
            del evaluations[result.index]
    return not evaluations


def _write_parquet(results: list[PairResult], _: str, file: IO[bytes]) -> None:
    write_parquet([result.as_dict() for result in results], file)


def _write_lines(results: list[PairResult], _: str, file: IO[bytes]) -> None:
    file.writelines((_json_line(result) + "\n").encode() for result in results)


def _write_json(results: list[PairResult], _: str, file: IO[bytes]) -> None:
    file.write(("[\n" + ",\n".join(map(_json_line, results)) + "\n]\n").encode())


def _write_csv(results: list[PairResult], signature: str, file: IO[bytes]) -> None:
    file.write(pairs_csv({"": results}, signature).encode())


def _write_tsv(results: list[PairResult], signature: str, file: IO[bytes]) -> None:
    file.write(pairs_csv({"": results}, signature, "\t").encode())


# Formats of a finished file; other endings stay JSON lines.
_WRITERS = {".parquet": _write_parquet, ".json": _write_json, ".csv": _write_csv, ".tsv": _write_tsv}
_ENDINGS = ("", ".jsonl", *_WRITERS)


def _json_line(result: PairResult) -> str:
    return json.dumps(result.as_dict(), ensure_ascii=False)


def _print_results(
    first: list[PairResult],
    summary: Summary,
    signature: str,
    context_columns: list[str],
    store: Path | None,
    empty: str,
    out: Console,
) -> None:
    table = Table("row", box=None, pad_edge=False, header_style="bold")
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
    out.print(f"CRIMSON score  {_number(summary.crimson_score)}  mean of {summary.n_scored} pairs")
    means = "  ".join(f"{name} {_number(summary.mean_errors[kind], 2)}" for kind, name in _SHORT.items())
    out.print(f"Errors a pair  {means}")
    suspect = f"   suspect {summary.n_suspect}" if summary.n_suspect else ""
    out.print(f"Unscored       {summary.n_unscored}   repaired {summary.n_repaired}{suspect}")
    if summary.n_unrecognised:
        out.print(
            f"Unrecognised   {summary.n_unrecognised} pairs: a report holds nothing that this judge knows, and counts as normal"
        )
    if empty:
        out.print(f"No words       {empty}")
    out.print(f"Context        {', '.join(context_columns) or 'none'}")
    out.print(f"Signature      {signature}", soft_wrap=True)
    if store:
        told = store_line(summary.n_pairs, summary.n_read, summary.n_failures_read, store)
        out.print(f"Store          {told}", soft_wrap=True)
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
