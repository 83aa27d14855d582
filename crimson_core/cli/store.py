"""`crimson store`: commands for the store of judgements, and the store options of other commands."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from crimson_core.errors import CrimsonError, DamagedStoreError, InputError
from crimson_core.protocol.pair import ReportPair, parse_context
from crimson_core.run.files import json_line, without_links, written_whole
from crimson_core.run.store import OFF, Selection, Store, default_path
from crimson_core.run.suspicion import reader, suspicions
from crimson_core.run.tables import write_parquet

_DAMAGED = 3  # exit status of verify
_MOST_DAYS = 36_500  # a hundred years; the date must exist

_StoreFile = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="File that keeps the judgements, or off; it contains report text.  [default: CRIMSON_STORE, else judgements.sqlite in "
        "the user's cache folder]",
    ),
]


@dataclass
class StoreOptions:
    """The store of a run."""

    store: _StoreFile = None
    no_store: Annotated[bool, typer.Option("--no-store", help="Use no store (like CRIMSON_STORE=off).")] = False
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Judge pairs again whose stored judgement is a failure.")
    ] = False

    @property
    def path(self) -> Path | None:
        """The store that the options name; None for no store.

        Raises:
            InputError: The options contradict each other.
        """
        if self.store is not None and self.no_store:
            raise InputError("--store and --no-store exclude each other. Leave one out.")
        path = None if self.no_store or self.store == Path(OFF) else self.store or default_path()
        if path is None and self.retry_failures:
            raise InputError("--retry-failures needs the store with the failures, and the store is off. Leave one out.")
        return path


_SignatureOption = Annotated[
    str | None,
    typer.Option(
        "--signature",
        help="Only judges with these fields in their signature, for example 'judge:offline|lexicon:2', or with this whole signature.",
    ),
]
_FailuresOption = Annotated[bool | None, typer.Option("--failures/--no-failures", help="Failures only, or none.")]

app = typer.Typer(
    help="The stored judgements: export, stats, verify, prune.", no_args_is_help=True, rich_markup_mode=None
)


def shown(path: Path) -> str:
    """A path, with ~ for the home folder."""
    home = Path.home()
    return str(Path("~", path.relative_to(home)) if path.is_relative_to(home) else path)


def store_line(n: int, n_read: int, n_failures_read: int, store: Path) -> str:
    """How many of `n` judgements were read from the store, failures among them, and how many were made."""
    again = f" ({n_failures_read} of them unscored: --retry-failures judges these again)" if n_failures_read else ""
    return f"read {n_read}{again}, judged {n - n_read}: {shown(store)}"


def _open(store: Path | None) -> Store:
    path = StoreOptions(store).path
    if path is None:
        raise InputError("The store is off (by CRIMSON_STORE or --store). Give the path of one with --store.")
    return Store(path, create=False)


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="File to write; its name ends in .jsonl or .parquet.")],
    store: _StoreFile = None,
    signature: _SignatureOption = None,
    failures: _FailuresOption = None,
) -> None:
    """Export the judgements with their reports, one per line or row.

    `suspicions` lists evidence against a model's evaluation. In Parquet, nested values (signature, context, evaluation, repairs,
    usage, suspicions) are JSON strings.
    """
    write = _WRITERS.get(output.suffix.lower())
    if write is None:
        raise InputError(f"{output} has an unknown ending. Give a file that ends in {' or '.join(_WRITERS)}.")
    with _open(store) as opened:
        if without_links(output) == without_links(opened.path):
            raise InputError(f"{output} is the store itself, which would be lost. Give another path.")
        try:
            with written_whole(output, binary=True, private=True) as file:
                count = write(_checked(opened.entries(Selection(signature, failures))), file)
                if not count:
                    raise InputError(
                        f"The store has no such judgements, and {output} was not written. `crimson store stats` shows what "
                        "it contains."
                    )
        except OSError as error:
            raise CrimsonError(f"{output} cannot be written: {error.strerror}.") from None
    print(f"{count} judgements written to {output}; it contains report text.")


@app.command()
def stats(store: _StoreFile = None) -> None:
    """Count the judgements of each judge."""
    with _open(store) as opened:
        judges, path = opened.stats(), opened.path
        size = sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.exists())
    for judge in judges:
        print(judge.signature)
        print(f"  judgements  {judge.judgements}, of them {judge.failures} failures")
        if judge.prompt_tokens or judge.completion_tokens:
            print(f"  tokens      {judge.prompt_tokens} in prompts, {judge.completion_tokens} in answers")
        if judge.cost is not None:
            print(f"  cost        {judge.cost:.4f} US dollars, as the server reported")
        print(f"  time        {judge.seconds:.1f} s")
        print(f"  judged      {judge.first} to {judge.last}\n")
    print(
        f"{sum(judge.judgements for judge in judges)} judgements, {size / 1e6:.1f} MB, with report text: {shown(path)}"
    )


@app.command()
def verify(store: _StoreFile = None) -> None:
    """Check that the file is intact, that every evaluation can be read, and that every judgement fits its key.

    Exit status: 0 if no damage was found, 3 otherwise.
    """
    try:
        with _open(store) as opened:
            found = opened.verify()
    except DamagedStoreError as error:  # nothing can be read
        print(error)
        raise typer.Exit(_DAMAGED) from None
    for line in found.file:
        print(f"The file is damaged: {line}")
    for key in found.damaged:
        print(f"Damaged: {key}")
    print(f"{found.judgements} judgements checked, {len(found.damaged)} damaged: {shown(opened.path)}")
    if found.damaged:
        print("`crimson store prune --damaged` deletes them; their pairs are judged again when needed.")
    if found.damaged or found.file:
        raise typer.Exit(_DAMAGED)


@app.command()
def prune(
    store: _StoreFile = None,
    signature: _SignatureOption = None,
    older_than: Annotated[
        int | None, typer.Option(min=0, max=_MOST_DAYS, help="Only judgements older than this many days.")
    ] = None,
    failures: _FailuresOption = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Only judgements that `crimson store verify` finds damaged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, delete nothing.")] = False,
) -> None:
    """Delete the judgements that meet all options, and their text from the file."""
    if signature is None and older_than is None and failures is None and not damaged:
        raise InputError(
            "prune: no selection is given. Give --signature, --older-than, --failures or --damaged; "
            "to delete everything, delete the file."
        )
    with _open(store) as opened:
        before = None if older_than is None else datetime.now(UTC) - timedelta(days=older_than)
        keys = frozenset(opened.verify().damaged) if damaged else None
        count = opened.prune(Selection(signature, failures, before, keys), dry_run=dry_run)
    print(f"{count} judgements {'would be ' if dry_run else ''}deleted: {shown(opened.path)}")


def _checked(entries: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Entries with suspicions about the evaluations of models."""
    read = reader()
    for entry in entries:
        found = []
        if entry["evaluation"] is not None and "prompt" in entry["answered"]:
            context = parse_context(dict(entry["context"]), "context")
            found = suspicions(ReportPair(entry["reference"], entry["candidate"], context), entry["evaluation"], read)
        yield entry | {"suspicions": found}


def _write_jsonl(entries: Iterator[dict[str, Any]], file: Any) -> int:
    return sum(bool(file.write(json_line(entry).encode())) for entry in entries)


_WRITERS: dict[str, Callable[[Iterator[dict[str, Any]], Any], int]] = {
    ".jsonl": _write_jsonl,
    ".parquet": partial(write_parquet, kinds={"cost": "double", "seconds": "double"}),
}
