"""`crimson lexicon`: looks after the data of the offline judge."""

from pathlib import Path
from typing import Annotated

import typer

from crimson_core.cli.options import console, printable
from crimson_core.errors import InputError
from crimson_core.judges.rules.lexicon import lexicon_faults

app = typer.Typer(help="The lexicon and the rules of the offline judge.", no_args_is_help=True, rich_markup_mode=None)

_FAULTY = 2


@app.callback()
def _lexicon() -> None: ...  # so that `check` stays a command of its own


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
    """Say what is wrong in a lexicon and its rules, one line per fault: file, entry, key.

    Unknown keys, wrong types, values out of range, ids that name nothing, circles of broader concepts, terms that stand twice.
    Exit status: 0 if nothing is wrong, 2 if something is.
    """
    if folder and not folder.is_dir():
        raise InputError(f"folder {folder} is no folder. Give one with language.yaml, rules.yaml and concepts/.")
    faults = lexicon_faults(folder)
    out = console()
    for fault in faults:
        out.print(printable(fault), soft_wrap=True)
    out.print(f"{len(faults)} fault{'s' * (len(faults) > 1)}." if faults else "No faults.")
    if faults:
        raise typer.Exit(_FAULTY)
