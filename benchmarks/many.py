"""Memory and time of `crimson score` on more pairs than fit into the memory, made up of a few sentences."""

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import JsonOption, console, number, run, table, write_csv, write_json
from benchmarks.speed import SENTENCES, measured_command
from crimson_core.run.files import json_line

_LARGEST = 40  # number in a sentence, so that sentences recur as they do in reports


def main(
    pairs: Annotated[
        list[int] | None, typer.Option(min=1, help="Pairs of a run.  [default: 50,000, 500,000]", show_default=False)
    ] = None,
    input_format: Annotated[str, typer.Option("--input", help="Ending of the input: csv, jsonl or parquet.")] = "csv",
    output_format: Annotated[str, typer.Option("--output", help="Ending of the output, as for -o.")] = "jsonl",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.  [default: one per core]")] = None,
    json_file: JsonOption = None,
) -> None:
    """Score many pairs with the offline judge, and print the first process's peak memory and the time."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in pairs or (50_000, 500_000):
            file = Path(folder, f"{count}.{input_format}")
            _write(file, _rows(count))
            output = file.with_name(f"results.{output_format}")
            started = time.perf_counter()
            options = ["--workers", str(workers)] if workers else []
            peak = measured_command("score", str(file), "-j", "offline", "-o", str(output), *options)
            seconds = time.perf_counter() - started
            sizes = {"input_mb": file.stat().st_size / 1e6, "output_mb": output.stat().st_size / 1e6}
            rows.append({"pairs": count, "peak_mb": peak, "seconds": seconds, **sizes})
    made = table(
        f"crimson score, .{input_format} to .{output_format}",
        ("pairs", "peak MB", "seconds", "input MB", "output MB"),
        left=0,
    )
    for row in rows:
        figures = (row[key] for key in ("peak_mb", "seconds", "input_mb", "output_mb"))
        made.add_row(f"{row['pairs']:,}", *(number(figure, 0) for figure in figures))
    console.print(made)
    write_json(json_file, {"input": input_format, "output": output_format, "rows": rows})


def _rows(count: int) -> Iterator[dict[str, str]]:
    chance = random.Random(1)
    for place in range(count):
        reports = (
            " ".join(text.format(chance.randrange(1, _LARGEST)) for text in chance.sample(SENTENCES, 4))
            for _ in range(2)
        )
        yield dict(zip(("id", "reference", "prediction"), (f"study {place}", *reports), strict=True))


def _write(file: Path, rows: Iterator[dict[str, str]]) -> None:
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)  # one group of rows, the worst case
    elif file.suffix == ".jsonl":
        with file.open("w", encoding="utf-8") as out:
            out.writelines(map(json_line, rows))
    else:
        write_csv(file, rows)


if __name__ == "__main__":
    run(main)
