"""`crimson score`: the report pairs of a file, judged and scored."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges.accelerate import AccelerateJudge, launched
from crimson_core.report import CONTEXT_FIELDS
from crimson_core.scorer import CrimsonScorer, PairResult
from crimson_core.summary import summarize
from crimson_core.table import column_names, pairs_from_rows, read_rows, write_parquet

# Exit statuses beside 0 and 2; 1 is Python's own for a crash.
_UNSCORED, _INTERRUPTED = 3, 130
_MOST_ROWS = 50  # of the table; -o has them all
_SHORT = {"false_findings": "false", "missing_findings": "missing", "attribute_errors": "attribute"}


def score(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, JSON or Parquet file with one report pair per row.")],
    judge: Annotated[
        str,
        typer.Option(
            "--judge",
            "-j",
            help="default (the published model), offline, offline+minilm, hf:<Hub id or folder>, vllm:<Hub id or folder>, "
            "openai:<model> or azure:<deployment>; for an adapter whose base model is elsewhere hf:<adapter>,base=<folder or Hub id>.",
        ),
    ] = "default",
    reference_column: Annotated[str, typer.Option(help="Column of the reference reports.")] = "reference",
    prediction_column: Annotated[str, typer.Option(help="Column of the candidate reports.")] = "prediction",
    id_column: Annotated[str | None, typer.Option(help="Column of ids.  [default: id, if there]")] = None,
    age_column: Annotated[str | None, typer.Option(help="Column of ages.  [default: age, if there]")] = None,
    sex_column: Annotated[str | None, typer.Option(help="Column of sexes.  [default: sex, if there]")] = None,
    indication_column: Annotated[
        str | None, typer.Option(help="Column of indications.  [default: indication, if there]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write one JSON line per pair to this file; if it ends in .parquet, one row per pair.",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pairs per batch (hf and vllm judges).")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model runs, for example cuda:0 or cpu (hf judges).")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32 (hf and vllm judges).")] = None,
    base_url: Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible server (openai judges).")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once (openai and azure judges).")] = None,
    repair: Annotated[
        bool, typer.Option("--repair/--no-repair", help="Make inconsistent evaluations consistent before scoring.")
    ] = True,
    engine: Annotated[
        Literal["ray"] | None, typer.Option(help="Judge in several workers with Ray.  [default: in this process]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of workers (ray).  [default: one per CPU, or as many as have GPUs]"),
    ] = None,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker (ray).")] = 0,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, or auto.  [default: Ray on this machine alone]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score the first rows only.")] = None,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show a progress bar.")] = True,
) -> None:
    """Score the report pairs of a file.

    Prints a table of the first pairs, the corpus summary and the signature. Exit status: 0 if every pair was scored, 3 if
    some were not, 2 if the input, the judge or the output was refused, 130 if the run was interrupted. With -o, what was
    judged before a run broke off is kept.

    Started by `accelerate launch -m crimson_core.cli score …` in several processes, each judges its share; the first one reads,
    prints and writes.
    """
    columns = {"reference": reference_column, "prediction": prediction_column}
    named = {"id": id_column, "age": age_column, "sex": sex_column, "indication": indication_column}
    options = {
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "base_url": base_url,
        "concurrency": concurrency,
    }
    options = {option: value for option, value in options.items() if value is not None}
    shared = {"workers": workers, "num_gpus": num_gpus, "address": address}
    if engine is None and any(shared.values()):
        raise InputError("--workers, --num-gpus and --address are options of --engine ray. Add it, or leave them out.")
    if engine and launched():
        raise InputError("--engine ray starts its workers itself. Leave it out, or run it without a launcher.")
    if launched() and os.environ["RANK"] != "0":
        AccelerateJudge(judge, **options).serve()
        return
    rows = read_rows(file)[:limit]
    have = column_names(rows)
    columns |= {role: name or role for role, name in named.items() if name or role in have}
    pairs = pairs_from_rows(rows, columns, file.name)
    if engine == "ray":
        from crimson_core.judges.ray import RayJudge

        scorer = CrimsonScorer(RayJudge(judge, **shared, **options), repair=repair)
    elif launched():
        scorer = CrimsonScorer(AccelerateJudge(judge, **options), repair=repair)
    else:
        scorer = CrimsonScorer(judge, repair=repair, **options)

    results: list[PairResult] = []
    interrupted = False
    with _Output(output, file) as out:
        try:
            for result in scorer.stream(pairs, progress=progress):
                results.append(result)
                out.write(result)
        except KeyboardInterrupt:
            interrupted = True
            out.catch_up(results)
        results.sort(key=lambda result: result.index)
        if not interrupted:
            out.finish(results)
            if isinstance(scorer.judge, AccelerateJudge):
                scorer.judge.close()  # where the run broke off, the launcher ends the other processes

    _print_results(results, scorer.signature, [column for role, column in columns.items() if role in CONTEXT_FIELDS])
    if interrupted:
        print(f"Interrupted: {len(results)} of {len(pairs)} pairs were judged.", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED)
    if any(result.score is None for result in results):
        raise typer.Exit(_UNSCORED)


class _Output:
    """The JSON lines of a run: written as pairs are done, put in order at the end, kept when the run breaks off.

    Until the run is finished they stand in `<output>.partial`, so that a file under the asked name is always whole.
    """

    def __init__(self, output: Path | None, source: Path) -> None:
        self.output = output
        if output is None:
            return
        if output.exists() and not output.is_file():
            raise InputError(f"output {output} is no ordinary file. Give the path of a file.")
        self.output = output = output.resolve()  # a link stays one, and its target is written
        if output.exists() and output.samefile(source):
            raise InputError(f"output {output} is the file of the reports, which would be lost. Give another path.")
        self.partial = output.with_name(output.name + ".partial")
        try:
            self.file = self.partial.open("x", encoding="utf-8")
        except FileExistsError:
            raise InputError(
                f"{self.partial} holds what an interrupted run has judged. Move it away or delete it, then run again."
            ) from None
        except OSError as error:
            raise InputError(f"output {output} cannot be written: {error.strerror}. Give another path.") from None
        self.order: list[int] = []

    def __enter__(self) -> "_Output":
        return self

    def write(self, result: PairResult) -> None:
        """Add one pair."""
        if self.output:
            with self._writing():
                print(_json_line(result), file=self.file, flush=True)
            self.order.append(result.index)

    def catch_up(self, results: list[PairResult]) -> None:
        """Add the pair that an interrupt kept from being written, if there is one."""
        if not self.output:
            return
        with self._writing(), self.partial.open(encoding="utf-8") as lines:
            written = sum(1 for _ in lines)
        del self.order[written:]
        self.order += [result.index for result in results[len(self.order) : written]]
        for result in results[written:]:
            self.write(result)

    def finish(self, results: list[PairResult]) -> None:
        """Put the pairs in order and the file in its place."""
        if not self.output:
            return
        with self._writing():
            if self.order != sorted(self.order):
                ordered = self.partial.with_suffix(".ordered")  # the lines in hand stay until all of these are written
                ordered.write_text("".join(_json_line(result) + "\n" for result in results), encoding="utf-8")
                os.replace(ordered, self.partial)
            if self.output.suffix.lower() == ".parquet":
                rows = self.partial.with_suffix(".rows")
                write_parquet([result.as_dict() for result in results], rows)
                os.replace(rows, self.partial)
            os.replace(self.partial, self.output)

    def __exit__(self, *_: object) -> None:
        if not self.output:
            return
        with self._writing():
            self.file.close()
        if self.partial.exists():
            if self.order:
                print(f"The pairs that were judged are kept in {self.partial}.", file=sys.stderr)
            else:
                self.partial.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CrimsonError(f"output {self.output} cannot be written any further: {error.strerror}.") from None


def _json_line(result: PairResult) -> str:
    return json.dumps(result.as_dict(), ensure_ascii=False)


def _print_results(results: list[PairResult], signature: str, context_columns: list[str]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)  # ids and reasons are data
    if not console.is_terminal:
        console.width = 120
    table = Table("row", box=None, pad_edge=False, header_style="bold")
    table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=40)
    for header in ("score", *_SHORT.values()):
        table.add_column(header, justify="right")
    table.add_column("attribute errors, repairs or why unscored", overflow="fold")
    for result in results[:_MOST_ROWS]:
        table.add_row(str(result.index + 1), _printable(result.id or ""), *_cells(result))
    console.print(table)
    if len(results) > _MOST_ROWS:
        console.print(f"… and {len(results) - _MOST_ROWS} more pairs; -o writes them all")

    summary = summarize(results, signature)
    console.print()
    console.print(
        f"CRIMSON score  {_number(summary['crimson_score'])}  mean of {summary['n_pairs'] - summary['n_unscored']} pairs"
    )
    means = "  ".join(f"{name} {_number(summary[f'mean_{kind}'], 2)}" for kind, name in _SHORT.items())
    console.print(f"Errors a pair  {means}")
    console.print(f"Unscored       {summary['n_unscored']}   repaired {summary['n_repaired']}")
    console.print(f"Context        {', '.join(context_columns) or 'none'}")
    console.print(f"Signature      {signature}", soft_wrap=True)
    console.print("Research use only, not for clinical decisions.")


def _cells(result: PairResult) -> list[str]:
    if result.score is None:
        return ["", "", "", "", f"unscored: {result.failure}"]
    counts: dict[str, Any] = result.score["error_counts"]
    kinds = [f"{kind.removesuffix('_errors')} {n}" for kind, n in counts.items() if n and kind not in _SHORT]
    notes = ", ".join(kinds) + (f" ({len(result.repairs)} repairs)" if result.repairs else "")
    return [_number(result.crimson_score), *(str(counts[kind]) for kind in _SHORT), notes]


def _printable(text: str) -> str:
    """Text without control characters, which could steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"
