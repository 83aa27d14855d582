"""The commands of `crimson`: one file each."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crimson_core.cli.options import spread
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
        alone.command()(spread(getattr(module, name)))
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
