"""`crimson leaderboard`: compares the systems of a config on test sets, under judges."""

from pathlib import Path
from typing import Annotated

import typer

from crimson_core.cli.options import Progress, Strict, Workers, wanted
from crimson_core.cli.outputs import OutputOptions, run_and_write
from crimson_core.cli.store import StoreOptions
from crimson_core.compare.leaderboard.config import load_config
from crimson_core.run.files import without_links


def leaderboard(
    config: Annotated[Path, typer.Argument(help="YAML file with the keys judges, test_sets and systems.")],
    *,
    kept: StoreOptions,
    strict: Strict = False,
    workers: Workers = None,
    to: OutputOptions,
    progress: Progress = None,
) -> None:
    """Judge systems on test sets and compare them, as a config describes.

    judges: judge specs; with two or more, their agreement is reported. test_sets: name -> {data, columns, subgroups}, where data
    is a file (relative to the config), a folder or a Hub id, or {path, split, name, revision}; columns names the columns of
    reference, id, age, sex, indication and patient; subgroups are age_band, sex or columns. systems: name -> the column of its
    candidate reports, or {column, data: {test set: a table of its own}}, joined by id. Further keys: title, seed (of the
    resampling), fill_missing (treat missing reports as empty ones) and within (the largest difference of two judges' scores that
    counts as close; 0.1).

    Exit status: 0 if every pair was scored, 3 if some were not, 2 if the config, the input, a judge or an output was refused,
    130 if the run was interrupted. After an interrupt, the tables cover the pairs that were judged for all systems, and existing
    outputs are kept; without a store, the results go to files that end in .partial.
    """
    read = load_config(config)
    folder = without_links(config).parent
    sources = [test_set.data for test_set in read.test_sets.values()]
    sources += [source for system in read.systems.values() for source in system.data.values()]
    run_and_write(
        read,
        folder,
        kept=kept,
        to=to,
        strict=strict,
        workers=workers,
        progress=wanted(progress),
        inputs=[config, *(folder / source.path for source in sources)],
    )
