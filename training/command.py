"""Runs the commands other than `crimson`: an error that the user can fix is one line and exit status 2."""

import sys
from collections.abc import Callable

import typer

from crimson_core.errors import CrimsonError


def run(command: Callable[..., None], name: str = "training") -> None:
    """Run a function as a command line; errors begin with `name`."""
    # typer's tracebacks print local variables, which contain report text
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    try:
        app()
    except CrimsonError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
