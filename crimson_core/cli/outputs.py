"""The outputs of `crimson compare` and `crimson leaderboard`: files, tables and the Hub."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from crimson_core.cli.options import INTERRUPTED, UNSCORED, console, warnings_as_lines
from crimson_core.cli.store import StoreOptions, store_line
from crimson_core.compare import exports, tables
from crimson_core.compare.formats import printable
from crimson_core.compare.leaderboard.config import Config
from crimson_core.compare.leaderboard.data import IN_CONFIG
from crimson_core.compare.leaderboard.run import Leaderboard, read_test_sets, run_leaderboard
from crimson_core.errors import CrimsonError, InputError
from crimson_core.install import install_command
from crimson_core.run.files import check_no_partial, check_writable, without_links, written_whole


def _html(board: Leaderboard) -> str:
    from crimson_core.compare.leaderboard.page import page_html

    return page_html(board)


_WRITERS: dict[str, Callable[[Leaderboard], str]] = {
    ".html": _html,
    ".md": exports.markdown,
    ".csv": exports.as_csv,
    ".json": exports.as_json,
    ".jsonl": exports.as_jsonl,
}
_WITH_REPORTS = {".html", ".jsonl"}  # formats with report text: new files are readable by their owner only


@dataclass
class OutputOptions:
    """Where the results of a comparison go."""

    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to this file; its ending sets the format: .html (a page with figures and highlighted reports), .md, .csv (all "
            "figures), .json (everything except report text) or .jsonl (every evaluation). May be given several times.",
        ),
    ] = None
    hub_files: Annotated[
        Path | None,
        typer.Option(
            help="Write each system's results to this folder in the Hub's formats: a model card with a model-index block, and files "
            "like those of evaluate.save. An existing model card keeps its text and its other metadata."
        ),
    ] = None
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Push every evaluation as a data set to this Hub repository. They contain report text."),
    ] = None
    public: Annotated[
        bool, typer.Option("--public", help="Make the data set of --push-to-hub public, if it is new.")
    ] = False


def run_and_write(
    config: Config,
    folder: Path,
    *,
    how: str = IN_CONFIG,
    to: OutputOptions,
    kept: StoreOptions,
    progress: bool,
    strict: bool,
    inputs: Sequence[Path],
    workers: int | None,
) -> None:
    """Judge, write the outputs, and print the tables.

    An interrupted run never replaces a complete output. Its judgements are in the store; without a store, its results are
    written to `<output>.partial`. Nothing goes to the Hub.

    Raises:
        CrimsonError: The input, a judge or an output was refused.
        typer.Exit: With status 3 if pairs are unscored, 130 if the run was interrupted.
    """
    outputs, hub_files, kept_in = to.output or [], to.hub_files, kept.path
    _check_outputs(outputs, [*inputs, *([kept_in] if kept_in else [])], stored=kept_in is not None)
    if to.public and not to.push_to_hub:
        raise InputError("--public needs --push-to-hub. Give both.")
    if hub_files:
        from crimson_core.compare.leaderboard.hub import check_hub_files

        check_hub_files(list(config.systems), hub_files)
    with warnings_as_lines(strict):
        test_sets = read_test_sets(config, folder, how)
    scoring = {"store": kept_in, "retry_failures": kept.retry_failures, "strict": strict, "workers": workers}
    board = run_leaderboard(config, test_sets, progress=progress, **scoring)
    files = {output: output for output in outputs}
    if board.interrupted:
        files = {} if kept_in else {output: _partial(output) for output in outputs}
    try:  # before the tables are printed, since standard output may be closed
        for output, file in files.items():
            _write(file, _WRITERS[output.suffix.lower()](board), private=output.suffix.lower() in _WITH_REPORTS)
        if hub_files and not board.interrupted:
            from crimson_core.compare.leaderboard.hub import write_hub_files

            write_hub_files(board, hub_files)
        if to.push_to_hub and not board.interrupted:
            from crimson_core.compare.leaderboard.hub import push_to_hub

            push_to_hub(board, to.push_to_hub, private=not to.public)
    finally:
        print_board(board, kept_in)
    if board.interrupted:
        print("Interrupted: the figures are for the pairs that were judged for all systems.", file=sys.stderr)
        for file in files.values():
            print(f"Written to {file}.", file=sys.stderr)
        left = [*(output for output in outputs if output not in files), *filter(None, (hub_files, to.push_to_hub))]
        if left:
            print(f"Not written: {', '.join(map(str, left))}.", file=sys.stderr)
        if kept_in:
            print("The judgements are in the store: run the same command again to continue.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if board.n_unscored:
        raise typer.Exit(UNSCORED)


def print_board(board: Leaderboard, store: Path | None) -> None:
    """Print all tables of a leaderboard, and how many judgements came from the store."""
    out = console()
    part = None
    for table in tables.all_tables(board):
        if table.part != part:
            part = table.part
            out.print(printable(part), style="bold underline")
            out.print()
        grid = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
        for number, column in enumerate(table.columns):
            label = number < table.n_labels
            grid.add_column(
                printable(column), justify="left" if label else "right", overflow="ellipsis" if label else "fold"
            )
        for row in table.rows:
            grid.add_row(*("\n".join(map(printable, cell.split("\n"))) for cell in row))
        out.print(table.title, style="bold")
        for line in table.lead:
            out.print(printable(line))
        out.print(grid)
        for note in table.notes:
            out.print(note)
        out.print(f"Signature  {printable(table.signature)}", soft_wrap=True)
        out.print()
    for line in tables.how_to_read(board.sections, board.agreements):
        out.print(line)
    if store:
        results = [result for section in board.sections for own in section.results.values() for result in own]
        read = sum(result.from_store for result in results)
        failures = sum(result.from_store and result.evaluation is None for result in results)
        out.print(f"Store  {store_line(len(results), read, failures, store)}", soft_wrap=True)
    out.print(tables.RESEARCH_ONLY)


def _partial(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _write(file: Path, text: str, *, private: bool) -> None:
    try:
        with written_whole(file, private=private) as out:
            out.write(text)
    except OSError as error:
        raise CrimsonError(f"output {file} cannot be written: {error.strerror}.") from None


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, stored: bool) -> None:
    """Check before anything is judged that the outputs can be written."""
    for output in outputs:
        if output.suffix.lower() not in _WRITERS:
            raise InputError(f"output {output} has an unknown ending. Give one of {', '.join(_WRITERS)}.")
        if output.suffix.lower() == ".html":
            try:
                import jinja2  # noqa: F401
                import plotly  # noqa: F401
            except ImportError:
                raise InputError(f"The HTML report needs Jinja2 and plotly. Run: {install_command('report')}") from None
        check_writable(output)
        if not stored:
            check_no_partial(_partial(output))
        if any(_same(output, file) for file in inputs):
            raise InputError(
                f"output {output} is a file of reports or the store, which would be overwritten. Give another path."
            )
    if len(set(map(without_links, outputs))) < len(outputs):
        raise InputError("Two outputs are the same file. Give each its own.")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are, or would be, one file."""
    return without_links(one) == without_links(other) or (one.exists() and other.exists() and one.samefile(other))
