"""The command line, `crimson`: one file per command."""

import os
import sys
from typing import Annotated

import typer

from crimson_core.cli import store
from crimson_core.cli.compare import compare
from crimson_core.cli.leaderboard import leaderboard
from crimson_core.cli.score import score
from crimson_core.errors import CrimsonError
from crimson_core.version import __version__

app = typer.Typer(
    help="CRIMSON: judge AI-written chest X-ray reports. Research use only, not for clinical decisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, and these hold report text
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"crimson-metric {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


for command in (score, compare, leaderboard):
    app.command()(command)
app.add_typer(store.app, name="store")


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit status 2."""
    try:
        app()
    except CrimsonError as error:
        print(f"crimson: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as error:
        print(f"crimson: standard output cannot be written: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
