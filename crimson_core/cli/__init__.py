"""The command line, `crimson`: one file per command."""

import errno
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crimson_core.errors import CrimsonError
from crimson_core.version import __version__

_GROUPS = ("store", "lexicon")
_COMMANDS = ("score", "compare", "leaderboard", "explain", "metric", *_GROUPS)


class _Commands(TyperGroup):
    """The commands, each imported on first use: importing all of them takes longer than scoring a pair."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _COMMANDS:
            return _command(cmd_name)
        self.commands = {name: _command(name) for name in _COMMANDS}  # for typer's suggestions
        return None


def _command(name: str) -> Any:
    module = import_module(f"crimson_core.cli.{name}")
    if name in _GROUPS:
        made: Any = typer.main.get_group(module.app)
    else:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command()(getattr(module, name))
        made = typer.main.get_command(alone)
    made.name = name
    return made


app = typer.Typer(
    cls=_Commands,
    help="CRIMSON: judge AI-written chest X-ray reports. Research use only, not for clinical decisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, which contain report text
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
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


_BROKEN_PIPE = 128 + 13  # the exit status of a program that SIGPIPE ends


def main() -> None:
    """Run the command line; an error that the user can fix is one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # for terminals without UTF-8
    try:
        try:
            app()
        except SystemExit as end:
            # typer and rich turn a broken pipe into one, with the exit status of a crash
            if isinstance(end.__context__, BrokenPipeError):
                raise end.__context__ from None
            print(end="", flush=True)  # here, where errors are handled
            raise
    except CrimsonError as error:
        print(f"crimson: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        unread = isinstance(error, BrokenPipeError)  # the reader of our output has finished, like `head`
        if not unread:
            print(f"crimson: {_what_failed(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest of the output is dropped
        sys.exit(_BROKEN_PIPE if unread else 2)


def _what_failed(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    if error.filename is not None:
        return f"{error.filename} cannot be used: {reason}."
    if error.errno == errno.ENOENT:  # only a look-up of the working folder has no file name
        return "the working folder does not exist any more. Change to another one, and run again."
    return f"standard output cannot be written: {reason}."
