"""Compares a judge with the labels of records that it was not trained on: `python -m training.evaluate FILE --judge SPEC`."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from crimson_core.cli.options import console
from crimson_core.compare.exports import json_ready
from crimson_core.compare.formats import fixed
from crimson_core.errors import InputError
from crimson_core.judges import parse_spec
from crimson_core.run.scorer import CrimsonScorer
from training.agreement import agreement
from training.card import RECORD_FILE, enter_test, read_run
from training.command import run
from training.journal import write_json
from training.records import REGIMES, read_records


def main(
    records: Annotated[Path, typer.Argument(metavar="FILE", help="Records of a held-out split, such as test.jsonl.")],
    judge: Annotated[str, typer.Option("--judge", "-j", help="Judge spec.")] = "offline",
    limit: Annotated[int | None, typer.Option(min=1, help="The first records only.")] = None,
    regime: Annotated[
        list[int] | None,
        typer.Option(min=0, max=len(REGIMES) - 1, help="Only records of this regime, by number; can be given again."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Also enter the figures into the record and the model card in the judge's folder."),
    ] = False,
) -> None:
    """Print the agreement of a judge with the labels of records, over all and by regime."""
    folder = _folder_of(judge) if card else None
    truth = [record for record in read_records(records) if not regime or record.regime in regime][:limit]
    if not truth:
        raise InputError(f"{records} holds no records of the regimes that --regime asks for.")
    scorer = CrimsonScorer(judge)
    began = time.perf_counter()
    results = scorer.score([record.pair for record in truth], progress=sys.stderr.isatty())
    seconds = time.perf_counter() - began
    figures = {"all": agreement(truth, results)}
    for number, name in enumerate(REGIMES):
        own = [place for place, record in enumerate(truth) if record.regime == number]
        if own:
            figures[name] = agreement([truth[i] for i in own], [results[i] for i in own])

    out = console()
    table = Table("records", box=None, pad_edge=False)
    names = list(figures["all"])
    for name in names:
        table.add_column(name, justify="right")
    for label, found in figures.items():
        table.add_row(label, *(fixed(found[name], 0 if name == "pairs" else 3) for name in names))
    out.print(table)
    out.print(f"{len(truth) / seconds:.2f} pairs/s")
    out.print(scorer.signature, soft_wrap=True)
    test = {
        "records": f"{records.parent.name}/{records.name}".lstrip("/"),  # no folders of this machine
        "regimes": sorted(set(regime)) if regime else None,
        "limit": limit,
        "signature": scorer.signature,
        "pairs_per_second": len(truth) / seconds,
        "agreement": json_ready(figures),
    }
    if json_file:
        write_json(json_file, test)
    if folder:
        enter_test(folder, test)


def _folder_of(judge: str) -> Path:
    """The folder of a judge that was trained here.

    Raises:
        InputError: The judge has no such folder, or its record cannot be read.
    """
    spec = parse_spec(judge)
    folder = Path(spec.model or "").expanduser()
    if spec.prefix != "hf" or not (folder / RECORD_FILE).is_file():
        raise InputError(f"--card needs a judge whose folder holds {RECORD_FILE}: --judge hf:<folder of the adapter>.")
    read_run(folder)  # so that a broken record is an error before hours of judging
    return folder


if __name__ == "__main__":
    run(main)
