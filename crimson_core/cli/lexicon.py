"""`crimson lexicon`: checks the data of the offline judge."""

from pathlib import Path
from typing import Annotated

import typer

from crimson_core.cli.options import console
from crimson_core.compare.formats import printable
from crimson_core.errors import InputError
from crimson_core.judges.rules.lexicon import lexicon_faults

app = typer.Typer(help="The lexicon and the rules of the offline judge.", no_args_is_help=True, rich_markup_mode=None)

_FAULTY = 2


@app.callback()
def _lexicon() -> None: ...  # so that `check` stays a subcommand


@app.command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with language.yaml, rules.yaml and concepts/.  [default: those of the offline judge]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the faults of a lexicon and its rules, one line each: file, entry, key.

    Faults are unknown keys, wrong types, values out of range, unknown ids, cycles of broader concepts and duplicate terms. Exit
    status: 0 if there are none, 2 otherwise.
    """
    if folder and not folder.is_dir():
        raise InputError(f"folder {folder} is not a folder. Give one with language.yaml, rules.yaml and concepts/.")
    faults = lexicon_faults(folder)
    out = console()
    for fault in faults:
        out.print(printable(fault), soft_wrap=True)
    out.print(f"{len(faults)} fault{'s' * (len(faults) > 1)}." if faults else "No faults.")
    if faults:
        raise typer.Exit(_FAULTY)
