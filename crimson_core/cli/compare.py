"""`crimson compare`: compares systems over the same references, from one file or several."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crimson_core.cli import options as opt
from crimson_core.cli.outputs import OutputOptions, run_and_write
from crimson_core.cli.store import StoreOptions
from crimson_core.compare.leaderboard.config import parse_config
from crimson_core.compare.section import name_systems
from crimson_core.errors import InputError
from crimson_core.run.files import without_links
from crimson_core.run.pairs import BY_OPTION


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="One file with a column of candidate reports per system, or one file per system. Files after the first may lack the "
            "references; they are then joined by id."
        ),
    ],
    *,
    prediction_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of candidate reports; may be given several times, once per system.  [default: prediction]",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            "-j",
            help=opt.JUDGE_HELP + " With several judges, their agreement is reported too.  [default: default]",
            show_default=False,
        ),
    ] = None,
    shared: opt.Columns,
    patient_column: Annotated[
        str | None,
        typer.Option(help="Column of patients: intervals and p values then resample patients instead of pairs."),
    ] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option(help="Also give figures by age_band, sex or a column. May be given several times."),
    ] = None,
    judging: opt.JudgeOptions,
    repair: opt.Repair = True,
    strict: opt.Strict = False,
    workers: opt.Workers = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    kept: StoreOptions,
    to: OutputOptions,
    fill_missing: opt.FillMissing = False,
    progress: opt.Progress = None,
) -> None:
    """Compare two or more systems over the same references.

    Prints means with 95 % intervals, paired differences with p values (Holm-corrected), and clinical figures. The exit status is
    that of `crimson leaderboard`, which reads a config with more systems, test sets and judges.
    """
    columns = prediction_column or ["prediction"]
    systems = name_systems([file.name for file in files], columns)
    if len(set(columns)) < len(columns) or len(set(map(without_links, files))) < len(files):
        raise InputError("A column or a file is given twice and would be compared with itself.")
    if len(systems) < 2:
        raise InputError(
            "There is only one system. Give two or more files, or --prediction-column twice or more; "
            "`crimson score` scores one."
        )
    test_set = files[0].stem
    options = opt.given(**vars(judging))
    if Path("-") in files:
        raise InputError("Standard input (-) cannot be compared. Give files, or the file with a column per system.")
    paths = [str(without_links(file)) for file in files]
    config: dict[str, Any] = {
        "title": "Comparison of " + ", ".join(systems),
        "judges": [{"spec": spec, "options": options, "repair": repair} for spec in judge or ["default"]],
        "test_sets": {
            test_set: {
                "data": paths[0],
                "columns": {
                    "reference": shared.reference_column,
                    **opt.given(**shared.optional, patient=patient_column),
                },
                "subgroups": subgroup or [],
            }
        },
        "systems": {
            name: {"column": column, "data": {test_set: paths[number]} if number else {}}
            for name, (number, column) in systems.items()
        },
        "seed": seed,
        "fill_missing": fill_missing,
    }
    run_and_write(
        parse_config(config, "the command line"),
        Path(),
        how=BY_OPTION,
        kept=kept,
        to=to,
        strict=strict,
        workers=workers,
        progress=opt.wanted(progress),
        inputs=files,
    )
