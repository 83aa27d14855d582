"""The output file of `crimson score`, which is written completely or not at all."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from crimson_core.compare.exports import write_pairs_csv
from crimson_core.errors import CrimsonError, InputError
from crimson_core.run.files import check_no_partial, check_writable, json_line, without_links, written_whole
from crimson_core.run.scorer import PairResult
from crimson_core.run.tables import write_parquet

Records = Iterable[dict[str, Any]]


class Output:
    """The output of a run: JSON lines while the run lasts, and one complete file in its format at the end.

    With a store, the lines are in a file without a name, which vanishes with the process: what an interrupted run has
    judged is in the store. Without a store, they are in `<output>.partial` (`.partial.jsonl` for another format), which an
    interrupted run leaves behind and no run overwrites. New files are readable by their owner only, since findings quote
    reports; the mode of a replaced file is kept.
    """

    def __init__(self, output: Path | None, source: Path, *, stored: bool) -> None:
        self.output = output
        self.partial: Path | None = None
        if output is None:
            return
        if output.name.endswith(".partial.jsonl"):
            raise InputError(f"output {output} has the name of a run that is not complete. Give another name.")
        check_writable(output)
        self.output = output = without_links(output)  # a link is kept, and its target is written
        if output.exists() and source.exists() and output.samefile(source):
            raise InputError(
                f"output {output} is the file of the reports, which would be overwritten. Give another path."
            )
        self.format = _WRITERS.get(output.suffix.lower())
        if not stored:
            self.partial = output.with_name(f"{output.name}.partial{'.jsonl' * (self.format is not None)}")
            check_no_partial(self.partial)
        with self._writing():
            if self.partial:
                self.file: IO[bytes] = open(self.partial, "x+b", opener=partial(os.open, mode=0o600))  # noqa: SIM115
            else:
                self.file = TemporaryFile(dir=output.parent)  # noqa: SIM115

    def __enter__(self) -> "Output":
        return self

    def write(self, lines: bytes) -> None:
        """Add the lines of some pairs."""
        if self.output:
            with self._writing():
                self.file.write(lines)
                self.file.flush()

    def finish(self, results: list[PairResult] | None, signature: str) -> None:
        """Write the file: with these results, or, for None, with those that were written."""
        if not self.output:
            return
        with self._writing():
            self.file.seek(0)
            with written_whole(self.output, binary=True, private=True) as file:
                if results is None and self.format is None:
                    shutil.copyfileobj(self.file, file)
                else:
                    records = (result.as_dict() for result in results) if results else map(json.loads, self.file)
                    (self.format or _write_lines)(records, signature, file)
            self.file.truncate(0)

    def __exit__(self, *_: object) -> None:
        if not self.output:
            return
        with self._writing():
            self.file.close()
        if self.partial and self.partial.exists():
            if self.partial.stat().st_size:
                print(f"The pairs that were judged are kept in {self.partial}.", file=sys.stderr)
            else:
                self.partial.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CrimsonError(f"output {self.output} cannot be written: {error.strerror}.") from None


def _write_parquet(records: Records, _: str, file: IO[bytes]) -> None:
    write_parquet(records, file, {"index": "int64", "crimson_score": "double", "from_store": "bool"})


def _write_lines(records: Records, _: str, file: IO[bytes]) -> None:
    file.writelines(json_line(record).encode() for record in records)


def _write_json(records: Records, _: str, file: IO[bytes]) -> None:
    for number, record in enumerate(records):
        file.write((b",\n" if number else b"[\n") + json.dumps(record, ensure_ascii=False).encode())
    file.write(b"\n]\n")


def _write_csv(records: Records, signature: str, file: IO[bytes], separator: str = ",") -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    write_pairs_csv(records, signature, text, separator)
    text.detach()  # flushed, and not closed


def _write_tsv(records: Records, signature: str, file: IO[bytes]) -> None:
    _write_csv(records, signature, file, "\t")


# Formats of a finished file; other endings stay JSON lines.
_WRITERS: dict[str, Callable[[Records, str, IO[bytes]], None]] = {
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
}
ENDINGS = ("", ".jsonl", *_WRITERS)
